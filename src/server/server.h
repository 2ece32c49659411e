/* The HTTP server: OpenAI's completions and chat completions as vLLM serves them, over an octavo engine.
 * Each connection has its own thread, owned by libmicrohttpd; a handler submits to the engine and waits for its events
 * and for the client at once, so that a client who leaves stops its request wherever that is. A watchdog thread holds
 * every connection to its deadlines. All functions here are for the one thread that owns the server. */
#ifndef OCTAVO_SERVER_SERVER_H
#define OCTAVO_SERVER_SERVER_H

#include "base/err.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server;

struct server_options {
    const char *host; /* name or address; "" or NULL: all interfaces */
    int port;         /* 0: any free one, see server_port */
    const char *uds;  /* path of a Unix socket to listen on instead, or NULL */
    const char *const *api_keys;
    size_t num_api_keys;
    size_t max_body_bytes;
    int max_connections;
    int max_num_queued_reqs; /* 503 when so many requests wait; 0: no limit */
    int keep_alive_seconds;  /* an idle connection lives so long */
    int stall_seconds;       /* a client may be silent so long while it sends a request or takes an answer */
    bool access_log;
};
void server_options_init(struct server_options *opts);

/* What is served. Everything is borrowed and must outlive the server. */
struct server_model {
    struct octavo_engine *engine;
    const struct tokenizer *tokenizer;         /* NULL: --skip-tokenizer-init */
    const struct chat_template *chat_template; /* NULL without a tokenizer */
    const char *root;                          /* folder */
    const char *const *names;                  /* (num_names), >= 1: what clients call it */
    size_t num_names;
    struct octavo_sampling_params sampling; /* defaults of a request */
};

/* Listens and answers; until server_set_model everything that needs a model is 503. opts is copied but not what it
 * points to. */
int server_start(const struct server_options *opts, struct server **ret_server, struct octavo_error *err);
int server_port(const struct server *s); /* 0 for a Unix socket */
void server_set_model(struct server *s, const struct server_model *model);
void server_begin_drain(struct server *s); /* new work gets 503; what runs goes on */
int server_num_active(struct server *s);   /* HTTP requests in work */
/* Aborts what still runs, joins all threads and frees. NULL is fine. */
void server_stop(struct server *s);

#endif
