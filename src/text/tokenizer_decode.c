/* Decoding, as a stream: whole texts and the detokenizer go through the same steps, so that they cannot disagree.
 * Token -> bytes (the decoder) -> UTF-8 with U+FFFD. Each step holds back what the next token may change.
 * clean_up_tokenization_spaces is not looked at: made for WordPiece, it would take away spaces that a BPE model wrote.
 */
#include "text/tokenizer_impl.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "tokenizer.json: decoder"

/* ---- loading ------------------------------------------------------------------------------------------------ */

struct loading {
    struct decoder *d;
    bool fused;
};

static int load_replace(struct loading *l, const json_t *node, struct octavo_error *err)
{
    const json_t *pattern = json_object_get(json_object_get(node, "pattern"), "String");
    const json_t *content = json_object_get(node, "content");
    if (!json_is_string(pattern) || !json_string_length(pattern) || !json_is_string(content))
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " Replace needs a pattern {\"String\": ...} and a content");
    if (l->fused || l->d->byte_fallback || l->d->byte_level || l->d->num_replaces == TOKENIZER_MAX_STEPS)
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " Replace is supported before all other steps only");
    struct decode_replace *r = &l->d->replaces[l->d->num_replaces++];
    buf_append(&r->pattern, json_string_value(pattern), json_string_length(pattern));
    buf_append(&r->content, json_string_value(content), json_string_length(content));
    return 0;
}

static int load_strip(struct loading *l, const json_t *node, struct octavo_error *err)
{
    int64_t start = 0, stop = 0;
    const json_t *content = json_object_get(node, "content");
    int r;
    if ((r = json_get_int(node, WHAT, "start", 0, 1 << 20, &start, err)) ||
        (r = json_get_int(node, WHAT, "stop", 0, 1 << 20, &stop, err)))
        return r;
    if (!json_is_string(content) || !json_string_length(content))
        return error_set(err, OCTAVO_EINVAL, WHAT ".content must be one character");
    if (stop || !l->fused || l->d->strip_count)
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " Strip is supported once, after Fuse, at the start only");
    buf_append(&l->d->strip, json_string_value(content), json_string_length(content));
    l->d->strip_count = (size_t)start;
    return 0;
}

static int load_node(struct loading *l, const json_t *node, int depth, struct octavo_error *err)
{
    const char *type = NULL;
    int r = tokenizer_node_type(node, WHAT, &type, err);
    if (r)
        return r;
    if (!strcmp(type, "Fuse")) {
        l->fused = true;
        return 0;
    }
    if (!strcmp(type, "ByteLevel")) {
        if (l->fused || l->d->byte_fallback || l->d->byte_level)
            return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " ByteLevel is supported before Fuse and alone only");
        l->d->byte_level = true;
        l->fused = true; /* it gives one string */
        return 0;
    }
    if (!strcmp(type, "ByteFallback")) {
        if (l->fused || l->d->byte_fallback)
            return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " ByteFallback is supported once, before Fuse only");
        l->d->byte_fallback = true;
        return 0;
    }
    if (!strcmp(type, "Replace"))
        return load_replace(l, node, err);
    if (!strcmp(type, "Strip"))
        return load_strip(l, node, err);
    if (strcmp(type, "Sequence") != 0)
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " of type \"%.80s\" is not supported", type);
    const json_t *list = json_object_get(node, "decoders");
    if (!json_is_array(list) || depth > 8)
        return error_set(err, OCTAVO_EINVAL, WHAT ".decoders must be an array, not nested too deep");
    for (size_t i = 0; i < json_array_size(list) && !r; i++)
        r = load_node(l, json_array_get(list, i), depth + 1, err);
    return r;
}

int decoder_load(struct decoder *d, const json_t *node, struct octavo_error *err)
{
    d->replaces = mem_calloc(TOKENIZER_MAX_STEPS, sizeof(*d->replaces));
    if (!node || json_is_null(node)) {
        d->join_with_space = true; /* what Hugging Face does without a decoder */
        return 0;
    }
    struct loading l = {.d = d};
    return load_node(&l, node, 0, err);
}

void decoder_release(struct decoder *d)
{
    for (size_t i = 0; i < d->num_replaces; i++) {
        buf_release(&d->replaces[i].pattern);
        buf_release(&d->replaces[i].content);
    }
    free(d->replaces);
    buf_release(&d->strip);
    *d = (struct decoder){0};
}

/* ---- tokens to bytes ---------------------------------------------------------------------------------------- */

static void replace_all(const char *s, size_t len, const struct decode_replace *r, struct buf *out)
{
    const char *end = s + len, *hit;
    for (; (hit = memmem(s, (size_t)(end - s), r->pattern.data, r->pattern.len)); s = hit + r->pattern.len) {
        buf_append(out, s, (size_t)(hit - s));
        buf_append(out, r->content.data, r->content.len);
    }
    buf_append(out, s, (size_t)(end - s));
}

/* A token's characters as bytes; a token with a character that stands for no byte is taken as it is written. */
static void byte_level_unmap(const char *s, size_t len, struct buf *out)
{
    size_t mark = out->len;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int n = utf8_decode(s + i, len - i, &cp), byte = n > 0 ? byte_level_byte(cp) : -1;
        if (byte < 0) {
            out->len = mark;
            buf_append(out, s, len);
            return;
        }
        buf_putc(out, (char)byte);
        i += (size_t)n;
    }
}

