/* C8 attention with vpdpbusd; part of the tiers that have it. A strip of keys, a few tiles, is the outer loop and the
 * query rows of the call the inner one: each load of K and V serves several rows. A strip goes through in phases, each
 * for all of its tiles and rows, so that none waits for one number: dots, probabilities in vectors over keys, what
 * joins the tiles in vectors over rows, p.V. Stores are what to save: on Zen 5 one of 64 bytes takes the place of two
 * dot products, and so sums stay in registers for the length of a strip. */

#include "kernel/x86/avx512vnni_attention_rows.h"

/* Dots of mr rows from r0 on with a tile, to places from at on, and what the greatest of each is among, all: of the
 * keys that the row sees, all of them. fetch: what is fetched meanwhile, or NULL. */
ALWAYS_INLINE void c8_dots(int mr, bool all, struct c8_rows *s, int r0, int at, const uint8_t *k, int pd,
                           const uint8_t *fetch, enum cache cache)
{
    __m512i hi[C8_MR][2], lo[C8_MR][2];
    const int8_t *q = s->q + (size_t)r0 * (size_t)pd * 2;
    UNROLL
    for (int r = 0; r < mr; r++)
        hi[r][0] = hi[r][1] = lo[r][0] = lo[r][1] = _mm512_setzero_si512();
    for (int i = 0; i < pd; i += 4, k += 4 * ATTN_TILE, q += mr * 8) {
        __m512i k0 = _mm512_loadu_si512(k), k1 = _mm512_loadu_si512(k + 64);
        if (fetch)
            fetch_into(cache, fetch + i * ATTN_TILE, 128);
        UNROLL
        for (int r = 0; r < mr; r++) {
            __m512i qh = broadcast4(q + r * 8), ql = broadcast4(q + r * 8 + 4);
            DPBUSD(hi[r][0], k0, qh);
            DPBUSD(hi[r][1], k1, qh);
            DPBUSD(lo[r][0], k0, ql);
            DPBUSD(lo[r][1], k1, ql);
        }
    }
    UNROLL
    for (int r = 0; r < mr; r++) {
        __m512i d0 = _mm512_add_epi32(_mm512_slli_epi32(hi[r][0], 8), lo[r][0]);
        __m512i d1 = _mm512_add_epi32(_mm512_slli_epi32(hi[r][1], 8), lo[r][1]);
        _mm512_store_si512(s->dot[at + r], d0);
        _mm512_store_si512(s->dot[at + r] + 16, d1);
        if (!all) {
            __m512i least = _mm512_set1_epi32(INT32_MIN);
            d0 = _mm512_mask_mov_epi32(least, s->seen[at + r][0], d0);
            d1 = _mm512_mask_mov_epi32(least, s->seen[at + r][1], d1);
        }
        s->top[at + r] = _mm512_max_epi32(d0, d1);
    }
}

/* Dots of 16 keys less the greatest, in powers of two. */
ALWAYS_INLINE __m512 c8_below(const struct c8_rows *s, int at, int half)
{
    __m512i below = _mm512_sub_epi32(_mm512_load_si512(s->dot[at] + half * 16), _mm512_set1_epi32(s->tile_max[at]));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(below), _mm512_set1_ps(s->tile_unit[at]));
}

/* In each 128 bits of p four keys of the first vector of a row and four of the second, and then of another row. */
ALWAYS_INLINE __m512i c8_sorted(__m512i p)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), p);
}

/* Sums of the two rows of a, and those of b: a, b, a, b. */
ALWAYS_INLINE __m128i c8_sums(__m512i a, __m512i b)
{
    a = _mm512_sad_epu8(a, _mm512_setzero_si512());
    b = _mm512_sad_epu8(b, _mm512_setzero_si512());
    a = _mm512_or_si512(a, _mm512_slli_epi64(b, 32));
    __m256i part = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(part), _mm256_extracti128_si256(part, 1));
}

/* 2^n for x * 2^n that becomes an integer: a product that rounds to 0 may as well be one that Intel's CPUs make without
 * help, which takes them 200 cycles where a number underflows. */
ALWAYS_INLINE __m512 c8_scalef(__m512 x, __m512 n)
{
    return _mm512_scalef_ps(x, _mm512_max_ps(n, _mm512_set1_ps(-64.0f)));
}

/* High planes of places [begin, end) as if none were fine, four by four: what is written behind the end is nobody's.
 * Each step is taken for all eight vectors before the next, for a CPU that looks only so far ahead. */
