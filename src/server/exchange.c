/* Answers to a request: see exchange.h. */
#include "server/exchange.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Slowest pace, in bytes a second, at which a client may take a finished answer. */
#define MIN_DRAIN_RATE (16 << 10)

int http_status_of(int code)
{
    switch (code) {
    case OCTAVO_EINVAL:
    case OCTAVO_EUNSUPPORTED:
        return MHD_HTTP_BAD_REQUEST;
    case OCTAVO_EBUSY:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    default:
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
}

static const char *error_type(int status)
{
    switch (status) {
    case MHD_HTTP_BAD_REQUEST:
        return "BadRequestError";
    case MHD_HTTP_UNAUTHORIZED:
        return "AuthenticationError";
    case MHD_HTTP_NOT_FOUND:
        return "NotFoundError";
    case MHD_HTTP_METHOD_NOT_ALLOWED:
        return "MethodNotAllowedError";
    case MHD_HTTP_CONTENT_TOO_LARGE:
        return "RequestTooLargeError";
    case MHD_HTTP_SERVICE_UNAVAILABLE:
        return "ServiceUnavailableError";
    default:
        return "InternalServerError";
    }
}

void write_error_object(struct buf *out, int status, const struct octavo_error *err)
{
    buf_puts(out, "{\"message\":");
    json_write_string(out, err->msg, strlen(err->msg));
    buf_printf(out, ",\"type\":\"%s\",\"param\":", error_type(status));
    if (err->param[0])
        json_write_string(out, err->param, strlen(err->param));
    else
        buf_puts(out, "null");
    buf_printf(out, ",\"code\":%d}", status);
}

int exchange_socket(const struct exchange *ex)
{
    return ex->connection->fd;
}

const char *exchange_header(const struct exchange *ex, const char *name)
{
    return MHD_lookup_connection_value(ex->mhd, MHD_HEADER_KIND, name);
}

/* Headers that every answer has, then queue it. Takes the response over. */
static enum MHD_Result queue(struct exchange *ex, int status, struct MHD_Response *response)
{
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "2");
    if (status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (atomic_load(&ex->server->draining))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result r = MHD_queue_response(ex->mhd, (unsigned)status, response);
    MHD_destroy_response(response);
    ex->status = status;
    return r;
}

enum MHD_Result exchange_reply_json(struct exchange *ex, int status, struct buf *body)
{
    size_t len;
    char *text = buf_steal(body, &len);
    struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    connection_set_deadline(ex->connection, ex->server->opts.stall_seconds + (int64_t)(len / MIN_DRAIN_RATE));
    return queue(ex, status, response);
}

enum MHD_Result exchange_reply_empty(struct exchange *ex, int status)
{
    connection_set_deadline(ex->connection, ex->server->opts.stall_seconds);
    return queue(ex, status, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
}

enum MHD_Result exchange_reply_error(struct exchange *ex, int status, const struct octavo_error *err)
{
    struct buf body = {0};
    buf_puts(&body, "{\"error\":");
    write_error_object(&body, status, err);
    buf_putc(&body, '}');
    return exchange_reply_json(ex, status, &body);
}

enum MHD_Result exchange_reply_failure(struct exchange *ex, const struct octavo_error *err)
{
    return exchange_reply_error(ex, http_status_of(err->code), err);
}

enum MHD_Result exchange_reply_stream(struct exchange *ex, MHD_ContentReaderCallback reader, void *arg,
                                      MHD_ContentReaderFreeCallback release)
{
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, reader, arg, release);
    if (!response) {
        release(arg);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream; charset=utf-8");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(response, "X-Accel-Buffering", "no"); /* nginx would hold events back */
    connection_set_deadline(ex->connection, ex->server->opts.stall_seconds);
    return queue(ex, MHD_HTTP_OK, response);
}
