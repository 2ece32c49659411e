/* Text to documents of ids: see eval_text.h. */
#include "quantize/eval_text.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct reader {
    const char *name;
    const struct tokenizer *tok, *against;
    int64_t max_tokens; /* that still fit */
    int64_t *lens;      /* (num_documents) while ids still moves */
    size_t cap;
    struct eval_text *to;
};

static int tokenizers_compare(const struct tokenizer *a, const struct tokenizer *b, struct octavo_error *err)
{
    int32_t n = tokenizer_vocab_size(a);
    if (n != tokenizer_vocab_size(b))
        return error_set(err, OCTAVO_EINVAL,
                         "the tokenizers of the model and the reference differ: %d and %d tokens; their predictions "
                         "cannot be compared",
                         (int)n, (int)tokenizer_vocab_size(b));
    for (int32_t id = 0; id < n; id++) {
        size_t la = 0, lb = 0;
        const char *sa = tokenizer_token_string(a, id, &la), *sb = tokenizer_token_string(b, id, &lb);
        if (!sa != !sb || la != lb || (sa && memcmp(sa, sb, la)))
            return error_set(err, OCTAVO_EINVAL,
                             "the tokenizers of the model and the reference differ: token %d is '%.*s' and '%.*s'; "
                             "their predictions cannot be compared",
                             (int)id, (int)MIN(la, 40), sa ? sa : "", (int)MIN(lb, 40), sb ? sb : "");
    }
    return 0;
}

static int document_add(struct reader *r, const char *text, size_t len, struct octavo_error *err)
{
    struct token_ids *ids = &r->to->ids, other = {0};
    size_t before = ids->len;
    int e = tokenizer_encode(r->tok, text, len, TOKENIZER_ADD_SPECIAL, ids, err);
    if (e < 0)
        return e;
    size_t n = ids->len - before;
    if (r->against) {
        e = tokenizer_encode(r->against, text, len, TOKENIZER_ADD_SPECIAL, &other, err);
        if (e == 0 && (other.len != n || (n && memcmp(other.ids, ids->ids + before, n * sizeof(*other.ids)))))
            e = error_set(err, OCTAVO_EINVAL,
                          "the tokenizers of the model and the reference cut %s differently: their predictions cannot "
                          "be compared",
                          r->name);
        token_ids_release(&other);
        if (e < 0)
            return e;
    }
    if ((uint64_t)n > (uint64_t)r->max_tokens)
        n = (size_t)r->max_tokens;
    ids->len = before + n;
    r->max_tokens -= (int64_t)n;
    if (r->to->num_documents == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 16;
        r->lens = mem_realloc(r->lens, r->cap * sizeof(*r->lens));
    }
    r->lens[r->to->num_documents++] = (int64_t)n;
    return 0;
}

static int line_add(struct reader *r, const char *line, size_t len, size_t number, struct octavo_error *err)
{
    json_t *root = NULL;
    char *what = mem_printf("%s, line %zu", r->name, number);
    int e = json_parse_text(line, len, what, JSON_PARSE_ALLOW_NUL, &root, err);
    const json_t *text = json_object_get(root, "text");
    if (e == 0 && !json_is_string(text))
        e = error_set(err, OCTAVO_EINVAL, "%s: a line must be an object with a string \"text\"", what);
    if (e == 0)
        e = document_add(r, json_string_value(text), json_string_length(text), err);
    json_decref(root);
    free(what);
    return e;
}

static bool is_blank(const char *s, size_t len)
{
    while (len && strchr(" \t\r", s[len - 1]) && s[len - 1])
        len--;
    return len == 0;
}

static int lines_add(struct reader *r, const char *text, size_t len, struct octavo_error *err)
{
    const char *end = text + len;
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        text += 3;
    int e = 0;
    for (size_t number = 1; text < end && r->max_tokens > 0 && e == 0; number++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((stop ? stop : end) - text);
        if (!is_blank(text, n))
            e = line_add(r, text, n, number, err);
        text += n + 1;
    }
    return e;
}

int eval_text_read(const char *text, size_t len, const char *name, bool jsonl, int64_t max_tokens,
                   const struct tokenizer *tok, const struct tokenizer *against, struct eval_text *ret,
                   struct octavo_error *err)
{
    *ret = (struct eval_text){0};
    struct reader r = {
        .name = name, .tok = tok, .against = against, .max_tokens = max_tokens > 0 ? max_tokens : INT64_MAX, .to = ret};
    int e = against ? tokenizers_compare(tok, against, err) : 0;
    if (e == 0)
        e = jsonl ? lines_add(&r, text, len, err) : document_add(&r, text, len, err);
    if (e < 0) {
        eval_text_release(ret);
        goto out;
    }
    ret->documents = mem_calloc(ret->num_documents, sizeof(*ret->documents));
    const int32_t *at = ret->ids.ids;
    for (size_t i = 0; i < ret->num_documents; i++) {
        ret->documents[i] = (struct eval_document){at, r.lens[i]};
        at = at ? at + r.lens[i] : NULL;
    }
out:
    free(r.lens);
    return e;
}

void eval_text_release(struct eval_text *t)
{
    token_ids_release(&t->ids);
    free(t->documents);
    *t = (struct eval_text){0};
}