ALWAYS_INLINE void c8_coarse(struct c8_rows *s, int begin, int end, bool all)
{
    for (int at = begin; at < end; at += 4) {
        __m512 x[8], n[8];
        __m512i p[8];
        UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = c8_below(s, at + i / 2, i % 2);
        UNROLL
        for (int i = 0; i < 8; i++)
            n[i] = rint_ps(x[i]);
        UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = _mm512_sub_ps(x[i], n[i]);
        UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = exp2_255_poly(x[i]);
        UNROLL
        for (int i = 0; i < 8; i++) {
            p[i] = _mm512_cvtps_epi32(c8_scalef(x[i], n[i]));
            if (!all)
                p[i] = _mm512_maskz_mov_epi32(s->seen[at + i / 2][i % 2], p[i]);
        }
        __m512i ab = _mm512_packus_epi16(_mm512_packus_epi32(p[0], p[1]), _mm512_packus_epi32(p[2], p[3]));
        __m512i cd = _mm512_packus_epi16(_mm512_packus_epi32(p[4], p[5]), _mm512_packus_epi32(p[6], p[7]));
        _mm512_storeu_si512(s->p[at], c8_sorted(ab));
        _mm512_storeu_si512(s->p[at + 2], c8_sorted(cd));
        __m128i sum = _mm_slli_epi32(c8_sums(ab, cd), 8);
        _mm_storeu_si128((__m128i *)(s->p_sum + at), _mm_shuffle_epi32(sum, 0xd8));
    }
}

/* Both planes of p at places a and b, which may be one: the high ones there, the low ones to low_a and low_b. */
static void c8_fine_pair(struct c8_rows *s, bool all, int a, int b, uint8_t *low_a, uint8_t *low_b)
{
    __m512i p[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        int at = i < 2 ? a : b;
        __m512 x = c8_below(s, at, i % 2), n = rint_ps(x);
        x = _mm512_mul_ps(c8_scalef(exp2_poly(_mm512_sub_ps(x, n)), n), _mm512_set1_ps(P_FINE));
        p[i] = _mm512_cvtps_epi32(x);
        p[i] = all ? p[i] : _mm512_maskz_mov_epi32(s->seen[at][i % 2], p[i]);
    }
    __m512i pa = _mm512_packus_epi32(p[0], p[1]), pb = _mm512_packus_epi32(p[2], p[3]), bytes = _mm512_set1_epi16(255);
    __m512i high = _mm512_packus_epi16(_mm512_srli_epi16(pa, 8), _mm512_srli_epi16(pb, 8));
    __m512i low = _mm512_packus_epi16(_mm512_and_si512(pa, bytes), _mm512_and_si512(pb, bytes));
    __m128i sum = c8_sums(high, low); /* high a, low a, high b, low b */
    sum = _mm_add_epi32(_mm_slli_epi32(sum, 8), _mm_srli_epi64(sum, 32));
    s->p_sum[a] = _mm_cvtsi128_si32(sum);
    s->p_sum[b] = _mm_extract_epi32(sum, 2);
    high = c8_sorted(high);
    low = c8_sorted(low);
    _mm256_storeu_si256((__m256i *)s->p[a], _mm512_castsi512_si256(high));
    _mm256_storeu_si256((__m256i *)s->p[b], _mm512_extracti64x4_epi64(high, 1));
    _mm256_storeu_si256((__m256i *)low_a, _mm512_castsi512_si256(low));
    _mm256_storeu_si256((__m256i *)low_b, _mm512_extracti64x4_epi64(low, 1));
}

/* Those of 16 rows from r on that see some of a tile. */
ALWAYS_INLINE __mmask16 c8_mine(const struct c8_tile *t, int r)
{
    uint32_t before = t->begin > r ? (1u << (t->begin - r < 16 ? t->begin - r : 16)) - 1 : 0;
    return (__mmask16)((t->end > r ? mask16((size_t)(t->end - r)) : 0) & ~before);
}

/* What joins the tiles to each other and to those before, for 16 rows. */
static void c8_join(struct c8_rows *s, int r)
{
    __m512i max = _mm512_loadu_si512(s->max + r);
    __m512 unit = _mm512_loadu_ps(s->unit + r), others = _mm512_loadu_ps(s->others + r);
    __mmask16 begun = (__mmask16)(s->begun >> r);
    for (int i = 0, at = r; i < s->num_tiles; i++, at += s->stride) {
        struct c8_tile *t = &s->tile[i];
        __mmask16 mine = c8_mine(t, r), first = (__mmask16)~begun;
        __m512i top = _mm512_loadu_si512(s->tile_max + at), now = _mm512_max_epi32(top, max);
        now = _mm512_mask_mov_epi32(now, first, top);
        max = _mm512_mask_mov_epi32(max, first, top);
        __m512 weight = exp2_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(top, now)), unit));
        __m512 correction = exp2_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(max, now)), unit));
        correction = _mm512_mask_mov_ps(correction, first, _mm512_setzero_ps());
        __m512i less = _mm512_sub_epi32(_mm512_loadu_si512(s->p_sum + at), _mm512_set1_epi32(P_FINE));
        __m512 all_others = _mm512_fmadd_ps(_mm512_cvtepi32_ps(less), weight, _mm512_mul_ps(others, correction));
        __m512 enough = _mm512_mul_ps(weight, _mm512_loadu_ps(s->large + at));
        t->fine |= (uint64_t)(mine & _mm512_cmp_ps_mask(all_others, enough, _CMP_LT_OQ)) << r;
        t->kept |= (uint64_t)(mine & _mm512_cmp_ps_mask(correction, _mm512_set1_ps(1.0f), _CMP_EQ_OQ)) << r;
        _mm512_mask_storeu_ps(s->weight + at, mine, weight);
        _mm512_mask_storeu_ps(s->correction + at, mine, correction);
        others = _mm512_mask_mov_ps(others, mine, all_others);
        max = _mm512_mask_mov_epi32(max, mine, now);
        begun |= mine;
    }
    _mm512_storeu_si512(s->max + r, max);
    _mm512_storeu_ps(s->others + r, others);
    s->begun |= (uint64_t)begun << r;
}

