/* The table of routes. Handlers run on the connection's thread once the whole body is there. */
#ifndef OCTAVO_SERVER_ROUTES_H
#define OCTAVO_SERVER_ROUTES_H

#include "server/exchange.h"

enum route_flags {
    ROUTE_GET = 1,
    ROUTE_POST = 2,
    ROUTE_OPEN = 4,      /* no API key needed */
    ROUTE_PREFIX = 8,    /* also matches what lies below: path ends in '/' */
    ROUTE_NO_MODEL = 16, /* answers while the model loads */
    ROUTE_WORK = 32,     /* refused while draining */
};

struct route {
    const char *path;
    unsigned flags;
    enum MHD_Result (*handle)(struct exchange *ex, const struct server_model *model); /* model: NULL while loading */
};

/* The route of a path, or NULL; *ret_rest is what follows a prefix. */
const struct route *route_find(const char *path, const char **ret_rest);

enum MHD_Result handle_completions(struct exchange *ex, const struct server_model *model);
enum MHD_Result handle_chat_completions(struct exchange *ex, const struct server_model *model);
enum MHD_Result handle_tokenize(struct exchange *ex, const struct server_model *model);
enum MHD_Result handle_detokenize(struct exchange *ex, const struct server_model *model);

/* Shared by the handlers above. */
bool model_has_name(const struct server_model *model, const char *name);
enum MHD_Result reply_unknown_model(struct exchange *ex, const char *name);
/* Renders a conversation and tokenises it. */
struct api_request;
struct prompt;
int render_chat(const struct server_model *model, const struct api_request *r, struct prompt *ret_prompt,
                struct octavo_error *err);
/* Tokenises text, or says that it is longer than any context without trying. */
int encode_text(const struct server_model *model, const char *text, size_t len, bool add_special, struct token_ids *ids,
                struct octavo_error *err);

#endif
