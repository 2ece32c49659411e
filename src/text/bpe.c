/* The merge loop: see bpe.h. Short pieces, nearly all there are, look for the lowest rank by scanning; long ones keep
 * candidates in a heap, so that a piece of n bytes costs O(n log n). */
#include "text/bpe.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/bpe_merges.h"

#include <stdlib.h>
#include <string.h>

#define SCAN_MAX 48 /* symbols; below this a scan of ranks beats the heap */

struct bpe_symbol {
    int32_t id; /* -1: merged away */
    uint32_t prev, next;
    uint32_t rank;  /* of the merge with the next symbol (scan only) */
    int32_t merged; /* its id */
};

struct bpe_candidate {
    uint32_t rank, at;
    int32_t left, right, merged;
};

#define NO_RANK UINT32_MAX
#define NO_SYMBOL UINT32_MAX

uint32_t byte_level_char(uint8_t b)
{
    if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
        return b;
    /* the other 68, in order, follow U+0100 */
    if (b <= 0x20)
        return 0x100u + b;
    if (b <= 0xa0)
        return 0x100u + 33 + (b - 0x7fu);
    return 0x100u + 67; /* 0xad */
}

int byte_level_byte(uint32_t cp)
{
    if (cp < 0x100)
        return byte_level_char((uint8_t)cp) == cp ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

void byte_level_map(const char *s, size_t len, struct buf *out)
{
    buf_reserve(out, len * 2);
    for (size_t i = 0; i < len; i++) {
        char c[4];
        int n = utf8_encode(byte_level_char((uint8_t)s[i]), c);
        buf_append(out, c, (size_t)n);
    }
}

void bpe_scratch_release(struct bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    buf_release(&s->mapped);
    *s = (struct bpe_scratch){0};
}

static int grow(void **p, size_t *cap, size_t need, size_t elem, struct octavo_error *err)
{
    if (need <= *cap)
        return 0;
    size_t n = MAX(need + need / 2, (size_t)256);
    void *q = mem_try_array(n, elem);
    if (!q)
        return error_set(err, OCTAVO_ENOMEM, "no memory to encode a piece of %zu symbols", need);
    if (*p)
        memcpy(q, *p, *cap * elem);
    free(*p);
    *p = q;
    *cap = n;
    return 0;
}

/* ---- symbols ------------------------------------------------------------------------------------------------ */

static size_t char_len(const char *s, size_t len)
{
    uint32_t cp;
    int n = utf8_decode(s, len, &cp);
    return n > 0 ? (size_t)n : utf8_bad_len(s, len);
}

/* The symbols of a piece taken as it is: one a character, with the model's rules for characters it does not know. */
static size_t symbols_of_chars(const struct bpe *bpe, struct bpe_scratch *sc, const char *piece, size_t len)
{
    struct bpe_symbol *sym = sc->symbols;
    size_t n = 0;
    bool unk_pending = false;
    bool affixed = bpe->prefix[0] || bpe->suffix[0];
    for (size_t i = 0, clen; i < len; i += clen) {
        clen = char_len(piece + i, len - i);
        const char *s = piece + i;
        size_t slen = clen;
        if (affixed) {
            buf_clear(&sc->mapped);
            if (i > 0)
                buf_puts(&sc->mapped, bpe->prefix);
            buf_append(&sc->mapped, s, clen);
            if (i + clen == len)
                buf_puts(&sc->mapped, bpe->suffix);
            s = buf_str(&sc->mapped);
            slen = sc->mapped.len;
        }
        int32_t id = strmap_get(&bpe->vocab, s, slen, -1);
        if (id >= 0) {
            if (unk_pending)
                sym[n++].id = bpe->unk_id;
            unk_pending = false;
            sym[n++].id = id;
            continue;
        }
        if (bpe->byte_fallback) {
            bool all = true;
            for (size_t b = 0; b < slen; b++)
                all = all && bpe->fallback_ids[(uint8_t)s[b]] >= 0;
            if (all) {
                for (size_t b = 0; b < slen; b++)
                    sym[n++].id = bpe->fallback_ids[(uint8_t)s[b]];
                continue;
            }
        }
        if (bpe->unk_id >= 0) {
            if (unk_pending && !bpe->fuse_unk)
                sym[n++].id = bpe->unk_id;
            unk_pending = true;
        }
    }
    if (unk_pending)
        sym[n++].id = bpe->unk_id;
    return n;
}

static size_t symbols_of_bytes(const struct bpe *bpe, struct bpe_symbol *sym, const char *piece, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t id = bpe->byte_ids[(uint8_t)piece[i]];
        if (id >= 0)
            sym[n++].id = id;
    }
    return n;
}

/* ---- merging ------------------------------------------------------------------------------------------------ */

static void rank_pair(const struct bpe *bpe, struct bpe_symbol *left, const struct bpe_symbol *right)
{
    const struct bpe_merge *m = bpe_merge_find(bpe, left->id, right->id);
    left->rank = m ? m->rank : NO_RANK;
    left->merged = m ? m->id : -1;
}