/* What is divided by in the end. */
static void c8_add_mass(struct c8_rows *s, int r)
{
    __m512 mass = _mm512_loadu_ps(s->mass + r);
    for (int i = 0, at = r; i < s->num_tiles; i++, at += s->stride) {
        __m512 before = _mm512_mul_ps(mass, _mm512_loadu_ps(s->correction + at));
        __m512 sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(s->p_sum + at));
        mass = _mm512_mask_mov_ps(mass, c8_mine(&s->tile[i], r),
                                  _mm512_fmadd_ps(sum, _mm512_loadu_ps(s->weight + at), before));
    }
    _mm512_storeu_ps(s->mass + r, mass);
}

/* Sums of planes of p, (rows, ATTN_TILE), times 16 * nv channels of v (of those in m, with nv = 1). */
ALWAYS_INLINE void c8_plane(int mr, int nv, __m512i (*acc)[C8_NV], const uint8_t *p, const int8_t *v, size_t d,
                            __mmask16 m)
{
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            acc[r][u] = _mm512_setzero_si512();
    }
    NO_UNROLL
    for (const uint8_t *end = p + ATTN_TILE; p < end; p += 4, v += 4 * d) {
        __m512i vv[C8_NV];
        UNROLL
        for (int u = 0; u < nv; u++)
            vv[u] = nv == 1 ? _mm512_maskz_loadu_epi32(m, v) : _mm512_loadu_si512(v + u * 64);
        UNROLL
        for (int r = 0; r < mr; r++) {
            __m512i pv = broadcast4(p + r * ATTN_TILE);
            UNROLL
            for (int u = 0; u < nv; u++)
                DPBUSD(acc[r][u], pv, vv[u]);
        }
    }
}

/* The same with four vectors for 1 to 3 rows, in assembly: a compiler finds no registers for the twelve vectors that
 * the sums are added to. fetch: what follows v in the next tile, or NULL. */
#define C8_ZERO(r)                                                                                                     \
    "vpxord %[" r "0], %[" r "0], %[" r "0]\n\t"                                                                       \
    "vpxord %[" r "1], %[" r "1], %[" r "1]\n\t"                                                                       \
    "vpxord %[" r "2], %[" r "2], %[" r "2]\n\t"                                                                       \
    "vpxord %[" r "3], %[" r "3], %[" r "3]\n\t"
#define C8_STEP(r, at)                                                                                                 \
    "vpbroadcastd " at "(%[p]), %[b]\n\t"                                                                              \
    "vpdpbusd %[v0], %[b], %[" r "0]\n\t"                                                                              \
    "vpdpbusd %[v1], %[b], %[" r "1]\n\t"                                                                              \
    "vpdpbusd %[v2], %[b], %[" r "2]\n\t"                                                                              \
    "vpdpbusd %[v3], %[b], %[" r "3]\n\t"
#define C8_LOOP(zeros, steps, prefetch, ...)                                                                           \
    __asm__(zeros "1:\n\t"                                                                                             \
                  "vmovdqu64 (%[v]), %[v0]\n\t"                                                                        \
                  "vmovdqu64 64(%[v]), %[v1]\n\t"                                                                      \
                  "vmovdqu64 128(%[v]), %[v2]\n\t"                                                                     \
                  "vmovdqu64 192(%[v]), %[v3]\n\t" prefetch "addq %[stride], %[v]\n\t" steps "addq $4, %[p]\n\t"       \
                  "cmpq %[end], %[p]\n\t"                                                                              \
                  "jne 1b"                                                                                             \
            : __VA_ARGS__, [v0] "=&v"(v0), [v1] "=&v"(v1), [v2] "=&v"(v2), [v3] "=&v"(v3), [b] "=&v"(b), [p] "+r"(p),  \
              [v] "+r"(v), [fetch] "+r"(fetch)                                                                         \
            : [stride] "r"(4 * d), [end] "r"(p + ATTN_TILE)                                                            \
            : "memory", "cc")
