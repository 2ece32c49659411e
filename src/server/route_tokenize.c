/* POST /tokenize and /detokenize, and the way from text to ids that all routes share. Connection threads. */
#include "base/json.h"
#include "base/mem.h"
#include "server/api_request.h"
#include "server/generation.h"
#include "server/routes.h"

#include <stdlib.h>
#include <string.h>

/* A text this many times longer than the context cannot fit: no tokenizer has so long tokens in running text. It
 * spares a hostile megabyte prompt its minutes of tokenising. */
#define MAX_BYTES_PER_TOKEN 1024

int encode_text(const struct server_model *model, const char *text, size_t len, bool add_special, struct token_ids *ids,
                struct octavo_error *err)
{
    int64_t max = octavo_engine_info(model->engine)->max_model_len;
    if (len / MAX_BYTES_PER_TOKEN > (size_t)max)
        return error_set(err, OCTAVO_EINVAL,
                         "This model's maximum context length is %lld tokens, and a text of %zu bytes is longer than "
                         "that. Please shorten it.",
                         (long long)max, len);
    return tokenizer_encode(model->tokenizer, text, len, add_special ? TOKENIZER_ADD_SPECIAL : 0, ids, err);
}

int render_chat(const struct server_model *model, const struct api_request *r, struct prompt *ret_prompt,
                struct octavo_error *err)
{
    struct chat_template_input in = {
        .messages = r->messages,
        .tools = r->tools,
        .documents = r->documents,
        .kwargs = r->kwargs,
        .add_generation_prompt = r->add_generation_prompt,
        .continue_final_message = r->continue_final_message,
    };
    struct buf text = {0};
    int e = chat_template_render(model->chat_template, &in, &text, err);
    if (e == 0)
        e = encode_text(model, buf_str(&text), text.len, r->add_special_tokens, &ret_prompt->ids, err);
    else if (!err->param[0])
        snprintf(err->param, sizeof(err->param), "messages");
    buf_release(&text);
    return e;
}

static bool wants_model(struct exchange *ex, const struct server_model *model, const json_t *root, enum MHD_Result *ret)
{
    const char *name = json_string_value(json_object_get(root, "model"));
    if (!name || model_has_name(model, name))
        return true;
    *ret = reply_unknown_model(ex, name);
    return false;
}

static int need_tokenizer(const struct server_model *model, struct octavo_error *err)
{
    if (model->tokenizer)
        return 0;
    return error_set(err, OCTAVO_EUNSUPPORTED, "the server runs with --skip-tokenizer-init and has no tokenizer");
}

/* {prompt} or {messages, ...} to ids. */
static int tokenize(const struct server_model *model, struct api_request *r, struct prompt *p, struct octavo_error *err)
{
    const json_t *text = json_object_get(r->root, "prompt");
    bool chat = json_object_get(r->root, "messages") != NULL;
    r->add_generation_prompt = true;
    r->add_special_tokens = !chat;
    int e = json_get_bool(r->root, "request", "add_special_tokens", &r->add_special_tokens, err);
    if (e < 0)
        return e;
    if (chat && text)
        return error_set_param(err, OCTAVO_EINVAL, "prompt", "send either prompt or messages, not both");
    if (chat) {
        e = api_request_parse_chat(r, err);
        return e < 0 ? e : render_chat(model, r, p, err);
    }
    if (!json_is_string(text))
        return error_set_param(err, OCTAVO_EINVAL, "prompt", "prompt must be a string, or send messages");
    return encode_text(model, json_string_value(text), json_string_length(text), r->add_special_tokens, &p->ids, err);
}

static void write_tokens(struct buf *out, const struct server_model *model, const struct token_ids *ids, bool strings)
{
    buf_printf(out, "{\"count\":%zu,\"max_model_len\":%lld,\"tokens\":[", ids->len,
               (long long)octavo_engine_info(model->engine)->max_model_len);
    for (size_t i = 0; i < ids->len; i++)
        buf_printf(out, "%s%d", i ? "," : "", ids->ids[i]);
    buf_puts(out, strings ? "],\"token_strs\":[" : "],\"token_strs\":null");
    for (size_t i = 0; strings && i < ids->len; i++) {
        size_t len = 0;
        const char *s = tokenizer_token_string(model->tokenizer, ids->ids[i], &len);
        if (i)
            buf_putc(out, ',');
        json_write_string(out, s ? s : "", s ? len : 0);
    }
    buf_puts(out, strings ? "]}" : "}");
}

enum MHD_Result handle_tokenize(struct exchange *ex, const struct server_model *model)
{
    struct api_request r = {.kind = API_CHAT};
    struct prompt p = {0};
    struct octavo_error err;
    enum MHD_Result result;
    bool strings = false;
    int e = need_tokenizer(model, &err);
    if (e == 0)
        e = api_parse_json(buf_str(&ex->body), ex->body.len, &r.root, &err);
    if (e == 0 && !wants_model(ex, model, r.root, &result))
        goto out;
    if (e == 0)
        e = json_get_bool(r.root, "request", "return_token_strs", &strings, &err);
    if (e == 0)
        e = tokenize(model, &r, &p, &err);
    if (e < 0) {
        result = exchange_reply_failure(ex, &err);
    } else {
        struct buf out = {0};
        write_tokens(&out, model, &p.ids, strings);
        result = exchange_reply_json(ex, MHD_HTTP_OK, &out);
    }
out:
    token_ids_release(&p.ids);
    api_request_release(&r);
    return result;
}

enum MHD_Result handle_detokenize(struct exchange *ex, const struct server_model *model)
{
    json_t *root = NULL;
    struct token_ids ids = {0};
    struct octavo_error err;
    enum MHD_Result result;
    int e = need_tokenizer(model, &err);
    if (e == 0)
        e = api_parse_json(buf_str(&ex->body), ex->body.len, &root, &err);
    if (e == 0 && !wants_model(ex, model, root, &result))
        goto out;
    if (e == 0)
        e = api_token_ids(json_object_get(root, "tokens"), "tokens", octavo_engine_info(model->engine)->vocab_size,
                          &ids, &err);
    if (e < 0) {
        result = exchange_reply_failure(ex, &err);
    } else {
        struct buf text = {0}, out = {0};
        tokenizer_decode(model->tokenizer, ids.ids, ids.len, false, &text);
        buf_puts(&out, "{\"prompt\":");
        json_write_string(&out, buf_str(&text), text.len);
        buf_putc(&out, '}');
        buf_release(&text);
        result = exchange_reply_json(ex, MHD_HTTP_OK, &out);
    }
out:
    token_ids_release(&ids);
    json_decref(root);
    return result;
}
