/* A stream of tokens to a stream of text, with stop strings: see detokenizer.h. Each stop string is followed by its own
 * Knuth-Morris-Pratt automaton, so a byte is looked at once for each of them, and what is held back is exactly the
 * longest end of the text that begins a stop string. */
#include "text/detokenizer.h"

#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

struct stop {
    char *text;
    size_t len;
    size_t *fail;   /* (len + 1): longest proper end of text[0..i) that is also a beginning */
    size_t matched; /* bytes of text that the stream ends with */
};

struct detokenizer {
    struct decode_stream stream;
    struct stop *stops;
    size_t num_stops;
    bool include_stop;
    struct buf held; /* text that is not released: its last bytes may begin a stop string */
    size_t scanned;  /* bytes of held that the automata have seen */
};

static void stop_init(struct stop *s, const char *text, size_t len)
{
    *s = (struct stop){mem_strndup(text, len), len, mem_calloc(len + 1, sizeof(size_t)), 0};
    size_t k = 0;
    for (size_t i = 1; i < len; i++) {
        while (k && text[i] != text[k])
            k = s->fail[k];
        k += text[i] == text[k];
        s->fail[i + 1] = k;
    }
}

static bool stop_feed(struct stop *s, char c)
{
    while (s->matched && s->text[s->matched] != c)
        s->matched = s->fail[s->matched];
    s->matched += s->text[s->matched] == c;
    return s->matched == s->len;
}

struct detokenizer *detokenizer_new(const struct tokenizer *tok, const struct detokenizer_options *opts)
{
    struct detokenizer *d = mem_calloc(1, sizeof(*d));
    decode_stream_init(&d->stream, tok, opts->skip_special_tokens);
    d->include_stop = opts->include_stop_str_in_output;
    d->num_stops = opts->num_stop;
    d->stops = mem_calloc(opts->num_stop + 1, sizeof(*d->stops));
    for (size_t i = 0; i < opts->num_stop; i++)
        stop_init(&d->stops[i], opts->stop[i], opts->stop_len[i]);
    return d;
}

void detokenizer_free(struct detokenizer *d)
{
    if (!d)
        return;
    decode_stream_release(&d->stream);
    for (size_t i = 0; i < d->num_stops; i++) {
        free(d->stops[i].text);
        free(d->stops[i].fail);
    }
    free(d->stops);
    buf_release(&d->held);
    free(d);
}

/* The stop string that is complete first; of several that end at the same byte the longest, which began first. */
static int scan(struct detokenizer *d)
{
    for (; d->scanned < d->held.len; d->scanned++) {
        int hit = -1;
        for (size_t i = 0; i < d->num_stops; i++) {
            if (stop_feed(&d->stops[i], d->held.data[d->scanned]) && (hit < 0 || d->stops[i].len > d->stops[hit].len))
                hit = (int)i;
        }
        if (hit >= 0) {
            d->scanned++;
            return hit;
        }
    }
    return -1;
}

int detokenizer_push(struct detokenizer *d, int32_t token_id, struct buf *out)
{
    if (!d->num_stops) {
        decode_stream_push(&d->stream, token_id, out);
        return -1;
    }
    decode_stream_push(&d->stream, token_id, &d->held);
    int hit = scan(d);
    if (hit >= 0) {
        buf_append(out, d->held.data, d->scanned - (d->include_stop ? 0 : d->stops[hit].len));
        buf_clear(&d->held);
        d->scanned = 0;
        return hit;
    }
    size_t keep = 0;
    for (size_t i = 0; i < d->num_stops; i++)
        keep = MAX(keep, d->stops[i].matched);
    while (keep < d->held.len && keep && ((unsigned char)d->held.data[d->held.len - keep] & 0xc0) == 0x80)
        keep++; /* a stop string of odd bytes: still no half character goes out */
    size_t give = d->held.len - keep;
    buf_append(out, d->held.data, give);
    buf_consume(&d->held, give);
    d->scanned -= give;
    return -1;
}

void detokenizer_finish(struct detokenizer *d, struct buf *out)
{
    buf_append(out, d->held.data, d->held.len);
    buf_clear(&d->held);
    d->scanned = 0;
    decode_stream_finish(&d->stream, out);
}