#define C8_SUMS(r, i) [r##0] "=&v"(acc[i][0]), [r##1] "=&v"(acc[i][1]), [r##2] "=&v"(acc[i][2]), [r##3] "=&v"(acc[i][3])
#define C8_FETCH                                                                                                       \
    "prefetcht0 (%[fetch])\n\t"                                                                                        \
    "prefetcht0 64(%[fetch])\n\t"                                                                                      \
    "prefetcht0 128(%[fetch])\n\t"                                                                                     \
    "prefetcht0 192(%[fetch])\n\t"                                                                                     \
    "addq %[stride], %[fetch]\n\t"
#define C8_ZERO_1 C8_ZERO("a")
#define C8_ZERO_2 C8_ZERO_1 C8_ZERO("b")
#define C8_ZERO_3 C8_ZERO_2 C8_ZERO("c")
#define C8_STEP_1 C8_STEP("a", "0")
#define C8_STEP_2 C8_STEP_1 C8_STEP("b", "32")
#define C8_STEP_3 C8_STEP_2 C8_STEP("c", "64")
#define C8_SUMS_1 C8_SUMS(a, 0)
#define C8_SUMS_2 C8_SUMS_1, C8_SUMS(b, 1)
#define C8_SUMS_3 C8_SUMS_2, C8_SUMS(c, 2)
#define C8_FULL(mr)                                                                                                    \
    if (fetch)                                                                                                         \
        C8_LOOP(C8_ZERO_##mr, C8_STEP_##mr, C8_FETCH, C8_SUMS_##mr);                                                   \
    else                                                                                                               \
        C8_LOOP(C8_ZERO_##mr, C8_STEP_##mr, "", C8_SUMS_##mr)
ALWAYS_INLINE void c8_full_plane(int mr, __m512i (*acc)[C8_NV], const uint8_t *p, const int8_t *v, size_t d,
                                 const int8_t *fetch)
{
    __m512i v0, v1, v2, v3, b;
    if (mr == 1) {
        C8_FULL(1);
    } else if (mr == 2) {
        C8_FULL(2);
    } else {
        C8_FULL(3);
    }
}

ALWAYS_INLINE __m512 c8_load(int nv, const float *from, __mmask16 m)
{
    return nv == 1 ? _mm512_maskz_loadu_ps(m, from) : _mm512_loadu_ps(from);
}

ALWAYS_INLINE void c8_store(int nv, float *to, __mmask16 m, __m512 v)
{
    if (nv == 1)
        _mm512_mask_storeu_ps(to, m, v);
    else
        _mm512_storeu_ps(to, v);
}

/* High planes of the strip for mr rows from r0 on and 16 * nv channels from i on. */
ALWAYS_INLINE void c8_values(int mr, int nv, bool fetch, struct c8_rows *s, int r0, size_t d, size_t i, __mmask16 m)
{
    __m512 out[C8_VR][C8_NV];
    __m512i acc[C8_VR][C8_NV];
    uint64_t group = ((1ull << mr) - 1) << r0;
    float *to = s->out + (size_t)r0 * d + i;
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            out[r][u] = c8_load(nv, to + (size_t)r * d + u * 16, m);
    }
    NO_UNROLL
    for (int tile = 0, at = r0; tile < s->num_tiles; tile++, at += s->stride) {
        const struct c8_tile *t = &s->tile[tile];
        if (t->begin >= r0 + mr || t->end <= r0)
            continue;
        if (nv == C8_NV)
            c8_full_plane(mr, acc, s->p[at], t->v + i * 4, d, fetch ? t->next_v + i * 4 : NULL);
        else
            c8_plane(mr, nv, acc, s->p[at], t->v + i * 4, d, m);
        bool kept = (t->kept & group) == group; /* times 1 changes nothing */
        UNROLL
        for (int r = 0; r < mr; r++) {
            if (!kept && (t->begin > r0 + r || t->end <= r0 + r))
                continue;
            __m512 w = _mm512_set1_ps(s->weight[at + r] * 256.0f), c = _mm512_set1_ps(s->correction[at + r]);
            UNROLL
            for (int u = 0; u < nv; u++) {
                __m512 before = kept ? out[r][u] : _mm512_mul_ps(out[r][u], c);
                out[r][u] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][u]), w, before);
            }
        }
    }
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            c8_store(nv, to + (size_t)r * d + u * 16, m, out[r][u]);
    }
}

/* Planes of one tile for few rows: all of V in the order of memory, 128 channels wide, because a decoding row waits for
 * memory and what a CPU fetches by itself it finds by following one line of addresses. fetch: the next V, or NULL. */
