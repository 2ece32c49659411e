/* Added tokens: found in the text before anything else looks at it, as Hugging Face's AddedVocabulary does it. Loading
 * on the thread of tokenizer_parse, walking on any. */
#include "text/tokenizer_impl.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/tokenizer_unicode.h"

#include <stdlib.h>
#include <string.h>

/* ---- loading ------------------------------------------------------------------------------------------------ */

static struct added_token *find_content(const struct added_tokens *a, const char *content, size_t len)
{
    int32_t at = strmap_get(&a->by_content, content, len, -1);
    return at < 0 ? NULL : &a->list[at];
}

static struct added_token *append(struct added_tokens *a, int32_t id, const char *content, size_t len)
{
    if (a->num == a->cap) {
        a->cap = a->cap * 2 + 64;
        a->list = mem_realloc(a->list, a->cap * sizeof(*a->list));
    }
    strmap_add(&a->by_content, content, len, (int32_t)a->num, NULL);
    struct added_token *t = &a->list[a->num++];
    *t = (struct added_token){.id = id, .content = mem_strndup(content, len), .len = len};
    return t;
}

/* The text and the id must not belong to two tokens. */
static int check_id(const struct bpe *bpe, const char *content, size_t len, int64_t id, const char *where,
                    struct octavo_error *err)
{
    int32_t in_vocab = strmap_get(&bpe->vocab, content, len, -1);
    if (in_vocab >= 0 && in_vocab != id)
        return error_set(err, OCTAVO_EINVAL, "%s: \"%.80s\" has id %lld here, but %d in the vocabulary", where, content,
                         (long long)id, in_vocab);
    if (in_vocab < 0 && id < bpe->num_ids && bpe->tokens[id].used)
        return error_set(err, OCTAVO_EINVAL, "%s: id %lld of \"%.80s\" belongs to \"%.80s\" in the vocabulary", where,
                         (long long)id, content, bpe->strings.data + bpe->tokens[id].at);
    return 0;
}

int added_tokens_put(struct added_tokens *a, const struct bpe *bpe, const json_t *entry, int64_t id, const char *where,
                     struct octavo_error *err)
{
    if (!json_is_object(entry))
        return error_set(err, OCTAVO_EINVAL, "%s must hold objects", where);
    const json_t *v = json_object_get(entry, "content");
    if (!json_is_string(v))
        return error_set(err, OCTAVO_EINVAL, "%s: content must be a string", where);
    const char *content = json_string_value(v);
    size_t len = json_string_length(v);
    if (len > TOKENIZER_MAX_ADDED_BYTES)
        return error_set(err, OCTAVO_EINVAL, "%s: a token of %zu bytes is longer than %d", where, len,
                         TOKENIZER_MAX_ADDED_BYTES);
    if (!len)
        return 0; /* never found in a text */
    if (id < 0 || id >= BPE_MAX_ID)
        return error_set(err, OCTAVO_EINVAL, "%s: the id of \"%.80s\" must be an integer from 0 to %d", where, content,
                         BPE_MAX_ID - 1);
    struct added_token t = {0};
    int r = check_id(bpe, content, len, id, where, err);
    if (r || (r = json_get_bool(entry, where, "single_word", &t.single_word, err)) ||
        (r = json_get_bool(entry, where, "lstrip", &t.lstrip, err)) ||
        (r = json_get_bool(entry, where, "rstrip", &t.rstrip, err)) ||
        (r = json_get_bool(entry, where, "special", &t.special, err)))
        return r;
    t.normalized = !t.special;
    if ((r = json_get_bool(entry, where, "normalized", &t.normalized, err)))
        return r;
    struct added_token *old = find_content(a, content, len);
    if (old && old->id != id)
        return error_set(err, OCTAVO_EINVAL, "%s: \"%.80s\" has id %lld here, but %d elsewhere", where, content,
                         (long long)id, old->id);
    if (!old)
        old = append(a, (int32_t)id, content, len);
    old->single_word = t.single_word;
    old->lstrip = t.lstrip;
    old->rstrip = t.rstrip;
    old->normalized = t.normalized;
    old->special = t.special;
    return 0;
}

void added_tokens_put_special(struct added_tokens *a, int32_t id, const char *content, size_t len)
{
    if (len && !find_content(a, content, len))
        append(a, id, content, len)->special = true;
}

