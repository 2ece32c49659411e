/* The daemon: libmicrohttpd's callbacks, what every request goes through, start and stop. See server.h. */
#include "server/server.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/exchange.h"
#include "server/listen.h"
#include "server/routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Memory of a connection for request line, headers and send buffer: more headers than fit are a 431. */
#define CONNECTION_MEMORY (64 << 10)
/* JSON of bounded depth, templates and regular expressions run on it. Only touched pages cost memory. */
#define THREAD_STACK (4 << 20)
/* A body over the limit is read and thrown away up to this, so that the client gets to read the answer. */
#define MAX_DRAINED_BYTES ((size_t)2 << 30)
/* All bodies in work together, in multiples of the limit of one. */
#define MAX_BODIES 16
/* How long a stopped server may spend on telling its clients. */
#define GOODBYE_MS 3000
/* Slowest pace, in bytes a second, at which a body may come in. */
#define MIN_UPLOAD_RATE (16 << 10)

void server_options_init(struct server_options *opts)
{
    *opts = (struct server_options){
        .host = "127.0.0.1",
        .port = 8000,
        .max_body_bytes = 32 << 20,
        .max_connections = 1024,
        .keep_alive_seconds = 75,
        .stall_seconds = 60,
        .access_log = true,
    };
}

/* ---- what every request goes through ---- */

static enum MHD_Result refuse(struct exchange *ex, int status, const char *msg)
{
    ex->refused = status;
    error_set(&ex->refusal, OCTAVO_EINVAL, "%s", msg);
    return MHD_YES;
}

/* Compares in time that does not depend on where two keys differ. */
static bool same_key(const char *a, size_t a_len, const char *b)
{
    size_t b_len = strlen(b);
    unsigned diff = a_len != b_len;
    for (size_t i = 0; i < a_len; i++)
        diff |= (unsigned char)a[i] ^ (unsigned char)(b_len ? b[i % b_len] : 0);
    return diff == 0;
}

static bool authorised(const struct exchange *ex)
{
    const struct server_options *o = &ex->server->opts;
    const char *header = exchange_header(ex, MHD_HTTP_HEADER_AUTHORIZATION);
    bool ok = o->num_api_keys == 0;
    if (!ok && header && !strncasecmp(header, "Bearer ", 7)) {
        const char *key = header + 7;
        for (size_t i = 0; i < o->num_api_keys; i++)
            ok |= same_key(key, strlen(key), o->api_keys[i]);
    }
    return ok;
}

static bool allows_method(const struct exchange *ex)
{
    unsigned flags = ex->route->flags;
    if (!strcmp(ex->method, "GET") || !strcmp(ex->method, "HEAD"))
        return flags & ROUTE_GET;
    return !strcmp(ex->method, "POST") && (flags & ROUTE_POST);
}

/* Whatever can be said from the headers alone. The body, if any, is still to come. */
static void admit(struct exchange *ex, const char *path)
{
    const struct server *s = ex->server;
    char msg[160];
    ex->route = route_find(path, &ex->rest);
    if (!strcmp(ex->method, "OPTIONS"))
        return; /* preflights carry no key; they are answered without the route */
    if ((!ex->route || !(ex->route->flags & ROUTE_OPEN)) && !authorised(ex)) {
        refuse(ex, MHD_HTTP_UNAUTHORIZED, "Unauthorized: send one of the server's API keys as a Bearer token");
    } else if (!ex->route) {
        snprintf(msg, sizeof(msg), "Not Found: there is no %.100s here", ex->target);
        refuse(ex, MHD_HTTP_NOT_FOUND, msg);
    } else if (!allows_method(ex)) {
        snprintf(msg, sizeof(msg), "Method Not Allowed: %s takes %s", ex->route->path,
                 ex->route->flags & ROUTE_GET ? ex->route->flags & ROUTE_POST ? "GET and POST" : "GET" : "POST");
        refuse(ex, MHD_HTTP_METHOD_NOT_ALLOWED, msg);
    } else if (!(ex->route->flags & ROUTE_NO_MODEL) && !atomic_load(&s->model)) {
        refuse(ex, MHD_HTTP_SERVICE_UNAVAILABLE, "The model is still loading; try again in a moment");
    } else if ((ex->route->flags & ROUTE_WORK) && atomic_load(&s->draining)) {
        refuse(ex, MHD_HTTP_SERVICE_UNAVAILABLE, "The server is shutting down");
    }
}