ALWAYS_INLINE void c8_line(int mr, int nv, struct c8_rows *s, bool low, int r0, size_t d, size_t i, const int8_t *fetch,
                           __mmask16 m)
{
    __m512i acc[C8_LR][C8_LINE];
    const uint8_t *p = low ? s->p_low[r0] : s->p[r0];
    const int8_t *v = s->tile[0].v + i * 4;
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            acc[r][u] = _mm512_setzero_si512();
    }
    NO_UNROLL
    for (const uint8_t *end = p + ATTN_TILE; p < end; p += 4, v += 4 * d) {
        __m512i pv[C8_LR];
        UNROLL
        for (int r = 0; r < mr; r++)
            pv[r] = broadcast4(p + r * ATTN_TILE);
        size_t at = (size_t)(v - s->tile[0].v);
        if (fetch)
            fetch_once((at < s->tile[0].turn ? fetch : s->tile[0].turned) + at, nv * 64);
        UNROLL
        for (int u = 0; u < nv; u++) {
            __m512i vv = nv == 1 ? _mm512_maskz_loadu_epi32(m, v) : _mm512_loadu_si512(v + u * 64);
            UNROLL
            for (int r = 0; r < mr; r++)
                DPBUSD(acc[r][u], pv[r], vv);
        }
    }
    float *out = (low ? s->out_low : s->out) + (size_t)r0 * d + i, worth = low ? 1.0f : 256.0f;
    UNROLL
    for (int r = 0; r < mr; r++) {
        __m512 w = _mm512_set1_ps(s->weight[r0 + r] * worth), c = _mm512_set1_ps(s->correction[r0 + r]);
        UNROLL
        for (int u = 0; u < nv; u++) {
            __m512 before = _mm512_mul_ps(c8_load(nv, out + (size_t)r * d + u * 16, m), c);
            c8_store(nv, out + (size_t)r * d + u * 16, m, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][u]), w, before));
        }
    }
}

/* Low planes of some rows of a tile, mr of them from a place of the list on. */
ALWAYS_INLINE void c8_low(int mr, int nv, struct c8_rows *s, int tile, int place, size_t d, size_t i, __mmask16 m)
{
    __m512i acc[C8_MR][C8_NV];
    c8_plane(mr, nv, acc, s->p_low[place], s->tile[tile].v + i * 4, d, m);
    UNROLL
    for (int r = 0; r < mr; r++) {
        int row = s->low_row[place + r];
        __m512 w = _mm512_set1_ps(s->weight[tile * s->stride + row]);
        float *out = s->out_low + (size_t)row * d + i;
        UNROLL
        for (int u = 0; u < nv; u++) {
            __m512 before = c8_load(nv, out + u * 16, m);
            c8_store(nv, out + u * 16, m, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][u]), w, before));
        }
    }
}

/* One function for each number of rows, so that a remainder costs what it is. */
#define C8_DOTS(mr)                                                                                                    \
    static __attribute__((noinline)) void c8_dots_##mr(struct c8_rows *s, bool all, int r0, int at, const uint8_t *k,  \
                                                       int pd, const uint8_t *fetch)                                   \
    {                                                                                                                  \
        enum cache cache = s->rows <= C8_FEW ? cache_once() : CACHE_ALL;                                               \
        if (all && fetch && cache == CACHE_L1)                                                                         \
            c8_dots(mr, true, s, r0, at, k, pd, fetch, CACHE_L1);                                                      \
        else if (all && fetch && cache == CACHE_L2)                                                                    \
            c8_dots(mr, true, s, r0, at, k, pd, fetch, CACHE_L2);                                                      \
        else if (all && fetch)                                                                                         \
            c8_dots(mr, true, s, r0, at, k, pd, fetch, CACHE_ALL);                                                     \
        else if (all)                                                                                                  \
            c8_dots(mr, true, s, r0, at, k, pd, NULL, CACHE_ALL);                                                      \
        else if (cache == CACHE_L2)                                                                                    \
            c8_dots(mr, false, s, r0, at, k, pd, fetch, CACHE_L2);                                                     \
        else                                                                                                           \
            c8_dots(mr, false, s, r0, at, k, pd, fetch, CACHE_ALL);                                                    \
    }                                                                                                                  \
    static __attribute__((noinline)) void c8_low_##mr(struct c8_rows *s, int tile, int place, size_t d)                \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        for (; i + 16 * C8_NV <= d; i += 16 * C8_NV)                                                                   \
            c8_low(mr, C8_NV, s, tile, place, d, i, 0xffff);                                                           \
        for (; i < d; i += 16)                                                                                         \
            c8_low(mr, 1, s, tile, place, d, i, mask16(d - i));                                                        \
    }
