/* Normalizers: the text that added tokens leave over, before it is split. utf8proc has the tables; ordering of marks is
 * done here, because its own is quadratic in a run of marks. Any thread. */
#include "text/tokenizer_impl.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/tokenizer_unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define WHAT "tokenizer.json: normalizer"
#define MAX_GROWTH 64 /* times the text's length, and a megabyte: what Replace and Prepend may make of it */

/* ---- loading ------------------------------------------------------------------------------------------------ */

static int load_content(const json_t *node, const char *key, struct buf *out, struct octavo_error *err)
{
    const json_t *v = json_object_get(node, key);
    if (!json_is_string(v))
        return error_set(err, OCTAVO_EINVAL, WHAT ".%s must be a string", key);
    buf_append(out, json_string_value(v), json_string_length(v));
    return 0;
}

static int load_step(struct normal_step *step, const json_t *node, const char *type, struct octavo_error *err)
{
    static const char *const plain[] = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}; /* as enum normal_kind */
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        if (!strcmp(type, plain[i])) {
            step->kind = (enum normal_kind)i;
            return 0;
        }
    }
    int r;
    if (!strcmp(type, "Strip")) {
        step->kind = NORMAL_STRIP;
        step->left = step->right = true;
        if ((r = json_get_bool(node, WHAT, "strip_left", &step->left, err)))
            return r;
        return json_get_bool(node, WHAT, "strip_right", &step->right, err);
    }
    if (!strcmp(type, "Prepend")) {
        step->kind = NORMAL_PREPEND;
        return load_content(node, "prepend", &step->content, err);
    }
    if (!strcmp(type, "Replace")) {
        step->kind = NORMAL_REPLACE;
        if ((r = load_content(node, "content", &step->content, err)))
            return r;
        return tokenizer_load_pattern(json_object_get(node, "pattern"), WHAT ".pattern", &step->regex, err);
    }
    return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " of type \"%.80s\" is not supported", type);
}

static int load_node(struct normalizer *n, const json_t *node, int depth, struct octavo_error *err)
{
    if (!node || json_is_null(node))
        return 0;
    const char *type = NULL;
    int r = tokenizer_node_type(node, WHAT, &type, err);
    if (r)
        return r;
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(node, "normalizers");
        if (!json_is_array(list) || depth > 8)
            return error_set(err, OCTAVO_EINVAL, WHAT ".normalizers must be an array, not nested too deep");
        for (size_t i = 0; i < json_array_size(list) && !r; i++)
            r = load_node(n, json_array_get(list, i), depth + 1, err);
        return r;
    }
    if (n->num_steps == TOKENIZER_MAX_STEPS)
        return error_set(err, OCTAVO_EINVAL, WHAT " has more than %d steps", TOKENIZER_MAX_STEPS);
    struct normal_step *step = &n->steps[n->num_steps++];
    return load_step(step, node, type, err);
}

int normalizer_load(struct normalizer *n, const json_t *node, struct octavo_error *err)
{
    n->steps = mem_calloc(TOKENIZER_MAX_STEPS, sizeof(*n->steps));
    return load_node(n, node, 0, err);
}

void normalizer_release(struct normalizer *n)
{
    for (size_t i = 0; i < n->num_steps; i++) {
        buf_release(&n->steps[i].content);
        regex_free(n->steps[i].regex);
    }
    free(n->steps);
    *n = (struct normalizer){0};
}

/* ---- Unicode normal forms ----------------------------------------------------------------------------------- */

/* A stretch of decomposed characters between two places that nothing composes or moves across. */
struct stretch {
    int32_t *cps;
    size_t len, cap;
    utf8proc_option_t options;
};