/* "<0x41>" */
static int fallback_byte(const char *s, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    if (len != 6 || memcmp(s, "<0x", 3) || s[5] != '>')
        return -1;
    const char *hi = strchr(digits, tolower((unsigned char)s[3])), *lo = strchr(digits, tolower((unsigned char)s[4]));
    return s[3] && s[4] && hi && lo ? (int)((hi - digits) << 4 | (lo - digits)) : -1;
}

/* A run of byte tokens is one text, or one U+FFFD for each. */
static void end_run(struct decode_stream *s)
{
    if (utf8_valid(buf_str(&s->run), s->run.len)) {
        buf_append(&s->bytes, s->run.data, s->run.len);
    } else {
        for (size_t i = 0; i < s->run.len; i++)
            buf_puts(&s->bytes, "\xef\xbf\xbd");
    }
    buf_clear(&s->run);
}

static void push_string(struct decode_stream *s, const char *token, size_t len)
{
    const struct decoder *d = &s->tok->decoder;
    if (d->byte_level) {
        byte_level_unmap(token, len, &s->bytes);
        return;
    }
    int byte = d->byte_fallback ? fallback_byte(token, len) : -1;
    if (byte >= 0) {
        buf_putc(&s->run, (char)byte);
        return;
    }
    end_run(s);
    buf_append(&s->bytes, token, len);
}

static void push_token(struct decode_stream *s, const char *token, size_t len)
{
    const struct decoder *d = &s->tok->decoder;
    struct buf from = {0};
    for (size_t i = 0; i < d->num_replaces; i++) {
        struct buf to = {0};
        replace_all(token, len, &d->replaces[i], &to);
        buf_release(&from);
        from = to;
        token = buf_str(&from);
        len = from.len;
    }
    push_string(s, token, len);
    buf_release(&from);
}

/* ---- bytes to text ------------------------------------------------------------------------------------------ */

void utf8_append_lossy(const char *s, size_t len, struct buf *out)
{
    buf_reserve(out, len);
    size_t done = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int n = (unsigned char)s[i] < 0x80 ? 1 : utf8_decode(s + i, len - i, &cp);
        if (n > 0) {
            i += (size_t)n;
            continue;
        }
        buf_append(out, s + done, i - done);
        buf_puts(out, "\xef\xbf\xbd");
        i += utf8_bad_len(s + i, len - i);
        done = i;
    }
    buf_append(out, s + done, len - done);
}

static void put_bytes(struct decode_stream *s, bool last, struct buf *out)
{
    const struct decoder *d = &s->tok->decoder;
    struct buf *b = &s->bytes;
    while (s->stripped < d->strip_count && b->len) {
        if (b->len < d->strip.len && !memcmp(b->data, d->strip.data, b->len) && !last)
            return; /* may become one */
        if (b->len < d->strip.len || memcmp(b->data, d->strip.data, d->strip.len)) {
            s->stripped = SIZE_MAX;
        } else {
            buf_consume(b, d->strip.len);
            s->stripped++;
        }
    }
    if (!b->len)
        return;
    size_t whole = last ? b->len : b->len - utf8_incomplete_tail(b->data, b->len);
    if (utf8_valid(buf_str(b), whole)) {
        buf_append(out, buf_str(b), whole);
    } else {
        utf8_append_lossy(b->data, whole, out);
    }
    buf_consume(b, whole);
}

/* ---- the stream --------------------------------------------------------------------------------------------- */

void decode_stream_init(struct decode_stream *s, const struct tokenizer *tok, bool skip_special)
{
    *s = (struct decode_stream){.tok = tok, .skip_special = skip_special};
}

/* Puts a token into s->bytes; false when it gives nothing. */
static bool push_id(struct decode_stream *s, int32_t id)
{
    size_t len = 0;
    const char *token = tokenizer_token_string(s->tok, id, &len);
    if (!token || (s->skip_special && tokenizer_is_special(s->tok, id)))
        return false;
    if (s->tok->decoder.join_with_space && s->started)
        buf_putc(&s->bytes, ' ');
    s->started = true;
    push_token(s, token, len);
    return true;
}

void decode_stream_push(struct decode_stream *s, int32_t id, struct buf *out)
{
    if (push_id(s, id))
        put_bytes(s, false, out);
}

void decode_stream_finish(struct decode_stream *s, struct buf *out)
{
    end_run(s);
    put_bytes(s, true, out);
}

void decode_stream_release(struct decode_stream *s)
{
    buf_release(&s->bytes);
    buf_release(&s->run);
    buf_release(&s->token);
}

void tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, bool skip_special, struct buf *out)
{
    struct decode_stream s;
    decode_stream_init(&s, tok, skip_special);
    for (size_t i = 0; i < n; i++)
        push_id(&s, ids[i]);
    decode_stream_finish(&s, out);
    decode_stream_release(&s);
}

bool tokenizer_token_bytes(const struct tokenizer *tok, int32_t id, struct buf *out)
{
    if (!tokenizer_token_string(tok, id, NULL))
        return false;
    struct decode_stream s;
    decode_stream_init(&s, tok, false);
    push_id(&s, id);
    buf_append(out, s.run.data, s.run.len); /* a byte_fallback token's byte, whole or not */
    buf_append(out, s.bytes.data, s.bytes.len);
    decode_stream_release(&s);
    return true;
}