#define C8_VALUES(mr)                                                                                                  \
    static __attribute__((noinline)) void c8_values_##mr(struct c8_rows *s, int r0, size_t d, bool fetch)              \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        for (; fetch && i + 16 * C8_NV <= d; i += 16 * C8_NV)                                                          \
            c8_values(mr, C8_NV, true, s, r0, d, i, 0xffff);                                                           \
        for (; i + 16 * C8_NV <= d; i += 16 * C8_NV)                                                                   \
            c8_values(mr, C8_NV, false, s, r0, d, i, 0xffff);                                                          \
        for (; i < d; i += 16)                                                                                         \
            c8_values(mr, 1, false, s, r0, d, i, mask16(d - i));                                                       \
    }
#define C8_LINES(mr)                                                                                                   \
    static __attribute__((noinline)) void c8_line_##mr(struct c8_rows *s, bool low, int r0, size_t d,                  \
                                                       const int8_t *fetch)                                            \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        for (; fetch && i + 16 * C8_LINE <= d; i += 16 * C8_LINE)                                                      \
            c8_line(mr, C8_LINE, s, low, r0, d, i, fetch, 0xffff);                                                     \
        for (; i + 16 * C8_LINE <= d; i += 16 * C8_LINE)                                                               \
            c8_line(mr, C8_LINE, s, low, r0, d, i, NULL, 0xffff);                                                      \
        for (; i + 64 <= d; i += 64)                                                                                   \
            c8_line(mr, 4, s, low, r0, d, i, fetch, 0xffff);                                                           \
        for (; i < d; i += 16)                                                                                         \
            c8_line(mr, 1, s, low, r0, d, i, fetch, mask16(d - i));                                                    \
    }
C8_DOTS(1)
C8_DOTS(2)
C8_DOTS(3)
C8_DOTS(4)
C8_DOTS(5)
C8_DOTS(6)
C8_VALUES(1)
C8_VALUES(2)
C8_VALUES(3)
C8_LINES(1)
C8_LINES(2)

typedef void c8_dots_fn(struct c8_rows *, bool, int, int, const uint8_t *, int, const uint8_t *);
typedef void c8_low_fn(struct c8_rows *, int, int, size_t);
typedef void c8_values_fn(struct c8_rows *, int, size_t, bool);
static c8_dots_fn *const c8_dots_of[] = {NULL, c8_dots_1, c8_dots_2, c8_dots_3, c8_dots_4, c8_dots_5, c8_dots_6};
static c8_low_fn *const c8_low_of[] = {NULL, c8_low_1, c8_low_2, c8_low_3, c8_low_4, c8_low_5, c8_low_6};
static c8_values_fn *const c8_values_of[] = {NULL, c8_values_1, c8_values_2, c8_values_3};

#ifdef C8_TILES
#include "kernel/x86/avx512amx_attention.h"
#else
#define c8_tile_begin(s, a) false
#define c8_tile_dots(s, pd) (void)0
#define c8_tile_values(s, begin, end, d) (void)0
#define c8_tile_end() (void)0
#endif

/* Everything about the tile at t0 but its numbers. The tile after it may be of the next call. */
static void c8_look(struct c8_rows *s, int tile, const struct attn_args *a, int64_t t0)
{
    struct c8_tile *t = &s->tile[tile];
    const struct attn_args *of = a;
    int64_t next = c8_tile_after(&of, t0, 1);
    *t = (struct c8_tile){
        .k = c8_k_at(a, t0), .next_k = c8_k_at(of, next), .v = c8_v_at(a, t0), .next_v = c8_v_at(of, next)};
    t->turned = t->next_v;
    bool few = s->rows <= C8_FEW;
    if (few && cpu_ahead == CPU_AHEAD_NEAR) { /* V follows K, and the next tile's K follows V, if not in memory */
        size_t v_bytes = ATTN_TILE * (size_t)a->d, ahead = v_bytes < C8_NEAR ? v_bytes : C8_NEAR;
        t->turn = v_bytes - ahead;
        t->turned = (const int8_t *)t->next_k - t->turn;
        t->next_k = t->k + ahead;
        t->next_v = t->v + ahead;
    } else if (few && cpu_ahead == CPU_AHEAD_ALONE) { /* which finds by itself what follows, if it goes on */
        bool follows = t->next_k == t->k + a->tile_stride;
        if (!follows)
            s->run_is_short = fetch_run_is_short(of, next);
        if (follows && !s->run_is_short) {
            t->next_k = NULL;
            t->next_v = NULL;
        }
    }
    int from = 0, to = a->tokens; /* tokens that see any of it: who comes later begins and ends later */
    while (attn_end(a, from) <= t0)
        from++;
    while (attn_begin(a, to - 1) >= t0 + ATTN_TILE)
        to--;
    t->begin = from * a->group;
    t->end = to * a->group;
    t->all = attn_begin(a, to - 1) <= t0 && attn_end(a, from) >= t0 + ATTN_TILE;
    if (t->all && attn_begin(a, to - 1) == 0) { /* all have the same keys behind them */
        __m512 large = _mm512_set1_ps(c8_large(t0 + ATTN_TILE - 1, a->d));
        for (int r = 0; r < t->end; r += 16)
            _mm512_storeu_ps(s->large + tile * s->stride + r, large);
        memset(s->seen + tile * s->stride, 0xff, (size_t)t->end * sizeof(*s->seen));
        return;
    }
    for (int i = from, at = tile * s->stride + t->begin; i < to; i++) {
        int64_t lo = attn_begin(a, i) - t0, hi = attn_end(a, i) - t0;
        float large = c8_large((hi < ATTN_TILE ? hi : ATTN_TILE) - lo - 1, a->d);
        uint32_t bits = (hi >= ATTN_TILE ? UINT32_MAX : (1u << hi) - 1) & (lo > 0 ? ~((1u << lo) - 1) : UINT32_MAX);
        for (int g = 0; g < a->group; g++, at++) {
            s->large[at] = large;
            s->seen[at][0] = (__mmask16)bits;
            s->seen[at][1] = (__mmask16)(bits >> 16);
        }
    }
}