/* The answer to what a browser asks before it sends a request of another origin. */
static enum MHD_Result answer_options(struct exchange *ex)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    const char *headers = exchange_header(ex, "Access-Control-Request-Headers");
    if (!response)
        return MHD_NO;
    const char *methods = !ex->route                         ? "GET, POST, OPTIONS"
                          : !(ex->route->flags & ROUTE_POST) ? "GET, HEAD, OPTIONS"
                          : !(ex->route->flags & ROUTE_GET)  ? "POST, OPTIONS"
                                                             : "GET, HEAD, POST, OPTIONS";
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, methods);
    MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
    MHD_add_response_header(response, "Access-Control-Allow-Methods", methods);
    MHD_add_response_header(response, "Access-Control-Allow-Headers", headers ? headers : "*");
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
    connection_set_deadline(ex->connection, ex->server->opts.stall_seconds);
    ex->status = MHD_HTTP_OK;
    enum MHD_Result r = MHD_queue_response(ex->mhd, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return r;
}

static enum MHD_Result answer_refusal(struct exchange *ex)
{
    return exchange_reply_error(ex, ex->refused, &ex->refusal);
}

/* ---- bodies ---- */

static void drop_body(struct exchange *ex)
{
    atomic_fetch_sub(&ex->server->body_bytes, ex->body.len);
    buf_release(&ex->body);
}

static enum MHD_Result begin_body(struct exchange *ex)
{
    const struct server_options *o = &ex->server->opts;
    const char *length = exchange_header(ex, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (!ex->refused && length && strtoull(length, NULL, 10) > o->max_body_bytes)
        ex->refused = MHD_HTTP_CONTENT_TOO_LARGE;
    if (ex->refused == MHD_HTTP_CONTENT_TOO_LARGE)
        error_set(&ex->refusal, OCTAVO_EINVAL, "Request body too large: at most %zu bytes are allowed",
                  o->max_body_bytes);
    /* a client that asks first is told at once; others must have sent all before they listen */
    if (ex->refused && exchange_header(ex, MHD_HTTP_HEADER_EXPECT))
        return answer_refusal(ex);
    return MHD_YES;
}

static enum MHD_Result take_body(struct exchange *ex, const char *data, size_t len)
{
    struct server *s = ex->server;
    ex->body_seen += len;
    if (ex->body_seen > MAX_DRAINED_BYTES)
        return MHD_NO;
    connection_set_deadline(ex->connection, s->opts.stall_seconds);
    int64_t allowed_us =
        (int64_t)s->opts.stall_seconds * 1000000 + (int64_t)(ex->body_seen / MIN_UPLOAD_RATE) * 1000000;
    if (now_us() - ex->start_us > allowed_us) {
        log_debug("%s %s: the body comes in too slowly", ex->method, ex->target);
        return MHD_NO;
    }
    if (ex->refused)
        return MHD_YES;
    if (ex->body.len + len > s->opts.max_body_bytes) {
        drop_body(ex);
        ex->refused = MHD_HTTP_CONTENT_TOO_LARGE;
        error_set(&ex->refusal, OCTAVO_EINVAL, "Request body too large: at most %zu bytes are allowed",
                  s->opts.max_body_bytes);
    } else if (atomic_fetch_add(&s->body_bytes, len) + len > s->opts.max_body_bytes * MAX_BODIES) {
        atomic_fetch_sub(&s->body_bytes, len);
        drop_body(ex);
        refuse(ex, MHD_HTTP_SERVICE_UNAVAILABLE, "Too many large requests at once; try again in a moment");
    } else {
        buf_append(&ex->body, data, len);
    }
    return MHD_YES;
}

/* ---- libmicrohttpd's callbacks, all on the connection's thread ---- */

static enum MHD_Result dispatch(struct exchange *ex)
{
    /* the handler waits for the engine, not for the client: no deadline until there is something to send */
    connection_set_deadline(ex->connection, 0);
    if (!strcmp(ex->method, "OPTIONS"))
        return answer_options(ex);
    if (ex->refused)
        return answer_refusal(ex);
    ex->counted = true;
    atomic_fetch_add(&ex->server->num_active, 1);
    return ex->route->handle(ex, atomic_load(&ex->server->model));
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **state)
{
    struct exchange *ex = *state;
    (void)cls;
    (void)mhd;
    (void)version;
    if (!ex)
        return MHD_NO;
    if (!ex->begun) {
        ex->begun = true;
        snprintf(ex->method, sizeof(ex->method), "%s", method);
        admit(ex, url);
        return begin_body(ex);
    }
    if (*size > 0) {
        size_t len = *size;
        *size = 0;
        return take_body(ex, data, len);
    }
    return dispatch(ex);
}

/* The path as the log shows it: printable ASCII, without the query, which may hold secrets. */
static void copy_target(char *out, size_t cap, const char *uri)
{
    size_t n = 0;
    for (; uri[n] && uri[n] != '?' && n + 1 < cap; n++)
        out[n] = uri[n] > 0x20 && uri[n] < 0x7f && uri[n] != '"' ? uri[n] : '?';
    out[n] = '\0';
}

/* The request line is there: the first moment of a request. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct server *s = cls;
    struct exchange *ex = mem_calloc(1, sizeof(*ex));
    ex->server = s;
    ex->mhd = mhd;
    ex->connection = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    ex->start_us = now_us();
    copy_target(ex->target, sizeof(ex->target), uri);
    connection_set_deadline(ex->connection, s->opts.stall_seconds);
    return ex;
}

static void format_client(const struct exchange *ex, char *out, size_t cap)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(ex->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!info || !address_format(info->client_addr, out, cap))
        snprintf(out, cap, "-");
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode code)
{
    struct server *s = cls;
    struct exchange *ex = *state;
    (void)mhd;
    if (!ex)
        return;
    *state = NULL;
    if (s->opts.access_log && ex->begun) {
        char client[80];
        bool cut = ex->failed || code != MHD_REQUEST_TERMINATED_COMPLETED_OK;
        format_client(ex, client, sizeof(client));
        log_info("%s \"%s %s\" %d %.1f ms%s", client, ex->method, ex->target, ex->status,
                 (double)(now_us() - ex->start_us) / 1000, cut ? " (client left)" : "");
    }
    connection_set_deadline(ex->connection, s->opts.keep_alive_seconds);
    if (ex->counted)
        atomic_fetch_sub(&s->num_active, 1);
    drop_body(ex);
    free(ex);
}

/* On the listening thread (start) or wherever MHD cleans up (end). */
static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        struct connection *c = connection_add(&s->connections, fd);
        connection_set_deadline(c, s->opts.stall_seconds);
        *context = c;
    } else if (*context) {
        connection_remove(&s->connections, *context);
        *context = NULL;
    }
}

