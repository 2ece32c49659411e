/* Encoding and the small questions: see tokenizer.h. Loading is in tokenizer_load.c, decoding in tokenizer_decode.c. */
#include "text/tokenizer_impl.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

void token_ids_push(struct token_ids *t, int32_t id)
{
    if (t->len == t->cap) {
        t->cap = t->cap + t->cap / 2 + 64;
        t->ids = mem_realloc(t->ids, t->cap * sizeof(*t->ids));
    }
    t->ids[t->len++] = id;
}

void token_ids_release(struct token_ids *t)
{
    free(t->ids);
    *t = (struct token_ids){0};
}

void tokenizer_free(struct tokenizer *tok)
{
    if (!tok)
        return;
    bpe_release(&tok->bpe);
    added_tokens_release(&tok->added);
    normalizer_release(&tok->normalizer);
    splitter_release(&tok->splitter);
    affixes_release(&tok->affixes);
    decoder_release(&tok->decoder);
    for (size_t i = 0; i < ARRAY_LEN(tok->named); i++)
        free(tok->named[i]);
    free(tok);
}

/* ---- encoding ----------------------------------------------------------------------------------------------- */

struct encode_state {
    const struct tokenizer *tok;
    struct regex_state *st;
    struct bpe_scratch scratch;
    struct token_ids *out;
    struct octavo_error *err;
};

static int take_piece(void *arg, const char *piece, size_t len, bool raw, struct octavo_error *err)
{
    struct encode_state *e = arg;
    return bpe_encode(&e->tok->bpe, &e->scratch, piece, len, raw, e->out, err);
}

/* Text without added tokens that are found before normalizing. */
static int encode_plain(struct encode_state *e, const char *text, size_t len)
{
    const struct added_tokens *added = &e->tok->added;
    struct buf normal = {0};
    int r = 0;
    if (e->tok->normalizer.num_steps) {
        r = normalizer_apply(&e->tok->normalizer, e->st, text, len, &normal, e->err);
        text = buf_str(&normal);
        len = normal.len;
    }
    struct added_walk walk = {0};
    struct added_match m;
    size_t done = 0;
    while (!r && added_tokens_next(added, &added->normal, text, len, &walk, &m)) {
        if (done < m.start)
            r = splitter_run(&e->tok->splitter, e->st, text + done, m.start - done, take_piece, e, e->err);
        token_ids_push(e->out, m.token->id);
        done = m.end;
    }
    if (!r && done < len)
        r = splitter_run(&e->tok->splitter, e->st, text + done, len - done, take_piece, e, e->err);
    buf_release(&normal);
    return r;
}

static void push_all(struct token_ids *out, const struct token_ids *ids)
{
    for (size_t i = 0; i < ids->len; i++)
        token_ids_push(out, ids->ids[i]);
}

int tokenizer_encode(const struct tokenizer *tok, const char *text, size_t len, unsigned flags, struct token_ids *out,
                     struct octavo_error *err)
{
    struct encode_state e = {.tok = tok, .st = regex_state_new(), .out = out, .err = err};
    struct buf valid = {0};
    int r = e.st ? 0 : error_set(err, OCTAVO_ENOMEM, "no memory to encode");
    if (!utf8_valid(text, len)) {
        utf8_append_lossy(text, len, &valid);
        text = buf_str(&valid);
        len = valid.len;
    }
    if (flags & TOKENIZER_ADD_SPECIAL)
        push_all(out, &tok->affixes.before);
    struct added_walk walk = {0};
    struct added_match m;
    size_t done = 0;
    while (!r && added_tokens_next(&tok->added, &tok->added.raw, text, len, &walk, &m)) {
        if (done < m.start)
            r = encode_plain(&e, text + done, m.start - done);
        token_ids_push(out, m.token->id);
        done = m.end;
    }
    if (!r && done < len)
        r = encode_plain(&e, text + done, len - done);
    if (!r && (flags & TOKENIZER_ADD_SPECIAL))
        push_all(out, &tok->affixes.after);
    bpe_scratch_release(&e.scratch);
    regex_state_free(e.st);
    buf_release(&valid);
    return r;
}

/* ---- questions ---------------------------------------------------------------------------------------------- */

int32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    int32_t n = tok->added.num ? tok->added.list[tok->added.num - 1].id + 1 : 0;
    return MAX(n, tok->bpe.num_ids);
}

const char *tokenizer_token_string(const struct tokenizer *tok, int32_t id, size_t *ret_len)
{
    const struct added_token *added = added_tokens_find(&tok->added, id);
    if (added) {
        if (ret_len)
            *ret_len = added->len;
        return added->content;
    }
    if (id < 0 || id >= tok->bpe.num_ids || !tok->bpe.tokens[id].used)
        return NULL;
    if (ret_len)
        *ret_len = tok->bpe.tokens[id].len;
    return tok->bpe.strings.data + tok->bpe.tokens[id].at;
}

int32_t tokenizer_token_id(const struct tokenizer *tok, const char *string, size_t len)
{
    int32_t at = strmap_get(&tok->added.by_content, string, len, -1);
    return at >= 0 ? tok->added.list[at].id : strmap_get(&tok->bpe.vocab, string, len, -1);
}

bool tokenizer_is_special(const struct tokenizer *tok, int32_t id)
{
    const struct added_token *added = added_tokens_find(&tok->added, id);
    return added && added->special;
}

const char *tokenizer_named_token(const struct tokenizer *tok, const char *name)
{
    static const char *const names[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(name, names[i]))
            return tok->named[i];
    }
    return NULL;
}