ALWAYS_INLINE uint64_t c8_rows_of(const struct c8_tile *t)
{
    return (t->end == 64 ? UINT64_MAX : (1ull << t->end) - 1) & ~((1ull << t->begin) - 1);
}

/* A tile's fine rows have low planes from now on; what these are added to begins at 0. */
static void c8_begin_low(struct c8_rows *s, uint64_t fine, size_t d)
{
    for (uint64_t more = fine & ~s->low; more; more &= more - 1)
        memset(s->out_low + (size_t)__builtin_ctzll(more) * d, 0, d * sizeof(float));
    s->low |= fine;
}

/* Fine rows of one tile of many, and their low planes with what these are added to. */
static void c8_add_low(struct c8_rows *s, int tile, size_t d)
{
    const struct c8_tile *t = &s->tile[tile];
    int at = tile * s->stride, count = 0;
    for (uint64_t moved = c8_rows_of(t) & s->low & ~t->kept; moved; moved &= moved - 1) {
        int r = __builtin_ctzll(moved);
        for (size_t i = 0; i < d; i++)
            s->out_low[(size_t)r * d + i] *= s->correction[at + r];
    }
    for (uint64_t fine = t->fine; fine; fine &= fine - 1)
        s->low_row[count++] = (uint8_t)__builtin_ctzll(fine);
    c8_begin_low(s, t->fine, d);
    for (int i = 0; i < count; i += 2) {
        int a = s->low_row[i], b = i + 1 < count ? s->low_row[i + 1] : a;
        c8_fine_pair(s, t->all, at + a, at + b, s->p_low[i], s->p_low[i + 1]);
    }
    for (int place = 0, mr; place < count; place += mr) {
        int left = count - place, passes = (left + C8_MR - 1) / C8_MR;
        mr = (left + passes - 1) / passes; /* 7 as 4 and 3: a row alone takes as long as two */
        c8_low_of[mr](s, tile, place, d);
    }
}

/* The one tile of few rows. A row whose out_low has to be corrected gets a low plane too, of zeros. */
static void c8_few_values(struct c8_rows *s, size_t d)
{
    struct c8_tile *t = &s->tile[0];
    uint64_t low = t->fine | (c8_rows_of(t) & s->low & ~t->kept); /* of the others out_low stays as it is */
    c8_begin_low(s, t->fine, d);
    if (low)
        memset(s->p_low, 0, (size_t)s->rows * ATTN_TILE);
    for (uint64_t fine = t->fine; fine;) {
        int a = __builtin_ctzll(fine), b;
        fine &= fine - 1;
        b = fine ? __builtin_ctzll(fine) : a;
        fine &= fine - 1;
        c8_fine_pair(s, t->all, a, b, s->p_low[a], s->p_low[b]);
    }
    for (int r = t->begin; r < t->end; r += C8_LR) {
        const int8_t *fetch = r == t->begin ? t->next_v : NULL;
        if (t->end - r >= C8_LR)
            c8_line_2(s, false, r, d, fetch);
        else
            c8_line_1(s, false, r, d, fetch);
    }
    for (; low; low &= low - 1)
        c8_line_1(s, true, __builtin_ctzll(low), d, NULL);
}

