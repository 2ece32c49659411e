/* Routes, and the small ones' handlers: see routes.h. */
#include "server/routes.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

static enum MHD_Result handle_health(struct exchange *ex, const struct server_model *model)
{
    struct octavo_error err;
    if (model && !atomic_load(&ex->server->draining))
        return exchange_reply_empty(ex, MHD_HTTP_OK);
    error_set(&err, OCTAVO_EBUSY, model ? "the server is shutting down" : "the model is still loading");
    return exchange_reply_failure(ex, &err);
}

static enum MHD_Result handle_version(struct exchange *ex, const struct server_model *model)
{
    (void)model;
    struct buf out = {0};
    buf_printf(&out, "{\"version\":\"%s\"}", octavo_version());
    return exchange_reply_json(ex, MHD_HTTP_OK, &out);
}

bool model_has_name(const struct server_model *model, const char *name)
{
    for (size_t i = 0; i < model->num_names; i++)
        if (!strcmp(model->names[i], name))
            return true;
    return false;
}

enum MHD_Result reply_unknown_model(struct exchange *ex, const char *name)
{
    struct octavo_error err;
    error_set_param(&err, OCTAVO_EINVAL, "model", "The model `%.200s` does not exist.", name);
    return exchange_reply_error(ex, MHD_HTTP_NOT_FOUND, &err);
}

static void write_model_card(struct buf *out, const struct exchange *ex, const struct server_model *model,
                             const char *name)
{
    buf_puts(out, "{\"id\":");
    json_write_string(out, name, strlen(name));
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"octavo\",\"root\":",
               (long long)ex->server->created);
    json_write_string(out, model->root, strlen(model->root));
    buf_printf(out, ",\"parent\":null,\"max_model_len\":%lld,\"permission\":[]}",
               (long long)octavo_engine_info(model->engine)->max_model_len);
}

static enum MHD_Result handle_models(struct exchange *ex, const struct server_model *model)
{
    struct buf out = {0};
    buf_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < model->num_names; i++) {
        if (i)
            buf_putc(&out, ',');
        write_model_card(&out, ex, model, model->names[i]);
    }
    buf_puts(&out, "]}");
    return exchange_reply_json(ex, MHD_HTTP_OK, &out);
}

static enum MHD_Result handle_model(struct exchange *ex, const struct server_model *model)
{
    if (!model_has_name(model, ex->rest))
        return reply_unknown_model(ex, ex->rest);
    struct buf out = {0};
    write_model_card(&out, ex, model, ex->rest);
    return exchange_reply_json(ex, MHD_HTTP_OK, &out);
}

static const struct route routes[] = {
    {"/health", ROUTE_GET | ROUTE_OPEN | ROUTE_NO_MODEL, handle_health},
    {"/ping", ROUTE_GET | ROUTE_POST | ROUTE_OPEN | ROUTE_NO_MODEL, handle_health},
    {"/version", ROUTE_GET | ROUTE_NO_MODEL, handle_version},
    {"/v1/models", ROUTE_GET, handle_models},
    {"/v1/models/", ROUTE_GET | ROUTE_PREFIX, handle_model},
    {"/v1/completions", ROUTE_POST | ROUTE_WORK, handle_completions},
    {"/v1/chat/completions", ROUTE_POST | ROUTE_WORK, handle_chat_completions},
    {"/tokenize", ROUTE_POST | ROUTE_WORK, handle_tokenize},
    {"/detokenize", ROUTE_POST | ROUTE_WORK, handle_detokenize},
};

const struct route *route_find(const char *path, const char **ret_rest)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        size_t len = strlen(routes[i].path);
        *ret_rest = path + MIN(len, strlen(path));
        if (!strcmp(path, routes[i].path) && !(routes[i].flags & ROUTE_PREFIX))
            return &routes[i];
        if ((routes[i].flags & ROUTE_PREFIX) && !strncmp(path, routes[i].path, len) && path[len])
            return &routes[i];
    }
    return NULL;
}