static int ccc(int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

static int by_class(const void *a, const void *b)
{
    /* class << 32 | place: unequal keys, hence a stable order */
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Canonical order of one run of marks. */
static bool order_marks(int32_t *cps, size_t n)
{
    bool ordered = true;
    for (size_t i = 1; i < n && ordered; i++)
        ordered = ccc(cps[i - 1]) <= ccc(cps[i]);
    if (ordered)
        return true;
    uint64_t few[32], *keys = few;
    int32_t few_old[32], *old = few_old;
    bool ok = true;
    if (n > ARRAY_LEN(few)) {
        keys = mem_try_array(n, sizeof(*keys));
        old = mem_try_array(n, sizeof(*old));
        ok = keys && old;
    }
    if (ok) {
        for (size_t i = 0; i < n; i++)
            keys[i] = (uint64_t)ccc(cps[i]) << 32 | i;
        memcpy(old, cps, n * sizeof(*old));
        qsort(keys, n, sizeof(*keys), by_class);
        for (size_t i = 0; i < n; i++)
            cps[i] = old[keys[i] & UINT32_MAX];
    }
    if (n > ARRAY_LEN(few)) {
        free(keys);
        free(old);
    }
    return ok;
}

static bool flush(struct stretch *s, struct buf *out)
{
    for (size_t i = 0; i < s->len;) {
        size_t end = i;
        while (end < s->len && ccc(s->cps[end]))
            end++;
        if (!order_marks(s->cps + i, end - i))
            return false;
        i = end + (end == i);
    }
    if ((s->options & UTF8PROC_COMPOSE) && s->len) {
        utf8proc_ssize_t n = utf8proc_normalize_utf32(s->cps, (utf8proc_ssize_t)s->len, s->options);
        s->len = n > 0 ? (size_t)n : 0;
    }
    buf_reserve(out, s->len);
    for (size_t i = 0; i < s->len; i++) {
        char c[4];
        buf_append(out, c, (size_t)utf8_encode((uint32_t)s->cps[i], c));
    }
    s->len = 0;
    return true;
}

static bool add(struct stretch *s, uint32_t cp)
{
    if (s->cap - s->len < 32) { /* no decomposition is longer than 18 */
        size_t cap = s->cap * 2 + 256;
        int32_t *cps = mem_try_array(cap, sizeof(*cps));
        if (!cps)
            return false;
        if (s->len)
            memcpy(cps, s->cps, s->len * sizeof(*cps));
        free(s->cps);
        s->cps = cps;
        s->cap = cap;
    }
    int boundary = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)cp, s->cps + s->len, (utf8proc_ssize_t)(s->cap - s->len),
                                (s->options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE, &boundary);
    if (n < 0 || (size_t)n > s->cap - s->len) {
        s->cps[s->len] = (int32_t)cp;
        n = 1;
    }
    s->len += (size_t)n;
    return true;
}

/* Characters that are their own NFC and never join the character before them: the common scripts. */
static bool stable_in_nfc(uint32_t cp)
{
    return cp < 0x300 || (cp >= 0x388 && cp <= 0x482) || (cp >= 0x2010 && cp <= 0x205e) ||
           (cp >= 0x3041 && cp <= 0x3096) || (cp >= 0x30a1 && cp <= 0x30fa) || (cp >= 0x3400 && cp <= 0x9fff) ||
           (cp >= 0xac00 && cp <= 0xd7a3) || (cp >= 0xff01 && cp <= 0xff9d) || (cp >= 0x1f300 && cp <= 0x1faff);
}

static bool unicode_form(enum normal_kind kind, const char *text, size_t len, struct buf *out)
{
    static const utf8proc_option_t options[] = {
        [NORMAL_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NORMAL_NFD] = UTF8PROC_STABLE,
        [NORMAL_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE,
        [NORMAL_NFKD] = UTF8PROC_STABLE | UTF8PROC_COMPAT,
    };
    bool compat = kind == NORMAL_NFKC || kind == NORMAL_NFKD, ok = true;
    struct stretch s = {.options = options[kind]};
    size_t last = 0; /* where the last stable character began: it may compose with what follows */
    size_t copied = 0;
    for (size_t i = 0, n; i < len && ok; i += n) {
        uint32_t cp = (unsigned char)text[i];
        n = cp < 0x80 ? 1 : (size_t)utf8_decode(text + i, len - i, &cp);
        if (cp < 0x80 || (kind == NORMAL_NFC && stable_in_nfc(cp))) {
            if (s.len) {
                ok = flush(&s, out);
                copied = i;
            }
            last = i;
            continue;
        }
        if (!s.len && copied < i) { /* up to the last stable character as it is, that one into the stretch */
            buf_append(out, text + copied, last - copied);
            uint32_t base;
            utf8_decode(text + last, len - last, &base);
            ok = add(&s, base);
        }
        if (ok && unicode_is_young(cp, compat)) {
            ok = flush(&s, out);
            buf_append(out, text + i, n);
            copied = i + n;
        } else if (ok) {
            ok = add(&s, cp);
            copied = i + n;
        }
    }
    if (ok && s.len)
        ok = flush(&s, out);
    else if (ok)
        buf_append(out, text + copied, len - copied);
    free(s.cps);
    return ok;
}

/* ---- the other steps ---------------------------------------------------------------------------------------- */

static void lowercase(const char *text, size_t len, struct buf *out)
{
    buf_reserve(out, len);
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        char c[4];
        i += (size_t)utf8_decode(text + i, len - i, &cp);
        if (cp == 0x130) /* the one character whose lower case is two */
            buf_puts(out, "i\xcc\x87");
        else
            buf_append(out, c, (size_t)utf8_encode(unicode_lower(cp), c));
    }
}

static void strip(const struct normal_step *step, const char *text, size_t len, struct buf *out)
{
    size_t start = 0, end = 0;
    bool seen = false;
    for (size_t i = 0, n; i < len; i += n) {
        uint32_t cp;
        n = (size_t)utf8_decode(text + i, len - i, &cp);
        if (unicode_is_space(cp))
            continue;
        if (!seen)
            start = i;
        seen = true;
        end = i + n;
    }
    if (!seen && (step->left || step->right))
        return;
    if (!step->left)
        start = 0;
    if (!step->right)
        end = len;
    buf_append(out, text + start, end - start);
}

static int replace(const struct normal_step *step, struct regex_state *st, const char *text, size_t len, size_t limit,
                   struct buf *out, struct octavo_error *err)
{
    char *shadow;
    if (!unicode_shadow(text, len, &shadow))
        return error_set(err, OCTAVO_ENOMEM, "no memory to normalize %zu bytes", len);
    size_t done = 0, from = 0, last_end = SIZE_MAX;
    int r = 0;
    while (from <= len) {
        struct regex_match m;
        r = regex_search(step->regex, st, shadow ? shadow : text, len, from, &m, err);
        if (r <= 0)
            break;
        r = 0;
        if (m.start == m.end && m.end == last_end) { /* an empty match right after a match does not count */
            uint32_t cp;
            from = m.end + (m.end < len ? (size_t)utf8_decode(text + m.end, len - m.end, &cp) : 1);
            continue;
        }
        buf_append(out, text + done, m.start - done);
        buf_append(out, step->content.data, step->content.len);
        done = from = last_end = m.end;
        if (out->len > limit) {
            r = error_set(err, OCTAVO_EINVAL, WHAT ": a Replace makes the text more than %d times as long", MAX_GROWTH);
            break;
        }
    }
    if (!r)
        buf_append(out, text + done, len - done);
    free(shadow);
    return r;
}

int normalizer_apply(const struct normalizer *n, struct regex_state *st, const char *text, size_t len, struct buf *out,
                     struct octavo_error *err)
{
    size_t limit = len * MAX_GROWTH + (1 << 20);
    struct buf from = {0};
    int r = 0;
    buf_append(out, text, len);
    for (size_t i = 0; i < n->num_steps && !r; i++) {
        const struct normal_step *step = &n->steps[i];
        struct buf swap = from;
        from = *out;
        *out = swap;
        buf_clear(out);
        const char *s = buf_str(&from);
        switch (step->kind) {
        case NORMAL_LOWERCASE:
            lowercase(s, from.len, out);
            break;
        case NORMAL_STRIP:
            strip(step, s, from.len, out);
            break;
        case NORMAL_PREPEND:
            if (from.len)
                buf_append(out, step->content.data, step->content.len);
            buf_append(out, s, from.len);
            break;
        case NORMAL_REPLACE:
            r = replace(step, st, s, from.len, limit, out, err);
            break;
        default:
            if (!unicode_form(step->kind, s, from.len, out))
                r = error_set(err, OCTAVO_ENOMEM, "no memory to normalize %zu bytes", len);
        }
    }
    buf_release(&from);
    return r;
}