static void c8_strip(struct c8_rows *s, const struct attn_args *a)
{
    int pd = c8_padded_dim(a->d), begin = ATTN_MAX_ROWS, end = 0, places = s->num_tiles * s->stride;
    size_t d = (size_t)a->d;
    bool all = true;
    for (int i = 0; i < s->num_tiles; i++) {
        const struct c8_tile *t = &s->tile[i];
        int first = t->begin / C8_MR * C8_MR;
        for (int r = first, mr; r < t->end && !s->tiled; r += mr) {
            mr = s->rows - r < C8_MR ? s->rows - r : C8_MR;
            c8_dots_of[mr](s, t->all, r, i * s->stride + r, t->k, pd, r == first ? t->next_k : NULL);
        }
        all = all && t->all;
        begin = t->begin < begin ? t->begin : begin;
        end = t->end > end ? t->end : end;
    }
    if (s->tiled)
        c8_tile_dots(s, pd);
    for (int at = 0; at < places; at += 16)
        _mm512_storeu_si512(s->tile_max + at, max_of_rows(s->top + at));
    if (all)
        c8_coarse(s, 0, places, true);
    else
        c8_coarse(s, 0, places, false);
    for (int r = begin / 16 * 16; r < end; r += 16)
        c8_join(s, r);
    if (s->rows <= C8_FEW)
        c8_few_values(s, d);
    for (int i = 0; s->rows > C8_FEW && i < s->num_tiles; i++)
        c8_add_low(s, i, d);
    for (int r = begin / 16 * 16; r < end; r += 16)
        c8_add_mass(s, r);
    if (s->tiled)
        c8_tile_values(s, begin, end, d);
    for (int r = begin, mr; s->rows > C8_FEW && !s->tiled && r < end; r += mr) {
        mr = end - r < C8_VR ? end - r : C8_VR;
        c8_values_of[mr](s, r, d, r == begin);
    }
}

/* A row's result. whole: d is a multiple of 16. */
ALWAYS_INLINE void c8_give(const struct c8_rows *s, const struct attn_args *a, bool whole, int r, float *out)
{
    size_t d = (size_t)a->d;
    const float *sum = s->out + (size_t)r * d, *low = s->out_low + (size_t)r * d;
    __m512 inv = _mm512_set1_ps(1.0f / s->mass[r]);
    for (size_t i = 0; i < d; i += 16) {
        __mmask16 m = whole ? 0xffff : mask16(d - i);
        __m512 v = _mm512_maskz_loadu_ps(m, sum + i);
        if (s->low >> r & 1)
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, low + i));
        v = _mm512_mul_ps(_mm512_add_ps(v, _mm512_setzero_ps()), inv);
        v = _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, a->c8->v_offset + i));
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, a->c8->v_scale + i)));
    }
}

void KFN(attn_c8)(const struct attn_args *a)
{
    struct c8_rows s; /* large, but only what the call's rows and dimension need of it is touched */
    size_t d = (size_t)a->d;
    s.rows = a->tokens * a->group;
    s.stride = (s.rows + 3) / 4 * 4;
    s.begun = s.low = 0;
    s.run_is_short = fetch_run_is_short(a, c8_first_tile(a));
    memset(s.mass, 0, sizeof(s.mass));
    memset(s.others, 0, sizeof(s.others));
    memset(s.max, 0, sizeof(s.max));
    int64_t begin = c8_first_tile(a), end = attn_end(a, a->tokens - 1);
    int strip = s.rows > C8_FEW ? C8_STRIP : 1;
    if (strip == 1 && cpu_ahead != CPU_AHEAD_NEAR) { /* the first tile, while q is looked at; else L2 finds it sooner */
        fetch_once(c8_k_at(a, begin), ATTN_TILE * c8_padded_dim(a->d));
        fetch_once(c8_v_at(a, begin), ATTN_TILE * a->d);
    }
    if (strip == 1) { /* and what the results are written to */
        c8_ask_ends(a);
        c8_ask(&s, a, true, 0, s.rows);
    }
    s.tiled = c8_tile_begin(&s, a);
    c8_queries(&s, a);
    for (int i = 0; i < C8_STRIP; i++)
        memcpy(s.tile_unit + i * s.stride, s.unit, (size_t)s.stride * sizeof(float));
    memset(s.out, 0, (size_t)s.rows * d * sizeof(float));
    for (int64_t t0 = begin; t0 < end;) {
        if (strip == 1 && cpu_ahead == CPU_AHEAD_ONCE)
            c8_ask_pages(a, t0);
        for (s.num_tiles = 0; s.num_tiles < strip && t0 < end; s.num_tiles++, t0 += ATTN_TILE)
            c8_look(&s, s.num_tiles, a, t0);
        c8_strip(&s, a);
    }
    if (s.tiled)
        c8_tile_end();
    if (strip > 1)
        c8_ask(&s, a, true, 0, C8_AHEAD);
    for (int r = 0; r < s.rows; r++) {
        float *out = c8_out_at(a, r);
        if (strip > 1)
            c8_ask(&s, a, true, r + C8_AHEAD, r + C8_AHEAD + 1);
        if (d % 16 == 0)
            c8_give(&s, a, true, r, out);
        else
            c8_give(&s, a, false, r, out);
    }
}