static int by_id(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static uint32_t new_node(struct trie *t, uint8_t byte, uint32_t sibling)
{
    if (t->len == t->cap) {
        t->cap = t->cap * 2 + 256;
        t->nodes = mem_realloc(t->nodes, t->cap * sizeof(*t->nodes));
    }
    if (!t->len)
        t->len = 1; /* 0 means none */
    t->nodes[t->len] = (struct trie_node){0, sibling, -1, byte};
    return (uint32_t)t->len++;
}

static uint32_t child(const struct trie *t, uint32_t node, uint8_t byte)
{
    uint32_t c = t->nodes[node].child;
    while (c && t->nodes[c].byte != byte)
        c = t->nodes[c].sibling;
    return c;
}

static void trie_add(struct trie *t, const char *s, size_t len, int32_t token)
{
    if (!len)
        return;
    uint32_t *root = &t->roots[(uint8_t)s[0]];
    if (!*root)
        *root = new_node(t, (uint8_t)s[0], 0);
    uint32_t at = *root;
    for (size_t i = 1; i < len; i++) {
        uint32_t next = child(t, at, (uint8_t)s[i]);
        if (!next) {
            next = new_node(t, (uint8_t)s[i], t->nodes[at].child);
            t->nodes[at].child = next;
        }
        at = next;
    }
    if (t->nodes[at].token < 0)
        t->nodes[at].token = token;
}

int added_tokens_seal(struct added_tokens *a, const struct normalizer *n, struct octavo_error *err)
{
    if (a->num)
        qsort(a->list, a->num, sizeof(*a->list), by_id);
    strmap_release(&a->by_content);
    for (size_t i = 0; i < a->num; i++) {
        const struct added_token *t = &a->list[i];
        if (i && t[-1].id == t->id)
            return error_set(err, OCTAVO_EINVAL,
                             "tokenizer.json: added tokens \"%.80s\" and \"%.80s\" have the same id %d", t[-1].content,
                             t->content, t->id);
        strmap_add(&a->by_content, t->content, t->len, (int32_t)i, NULL);
    }
    struct regex_state *st = regex_state_new();
    struct buf normal = {0};
    int r = st ? 0 : error_set(err, OCTAVO_ENOMEM, "no memory for added tokens");
    for (size_t i = 0; i < a->num && !r; i++) {
        const struct added_token *t = &a->list[i];
        if (!t->normalized) {
            trie_add(&a->raw, t->content, t->len, (int32_t)i);
            continue;
        }
        buf_clear(&normal);
        r = normalizer_apply(n, st, t->content, t->len, &normal, err);
        if (!r && normal.len > 4 * TOKENIZER_MAX_ADDED_BYTES)
            r = error_set(err, OCTAVO_EINVAL, "tokenizer.json: added token \"%.80s\" is too long when normalized",
                          t->content);
        if (!r)
            trie_add(&a->normal, buf_str(&normal), normal.len, (int32_t)i);
    }
    buf_release(&normal);
    regex_state_free(st);
    return r;
}

void added_tokens_release(struct added_tokens *a)
{
    for (size_t i = 0; i < a->num; i++)
        free(a->list[i].content);
    free(a->list);
    strmap_release(&a->by_content);
    free(a->raw.nodes);
    free(a->normal.nodes);
    *a = (struct added_tokens){0};
}

const struct added_token *added_tokens_find(const struct added_tokens *a, int32_t id)
{
    if (!a->num || id < a->list[0].id || id > a->list[a->num - 1].id)
        return NULL;
    const struct added_token key = {.id = id};
    return bsearch(&key, a->list, a->num, sizeof(*a->list), by_id);
}

/* ---- walking ------------------------------------------------------------------------------------------------ */

static bool word_before(const char *text, size_t at)
{
    size_t i = at;
    uint32_t cp;
    while (i > 0 && ((unsigned char)text[--i] & 0xc0) == 0x80)
        ;
    return at > 0 && utf8_decode(text + i, at - i, &cp) > 0 && unicode_is_word(cp);
}

static bool word_after(const char *text, size_t len, size_t at)
{
    uint32_t cp;
    return at < len && utf8_decode(text + at, len - at, &cp) > 0 && unicode_is_word(cp);
}

static size_t spaces_before(const char *text, size_t at, size_t floor)
{
    while (at > floor) {
        size_t i = at - 1;
        uint32_t cp;
        while (i > floor && ((unsigned char)text[i] & 0xc0) == 0x80)
            i--;
        if (utf8_decode(text + i, at - i, &cp) <= 0 || !unicode_is_space(cp))
            break;
        at = i;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t len, size_t at)
{
    while (at < len) {
        uint32_t cp;
        int n = utf8_decode(text + at, len - at, &cp);
        if (n <= 0 || !unicode_is_space(cp))
            break;
        at += (size_t)n;
    }
    return at;
}

/* The longest token that begins at text + at: its index, or -1. */
static int32_t longest_at(const struct trie *trie, const char *text, size_t len, size_t at, size_t *ret_end)
{
    uint32_t node = trie->roots[(uint8_t)text[at]];
    int32_t best = -1;
    for (size_t i = at + 1; node; i++) {
        if (trie->nodes[node].token >= 0) {
            best = trie->nodes[node].token;
            *ret_end = i;
        }
        if (i == len)
            break;
        node = child(trie, node, (uint8_t)text[i]);
    }
    return best;
}

bool added_tokens_next(const struct added_tokens *a, const struct trie *trie, const char *text, size_t len,
                       struct added_walk *w, struct added_match *ret_match)
{
    if (!trie->len)
        return false;
    while (w->at < len) {
        size_t end = 0, start = w->at;
        int32_t index = trie->roots[(uint8_t)text[start]] ? longest_at(trie, text, len, start, &end) : -1;
        if (index < 0) {
            w->at++;
            continue;
        }
        w->at = end;
        const struct added_token *t = &a->list[index];
        if (t->single_word && (word_before(text, start) || word_after(text, len, end)))
            continue;
        if (t->lstrip)
            start = spaces_before(text, start, MIN(w->done, start));
        if (t->rstrip) {
            if (end >= w->space_end) /* else within whitespace that was measured already */
                w->space_end = spaces_after(text, len, end);
            end = w->space_end;
        }
        *ret_match = (struct added_match){t, start, end};
        w->done = end;
        return true;
    }
    return false;
}