static size_t merge_by_scan(const struct bpe *bpe, struct bpe_symbol *sym, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        rank_pair(bpe, &sym[i], &sym[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (sym[i].rank < sym[best].rank)
                best = i;
        }
        if (sym[best].rank == NO_RANK)
            break;
        sym[best].id = sym[best].merged;
        memmove(&sym[best + 1], &sym[best + 2], (n - best - 2) * sizeof(*sym));
        n--;
        if (best + 1 < n)
            rank_pair(bpe, &sym[best], &sym[best + 1]);
        if (best > 0)
            rank_pair(bpe, &sym[best - 1], &sym[best]);
    }
    return n;
}

static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct bpe_candidate *heap, size_t *n, struct bpe_candidate c)
{
    size_t i = (*n)++;
    while (i > 0 && before(&c, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static struct bpe_candidate heap_pop(struct bpe_candidate *heap, size_t *n)
{
    struct bpe_candidate top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid >= *n)
            break;
        if (kid + 1 < *n && before(&heap[kid + 1], &heap[kid]))
            kid++;
        if (!before(&heap[kid], &last))
            break;
        heap[i] = heap[kid];
        i = kid;
    }
    heap[i] = last;
    return top;
}

static void heap_offer(const struct bpe *bpe, struct bpe_candidate *heap, size_t *n, const struct bpe_symbol *sym,
                       uint32_t at)
{
    uint32_t next = sym[at].next;
    if (next == NO_SYMBOL)
        return;
    const struct bpe_merge *m = bpe_merge_find(bpe, sym[at].id, sym[next].id);
    if (m)
        heap_push(heap, n, (struct bpe_candidate){m->rank, at, sym[at].id, sym[next].id, m->id});
}

/* Every merge adds at most two candidates and there are fewer than n merges: 3n slots are enough. */
static size_t merge_by_heap(const struct bpe *bpe, struct bpe_scratch *sc, size_t n)
{
    struct bpe_symbol *sym = sc->symbols;
    size_t num = 0;
    for (size_t i = 0; i < n; i++) {
        sym[i].prev = i ? (uint32_t)i - 1 : NO_SYMBOL;
        sym[i].next = i + 1 < n ? (uint32_t)i + 1 : NO_SYMBOL;
    }
    for (size_t i = 0; i < n; i++)
        heap_offer(bpe, sc->heap, &num, sym, (uint32_t)i);
    while (num) {
        struct bpe_candidate c = heap_pop(sc->heap, &num);
        struct bpe_symbol *s = &sym[c.at];
        if (s->id != c.left || s->next == NO_SYMBOL || sym[s->next].id != c.right)
            continue; /* one of the two has merged with another since */
        struct bpe_symbol *gone = &sym[s->next];
        s->id = c.merged;
        s->next = gone->next;
        gone->id = -1;
        if (s->next != NO_SYMBOL)
            sym[s->next].prev = c.at;
        heap_offer(bpe, sc->heap, &num, sym, c.at);
        if (s->prev != NO_SYMBOL)
            heap_offer(bpe, sc->heap, &num, sym, s->prev);
    }
    size_t left = 0;
    for (uint32_t i = 0; i != NO_SYMBOL; i = sym[i].next)
        sym[left++].id = sym[i].id; /* left <= i: what is read next has not been written */
    return left;
}

int bpe_encode(const struct bpe *bpe, struct bpe_scratch *sc, const char *piece, size_t len, bool raw,
               struct token_ids *out, struct octavo_error *err)
{
    if (!len)
        return 0;
    if (raw && (bpe->prefix[0] || bpe->suffix[0] || bpe->unk_id >= 0 || bpe->byte_fallback)) {
        struct buf mapped = {0}; /* rules about characters need the characters */
        byte_level_map(piece, len, &mapped);
        int r = bpe_encode(bpe, sc, buf_str(&mapped), mapped.len, false, out, err);
        buf_release(&mapped);
        return r;
    }
    if (bpe->ignore_merges && len <= bpe->longest) {
        const char *whole = piece;
        size_t whole_len = len;
        if (raw) {
            buf_clear(&sc->mapped);
            byte_level_map(piece, len, &sc->mapped);
            whole = buf_str(&sc->mapped);
            whole_len = sc->mapped.len;
        }
        int32_t id = strmap_get(&bpe->vocab, whole, whole_len, -1);
        if (id >= 0) {
            token_ids_push(out, id);
            return 0;
        }
    }
    size_t affixes = strlen(bpe->prefix) + strlen(bpe->suffix);
    size_t most; /* symbols: with fallback a character and its affixes give one a byte */
    if (!size_mul_ok(len, affixes + 1, &most) || !size_add_ok(most, 1, &most) || most > UINT32_MAX / 4)
        return error_set(err, OCTAVO_ENOMEM, "a piece of %zu bytes is too long to encode", len);
    int r = grow((void **)&sc->symbols, &sc->symbols_cap, most, sizeof(*sc->symbols), err);
    if (r)
        return r;
    size_t n = raw ? symbols_of_bytes(bpe, sc->symbols, piece, len) : symbols_of_chars(bpe, sc, piece, len);
    if (n <= SCAN_MAX) {
        n = merge_by_scan(bpe, sc->symbols, n);
    } else {
        r = grow((void **)&sc->heap, &sc->heap_cap, 3 * n, sizeof(*sc->heap), err);
        if (r)
            return r;
        n = merge_by_heap(bpe, sc, n);
    }
    for (size_t i = 0; i < n; i++)
        token_ids_push(out, sc->symbols[i].id);
    return 0;
}
