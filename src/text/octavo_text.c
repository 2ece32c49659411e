/* The public API over this layer (octavo.h, "text"). Thread rules as there. */
#include "base/json.h"
#include "base/mem.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

#include <stdlib.h>

struct octavo_tokenizer {
    struct tokenizer *tok;
    struct chat_template *template;
};

struct octavo_detokenizer {
    struct detokenizer *d;
    struct buf text;
};

int octavo_tokenizer_open(const char *dir, struct octavo_tokenizer **ret_tok, struct octavo_error *err)
{
    struct octavo_tokenizer *t = mem_calloc(1, sizeof(*t));
    int r = tokenizer_open(dir, &t->tok, err);
    if (r == 0)
        r = chat_template_open(dir, NULL, t->tok, &t->template, err);
    if (r < 0) {
        octavo_tokenizer_close(t);
        return r;
    }
    *ret_tok = t;
    return 0;
}

void octavo_tokenizer_close(struct octavo_tokenizer *t)
{
    if (!t)
        return;
    chat_template_free(t->template);
    tokenizer_free(t->tok);
    free(t);
}

int32_t octavo_tokenizer_vocab_size(const struct octavo_tokenizer *t)
{
    return tokenizer_vocab_size(t->tok);
}

static int encode(const struct octavo_tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ret_ids,
                  size_t *ret_num_ids, struct octavo_error *err)
{
    struct token_ids ids = {0};
    int r = tokenizer_encode(t->tok, text, len, flags, &ids, err);
    if (r < 0) {
        token_ids_release(&ids);
        return r;
    }
    *ret_ids = ids.ids;
    *ret_num_ids = ids.len;
    return 0;
}

int octavo_tokenize(const struct octavo_tokenizer *t, const char *text, size_t len, bool add_special, int32_t **ret_ids,
                    size_t *ret_num_ids, struct octavo_error *err)
{
    return encode(t, text, len, add_special ? TOKENIZER_ADD_SPECIAL : 0, ret_ids, ret_num_ids, err);
}

int octavo_tokenize_chat(const struct octavo_tokenizer *t, const char *messages_json, size_t len, int32_t **ret_ids,
                         size_t *ret_num_ids, struct octavo_error *err)
{
    json_t *messages = NULL;
    struct buf text = {0};
    int r = json_parse_text(messages_json, len, "messages", 0, &messages, err);
    if (r == 0 && !json_is_array(messages))
        r = error_set_param(err, OCTAVO_EINVAL, "messages", "messages must be an array");
    if (r == 0)
        r = chat_template_render(t->template,
                                 &(struct chat_template_input){.messages = messages, .add_generation_prompt = true},
                                 &text, err);
    if (r == 0)
        r = encode(t, buf_str(&text), text.len, 0, ret_ids, ret_num_ids, err);
    buf_release(&text);
    json_decref(messages);
    return r;
}

void octavo_free(void *p)
{
    free(p);
}

struct octavo_detokenizer *octavo_detokenizer_new(const struct octavo_tokenizer *t)
{
    struct octavo_detokenizer *d = mem_calloc(1, sizeof(*d));
    d->d = detokenizer_new(t->tok, &(struct detokenizer_options){.skip_special_tokens = true});
    return d;
}

void octavo_detokenizer_free(struct octavo_detokenizer *d)
{
    if (!d)
        return;
    detokenizer_free(d->d);
    buf_release(&d->text);
    free(d);
}

void octavo_detokenizer_push(struct octavo_detokenizer *d, int32_t token_id, const char **ret_text, size_t *ret_len)
{
    buf_clear(&d->text);
    detokenizer_push(d->d, token_id, &d->text);
    *ret_text = buf_str(&d->text);
    *ret_len = d->text.len;
}

void octavo_detokenizer_finish(struct octavo_detokenizer *d, const char **ret_text, size_t *ret_len)
{
    buf_clear(&d->text);
    detokenizer_finish(d->d, &d->text);
    *ret_text = buf_str(&d->text);
    *ret_len = d->text.len;
}