static void on_log(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    (void)cls;
    vsnprintf(line, sizeof(line), fmt, ap);
    line[strcspn(line, "\r\n")] = '\0';
    log_debug("http: %s", line);
}

/* ---- start and stop ---- */

static struct MHD_Daemon *start_daemon(struct server *s)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                     MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    /* the acceptor keeps the real limit; connections that MHD has yet to clean up need some room above it */
    unsigned limit = (unsigned)s->opts.max_connections + 64;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_CONNECTION_LIMIT,
        limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)THREAD_STACK, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
}

int server_start(const struct server_options *opts, struct server **ret_server, struct octavo_error *err)
{
    struct server *s = mem_calloc(1, sizeof(*s));
    s->opts = *opts;
    s->created = time(NULL);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->acceptor = (struct acceptor){
        .listen_fd = -1,
        .stop_fd = s->stop_fd,
        .max_connections = opts->max_connections,
        .table = &s->connections,
    };
    int r = connection_table_init(&s->connections, s->stop_fd, err);
    if (r == 0 && s->stop_fd < 0)
        r = error_set(err, OCTAVO_EIO, "eventfd: %s", strerror(errno));
    if (r == 0)
        r = opts->uds ? listen_unix(opts->uds, &s->acceptor.listen_fd, err)
                      : listen_tcp(opts->host, opts->port, &s->acceptor.listen_fd, &s->port, err);
    if (r == 0 && !(s->daemon = s->acceptor.daemon = start_daemon(s)))
        r = error_set(err, OCTAVO_EIO, "cannot start the HTTP server (threads or memory refused)");
    if (r == 0)
        r = acceptor_start(&s->acceptor, err);
    if (r < 0) {
        server_stop(s);
        return r;
    }
    *ret_server = s;
    return 0;
}

int server_port(const struct server *s)
{
    return s->port;
}

void server_set_model(struct server *s, const struct server_model *model)
{
    atomic_store(&s->model, model);
}

void server_begin_drain(struct server *s)
{
    atomic_store(&s->draining, true);
}

int server_num_active(struct server *s)
{
    return atomic_load(&s->num_active);
}

void server_stop(struct server *s)
{
    if (!s)
        return;
    atomic_store(&s->draining, true);
    uint64_t one = 1;
    if (s->stop_fd >= 0 && write(s->stop_fd, &one, sizeof(one)) < 0)
        log_debug("stop: %s", strerror(errno));
    acceptor_release(&s->acceptor);
    /* handlers saw stop_fd and tell their clients; MHD_stop_daemon would cut them off in the middle of it */
    for (int waited = 0; server_num_active(s) > 0 && waited < GOODBYE_MS; waited += 5)
        usleep(5000);
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->opts.uds && s->daemon)
        unlink(s->opts.uds);
    connection_table_release(&s->connections);
    if (s->stop_fd >= 0)
        close(s->stop_fd);
    free(s);
}
