/* One HTTP request and its answer, between libmicrohttpd and a route. Lives from the request line to the last byte of
 * the answer; used by the connection's thread only. */
#ifndef OCTAVO_SERVER_EXCHANGE_H
#define OCTAVO_SERVER_EXCHANGE_H

#include "base/buf.h"
#include "server/acceptor.h"
#include "server/connection.h"
#include "server/server.h"

#include <microhttpd.h>

struct route;

struct server {
    struct server_options opts;
    struct MHD_Daemon *daemon;
    struct acceptor acceptor;
    int stop_fd; /* an eventfd, readable from server_stop on */
    int port;
    int64_t created; /* unix seconds: "created" of the model card */
    struct connection_table connections;
    _Atomic(const struct server_model *) model; /* NULL while loading */
    atomic_bool draining;
    atomic_int num_active;
    atomic_size_t body_bytes; /* of all requests in work */
};

struct exchange {
    struct server *server;
    struct MHD_Connection *mhd;
    struct connection *connection;
    int64_t start_us;
    int status;   /* sent, or 0 */
    bool begun;   /* headers are complete */
    bool counted; /* in server->num_active */
    bool failed;  /* the client left or was cut off */
    char method[16];
    char target[200]; /* for the log: path, cut and cleaned */
    const struct route *route;
    const char *rest; /* what follows the prefix of a prefix route */
    struct buf body;
    size_t body_seen; /* bytes, also those thrown away */
    int refused;      /* status to answer once the body is over, or 0; the answer is in refusal */
    struct octavo_error refusal;
};

/* Answers. Each queues one response and returns what MHD wants to hear. json and text steal the buffer. */
enum MHD_Result exchange_reply_json(struct exchange *ex, int status, struct buf *body);
enum MHD_Result exchange_reply_empty(struct exchange *ex, int status);
enum MHD_Result exchange_reply_error(struct exchange *ex, int status, const struct octavo_error *err);
/* The status that goes with an error code. */
enum MHD_Result exchange_reply_failure(struct exchange *ex, const struct octavo_error *err);
/* Server-sent events: reader blocks until it has something to say, and is paced by the client. */
enum MHD_Result exchange_reply_stream(struct exchange *ex, MHD_ContentReaderCallback reader, void *arg,
                                      MHD_ContentReaderFreeCallback release);

int http_status_of(int code);
/* {"message": ..., "type": ..., "param": ..., "code": ...}: what stands under "error". */
void write_error_object(struct buf *out, int status, const struct octavo_error *err);
int exchange_socket(const struct exchange *ex);
const char *exchange_header(const struct exchange *ex, const char *name); /* NULL when absent */

#endif
