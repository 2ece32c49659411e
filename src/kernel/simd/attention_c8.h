/* C8 attention of one tier over dot products of four (simd/gemm_i8.h says what a tier defines for them). The tile of
 * keys is the outer loop and the query rows of the call the inner one, C8_MR at a time: each load of K and V serves
 * them all. A tier also defines
 *     Q_PLANES            accumulators that 16 bits of q need: 1, or 2 whose first counts 256 times
 *     Q_pack(to, q)       four channels of q, (4) int32, to eight bytes: four for each part or plane
 *     P_PLANES            passes over V that 16 bits of p need: 2, of which 8 bits need the first, or 1
 *     P_pack(to, p)       with one pass: 16 lanes of 16-bit numbers to 32 bytes, eight for each four like Q_pack
 *     C8_NV               16-lane groups of channels at once in p.V */
#include "kernel/simd/math.h"

/* A compiler that kept the bytes from part to part would lack the registers. */
#if PARTS > 1
#define AFTER_PART() __asm__ volatile("" ::: "memory")
#else
#define AFTER_PART() ((void)0)
#endif

/* Few rows leave registers for twice as many keys, or channels. */
#define TIMES(mr) ((mr) <= C8_MR / 2 ? 2 : 1)

#define P_BIAS 32768 /* what 16 bits of p are less when one pass takes them as signed numbers */

/* Everything that a call remembers of its rows, (rows) each, padded so that vectors may run over the end. */
struct c8_rows {
    int rows, ld;                             /* ld: d in whole 16s */
    int lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS]; /* keys that it sees of the tile at work */
    float unit[ATTN_MAX_ROWS + 16], mass[ATTN_MAX_ROWS + 16], rest[ATTN_MAX_ROWS + 16], large[ATTN_MAX_ROWS + 16];
    float weight[ATTN_MAX_ROWS + 16], correction[ATTN_MAX_ROWS + 16];
    int32_t max[ATTN_MAX_ROWS + 16], tile_max[ATTN_MAX_ROWS + 16];
    int32_t fine[ATTN_MAX_ROWS + 16];      /* -1: 16 bits of p */
    int32_t dot[ATTN_MAX_ROWS][ATTN_TILE]; /* a constant too much, which the maximum takes off again */
    uint8_t order[ATTN_MAX_ROWS]; /* rows as p lies; where fine rows need a pass more than others, these come first */
    uint8_t p[ATTN_MAX_ROWS][ATTN_TILE * 2]; /* high bytes and low bytes, or what P_pack makes */
    float worth[ATTN_MAX_ROWS];              /* in that order: of one unit of a sum over the tile */
    int32_t v_sum[C8_MAX_DIM];               /* over the tile, times DOT_LESS or P_BIAS where they want it */
    int8_t v_tail[ATTN_TILE / 4][LANES * 4]; /* the channels behind the last whole 16 */
    _Alignas(64) int8_t q[ATTN_MAX_ROWS * C8_MAX_DIM * 2]; /* (rows / C8_MR, pd / 4, row, 8) */
    _Alignas(64) float out[ATTN_MAX_ROWS * C8_MAX_DIM];    /* (rows, ld) */
#if PARTS >                                                                                                            \
    1 /* a tile of many rows, its parts made once: (pd / 4, part, ATTN_TILE * 4) and (ATTN_TILE / 4, part, ld * 4) */
    _Alignas(64) uint8_t wide_k[PARTS * ATTN_TILE * C8_MAX_DIM], wide_v[PARTS * ATTN_TILE * C8_MAX_DIM];
#endif
};

/* Channels [i, i + VL) of x, zero beyond d. */
ALWAYS_INLINE V c8_load(const float *x, int i, int d)
{
    float tail[VL] = {0};
    if (i + VL <= d)
        return V_load(x + i);
    for (int c = 0; i + c < d; c++)
        tail[c] = x[i + c];
    return V_load(tail);
}

/* c8_quant_q, as the dots want it. */
static void c8_query(struct c8_rows *s, const struct attn_args *a, int r)
{
    const float *q = a->q + (size_t)(r / a->group) * a->ldq + (size_t)(r % a->group) * (size_t)a->d;
    int first = r / C8_MR * C8_MR, mr = s->rows - first < C8_MR ? s->rows - first : C8_MR, pd = c8_padded_dim(a->d);
    int8_t *to = s->q + ((size_t)first * (size_t)pd / 4 + (size_t)(r - first)) * 8;
    int32_t q16[C8_MAX_DIM + VL];
    float scaled[C8_MAX_DIM + VL], lane[VL], greatest = 0;
    V most = V_broadcast(0);
    for (int i = 0; i < pd; i += VL) {
        V x = c8_load(q, i, a->d) * c8_load(a->c8->k_scale, i, a->d);
        V_store(scaled + i, x);
        most = V_max(V_abs(x), most);
    }
    V_store(lane, most);
    for (int i = 0; i < VL; i++)
        greatest = lane[i] > greatest ? lane[i] : greatest;
    int limit = (int)(INT32_MAX / (255 * a->d)), q_max = limit < Q_MAX ? limit : Q_MAX;
    float unit = greatest / (float)q_max;
    unit = unit > 0 ? unit : 1.0f;
    struct V_divisor by = V_divisor_of(unit);
    for (int i = 0; i < pd; i += VL) {
        V x = V_divide(&by, V_load(scaled + i));
        x = V_min(V_max(x, V_broadcast((float)-q_max)), V_broadcast((float)q_max));
        I_store(q16 + i, I_rint(x));
    }
    for (int i = 0; i < pd; i += 4, to += mr * 8)
        Q_pack(to, q16 + i);
    s->unit[r] = unit * (a->scale * 0x1.715476p+0f);
}

/* What row r comes to: its sums over its mass, V's offset off, times V's scale. */
static void c8_finish(const struct c8_rows *s, const struct attn_args *a, int r)
{
    float *out = a->out + (size_t)(r / a->group) * a->ldout + (size_t)(r % a->group) * (size_t)a->d;
    const float *sums = s->out + (size_t)r * (size_t)s->ld, *offset = a->c8->v_offset, *scale = a->c8->v_scale;
    float inv = 1.0f / s->mass[r];
    int i = 0;
    for (; i + VL <= a->d; i += VL)
        V_store(out + i, (V_load(sums + i) * V_broadcast(inv) - V_load(offset + i)) * V_load(scale + i));
    for (; i < a->d; i++)
        out[i] = (sums[i] * inv - offset[i]) * scale[i];
}

/* Read once, so it need not stay. */
ALWAYS_INLINE void c8_fetch(const void *p, int bytes)
{
    for (int i = 0; i < bytes; i += 64)
        __builtin_prefetch((const uint8_t *)p + i, 0, 0);
}

/* Dots of mr rows with a tile, or with its parts (wide). ahead: bytes from here to the K that is fetched meanwhile, or
 * 0. */
ALWAYS_INLINE void c8_dots(int mr, bool wide, struct c8_rows *s, int r0, const uint8_t *k_tile, int pd, ptrdiff_t ahead)
{
    const int row = 4 * ATTN_TILE, step = row * (wide ? PARTS : 1);
    const int nk = LV * TIMES(mr);
    for (int t = 0; t < ATTN_TILE; t += nk * VL) {
        I acc[C8_MR][Q_PLANES][2 * LV];
        const uint8_t *k = k_tile + t * 4;
        const int8_t *q = s->q + (size_t)r0 * (size_t)pd * 2;
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int plane = 0; plane < Q_PLANES; plane++) {
                UNROLL
                for (int v = 0; v < nk; v++)
                    acc[r][plane][v] = (I){0};
            }
        }
        NO_UNROLL
        for (int i = 0; i < pd; i += 4, k += step, q += mr * 8) {
            if (ahead)
                c8_fetch(k + ahead, nk * VL * 4);
            UNROLL
            for (int part = 0; part < PARTS; part++) {
                I kv[2 * LV];
                UNROLL
                for (int v = 0; v < nk; v++)
                    kv[v] = wide ? I_load(k + part * row + v * VL * 4) : U_of(I_load(k + v * VL * 4), part);
                UNROLL
                for (int r = 0; r < mr; r++) {
                    UNROLL
                    for (int plane = 0; plane < Q_PLANES; plane++) {
                        I qv = I_broadcast4(q + r * 8 + (part + plane) * 4);
                        UNROLL
                        for (int v = 0; v < nk; v++)
                            DOT(acc[r][plane][v], kv[v], qv);
                    }
                }
                AFTER_PART();
            }
        }
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int v = 0; v < nk; v++) {
                N dot = (N)acc[r][0][v];
                if (Q_PLANES == 2)
                    dot = (dot << 8) + (N)acc[r][Q_PLANES - 1][v];
                I_store(s->dot[r0 + r] + t + v * VL, (I)dot);
            }
        }
    }
}

/* All ones for keys t, t + 1, .. that row r sees. */
ALWAYS_INLINE I c8_seen(const struct c8_rows *s, int r, int t)
{
    I key;
    for (int i = 0; i < VL; i++)
        key[i] = t + i;
    return (I)(key >= s->lo[r]) & (I)(key < s->hi[r]);
}

/* The greatest dot of row r among the keys it sees; full: all of them. */
ALWAYS_INLINE void c8_tile_max(struct c8_rows *s, int r, bool full)
{
    I most = I_broadcast(INT32_MIN);
    for (int t = 0; t < ATTN_TILE; t += VL) {
        I dot = I_load(s->dot[r] + t);
        if (!full)
            dot = I_select(c8_seen(s, r, t), dot, I_broadcast(INT32_MIN));
        most = I_select((I)(dot > most), dot, most);
    }
    s->tile_max[r] = I_max_across(most);
}

/* What joins this tile to the ones before, for rows [begin, end). */
static void c8_join(struct c8_rows *s, int begin, int end)
{
    for (int r = begin; r < end; r += VL) { /* rows behind end come out as they were */
        I tile = I_load(s->tile_max + r), before = I_load(s->max + r), mine;
        for (int i = 0; i < VL; i++)
            mine[i] = r + i < end ? -1 : 0;
        V unit = V_load(s->unit + r), mass = V_load(s->mass + r);
        I first = (I)(mass == V_broadcast(0)), now = I_select(first | (I)(tile > before), tile, before);
        V weight = V_exp2(V_from_int(tile - now) * unit);
        V correction = V_select(first, V_broadcast(0), V_exp2(V_from_int(before - now) * unit));
        V rest = V_load(s->rest + r) * correction;
        I_store(s->fine + r, (I)(rest < weight * V_load(s->large + r)));
        V_store(s->weight + r, weight);
        V_store(s->correction + r, correction);
        I_store(s->max + r, I_select(mine, now, before));
        V_store(s->mass + r, V_select(mine, mass * correction, mass));
        V_store(s->rest + r, V_select(mine, rest, V_load(s->rest + r)));
    }
}

/* The p of row r, zero for keys it does not see, to a place in the order; and what they add to its mass. full: it sees
 * them all. The magic numbers of V_exp2 and I_rint stay in until the end: one exponent is 1 too large, and of 16 bits
 * the magic is 0. */
ALWAYS_INLINE void c8_probabilities(struct c8_rows *s, int r, int place, bool fine, bool full)
{
    const int32_t magic = 0x4b400000;
    V unit = V_broadcast(s->unit[r]), half = V_broadcast(fine ? P_FINE / 2 : P_COARSE / 2.0f);
    uint8_t *to = s->p[place];
    N sum = {0}; /* wraps */
    UNROLL
    for (int t = 0; t < ATTN_TILE; t += LANES) {
        I p[LV];
        UNROLL
        for (int v = 0; v < LV; v++) {
            I below = I_load(s->dot[r] + t + v * VL) - s->tile_max[r];
            I seen = full ? I_broadcast(-1) : c8_seen(s, r, t + v * VL);
            V e = V_exp2_twice(V_from_int(below & seen) * unit) * half;
            p[v] = (I)(e + V_broadcast(0x1.8p23f));
            if (!full)
                p[v] = I_select(seen, p[v], I_broadcast(magic));
            sum += (N)p[v];
        }
#if P_PLANES == 1
        UNROLL
        for (int v = 0; v < LV && fine; v++)
            p[v] ^= P_BIAS;
        P_pack(to + t * 2, p);
#else
        I hi[LV];
        for (int v = 0; v < LV; v++)
            hi[v] = fine ? p[v] >> 8 : p[v];
        low_bytes(to + t, hi);
        if (fine)
            low_bytes(to + ATTN_TILE + t, p);
#endif
    }
    s->order[place] = (uint8_t)r;
    s->worth[place] = s->weight[r] * (fine ? 1.0f : 256.0f); /* exact, wherever it is multiplied */
    int32_t p_sum = I_sum_across((I)(sum - (uint32_t)magic * (ATTN_TILE / VL))) * (fine ? 1 : 256);
    s->mass[r] = fmaf((float)p_sum, s->weight[r], s->mass[r]);
    s->rest[r] = fmaf((float)(p_sum - P_FINE), s->weight[r], s->rest[r]);
}

/* What one pass over V for some rows does besides. */
enum c8_sums {
    SUMS_NONE,
    SUMS_THERE, /* fine rows want sums of V, which are in v_sum */
    SUMS_ALSO,  /* and which this pass makes, so that few rows need no pass more */
};

/* Adds p of mr rows, and sums, times nv vectors of channels of v, whose fours of keys, or each part of them, are ldv
 * bytes apart. fetch: what is fetched meanwhile, as much as is read, or NULL. */
ALWAYS_INLINE void c8_pass(int mr, int nv, bool wide, I (*acc)[2 * C8_NV * LV], I *sum, enum c8_sums sums,
                           const uint8_t *p, const int8_t *v, size_t ldv, const int8_t *fetch)
{
    const int four = P_PLANES == 1 ? 8 : 4; /* bytes of p */
    NO_UNROLL
    for (const uint8_t *end = p + ATTN_TILE / 4 * four; p < end; p += four, v += wide ? 0 : ldv) {
        if (fetch) {
            c8_fetch(fetch, nv * VL * 4);
            fetch += nv * VL * 4;
        }
        UNROLL
        for (int part = 0; part < PARTS; part++, v += wide ? ldv : 0) {
            I vv[2 * C8_NV * LV];
            UNROLL
            for (int u = 0; u < nv; u++)
                vv[u] = wide ? I_load(v + u * VL * 4) : S_of(I_load(v + u * VL * 4), part);
            UNROLL
            for (int r = 0; r < mr; r++) {
                I pv = I_broadcast4(p + r * ATTN_TILE * 2 + part * 4);
                if (P_PLANES == 2)
                    pv = U_of(pv, part);
                UNROLL
                for (int u = 0; u < nv; u++)
                    DOT(acc[r][u], pv, vv[u]);
            }
            UNROLL
            for (int u = 0; sums == SUMS_ALSO && u < nv; u++)
                DOT(sum[u], I_broadcast(0x00010001), vv[u]);
            AFTER_PART();
        }
    }
}

/* Joins nv vectors of channels from i on to mr rows from a place in the order on. fine, where that takes two passes:
 * all of them are. */
ALWAYS_INLINE void c8_values(int mr, int nv, bool wide, struct c8_rows *s, int place, bool fine, enum c8_sums sums,
                             const int8_t *v, size_t ldv, int i, const int8_t *fetch)
{
    I acc[C8_MR][2 * C8_NV * LV], sum[2 * C8_NV * LV];
    UNROLL
    for (int u = 0; u < nv; u++)
        sum[u] = DOT_LESS ? I_load(s->v_sum + i + u * VL) : (I){0};
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            acc[r][u] = sum[u];
    }
    c8_pass(mr, nv, wide, acc, sum, sums, s->p[place], v, ldv, fetch);
    if (fine && P_PLANES == 2) {
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int u = 0; u < nv; u++)
                acc[r][u] = (acc[r][u] << 8) + sum[u];
        }
        c8_pass(mr, nv, wide, acc, sum, SUMS_NONE, s->p[place] + ATTN_TILE, v, ldv, NULL);
    }
    UNROLL
    for (int u = 0; u < nv; u++)
        if (sums == SUMS_ALSO)
            sum[u] *= P_BIAS;
    float *out = s->out + (size_t)place * (size_t)s->ld + i;
    UNROLL
    for (int r = 0; r < mr; r++, out += s->ld) {
        int row = place + r;
        if (P_PLANES == 2) {
            row = s->order[place + r];
            out = s->out + (size_t)row * (size_t)s->ld + i;
        }
        V worth = V_broadcast(s->worth[place + r]), correction = V_broadcast(s->correction[row]);
        I mine = I_broadcast(s->fine[row]);
        UNROLL
        for (int u = 0; u < nv; u++) {
            if (sums != SUMS_NONE)
                acc[r][u] += (sums == SUMS_ALSO ? sum[u] : I_load(s->v_sum + i + u * VL)) & mine;
            V_store(out + u * VL, V_fma(V_from_int(acc[r][u]), worth, V_load(out + u * VL) * correction));
        }
    }
}

/* d channels of mr rows. */
ALWAYS_INLINE void c8_channels(int mr, struct c8_rows *s, int place, bool fine, enum c8_sums sums, const int8_t *v,
                               int d, const int8_t *fetch)
{
    const int nv = C8_NV * LV * TIMES(mr);
    int i = 0;
    for (; i + nv * VL <= d; i += nv * VL)
        c8_values(mr, nv, false, s, place, fine, sums, v + i * 4, (size_t)d * 4, i,
                  fetch ? fetch + i * ATTN_TILE : NULL);
    for (; i + LANES <= d; i += LANES)
        c8_values(mr, LV, false, s, place, fine, sums, v + i * 4, (size_t)d * 4, i,
                  fetch ? fetch + i * ATTN_TILE : NULL);
    if (i < d)
        c8_values(mr, LV, false, s, place, fine, sums, s->v_tail[0], sizeof(s->v_tail[0]), i, NULL);
}

ALWAYS_INLINE void c8_some(int mr, struct c8_rows *s, int place, bool fine, enum c8_sums sums, const int8_t *v, int d,
                           const int8_t *fetch)
{
    if (P_PLANES == 2 || sums == SUMS_NONE)
        c8_channels(mr, s, place, fine, SUMS_NONE, v, d, fetch);
    else if (mr < C8_MR && sums == SUMS_ALSO)
        c8_channels(mr, s, place, fine, SUMS_ALSO, v, d, fetch);
    else
        c8_channels(mr, s, place, fine, SUMS_THERE, v, d, fetch);
}

#define C8_ROWS(mr)                                                                                                    \
    static __attribute__((noinline)) void c8_dots_##mr(struct c8_rows *s, int r0, const uint8_t *k, int pd,            \
                                                       ptrdiff_t ahead)                                                \
    {                                                                                                                  \
        if (ahead)                                                                                                     \
            c8_dots(mr, false, s, r0, k, pd, ahead);                                                                   \
        else                                                                                                           \
            c8_dots(mr, false, s, r0, k, pd, 0);                                                                       \
    }                                                                                                                  \
    static __attribute__((noinline)) void c8_values_##mr(struct c8_rows *s, int place, bool fine, enum c8_sums sums,   \
                                                         const int8_t *v, int d, const int8_t *fetch)                  \
    {                                                                                                                  \
        if (fetch)                                                                                                     \
            c8_some(mr, s, place, fine, sums, v, d, fetch);                                                            \
        else                                                                                                           \
            c8_some(mr, s, place, fine, sums, v, d, NULL);                                                             \
    }
C8_ROWS(1)
C8_ROWS(2)
C8_ROWS(3)
#if C8_MR == 6
C8_ROWS(4)
C8_ROWS(5)
C8_ROWS(6)
#define C8_OF(name)                                                                                                    \
    {                                                                                                                  \
        NULL, name##1, name##2, name##3, name##4, name##5, name##6                                                     \
    }
#else
#define C8_OF(name)                                                                                                    \
    {                                                                                                                  \
        NULL, name##1, name##2, name##3                                                                                \
    }
#endif
typedef void c8_dots_fn(struct c8_rows *, int, const uint8_t *, int, ptrdiff_t);
typedef void c8_values_fn(struct c8_rows *, int, bool, enum c8_sums, const int8_t *, int, const int8_t *);
static c8_dots_fn *const c8_dots_of[C8_MR + 1] = C8_OF(c8_dots_);
static c8_values_fn *const c8_values_of[C8_MR + 1] = C8_OF(c8_values_);

#if PARTS > 1
/* The same for a tile whose parts are made. */
static __attribute__((noinline)) void c8_dots_wide(struct c8_rows *s, int r0, int pd)
{
    c8_dots(C8_MR, true, s, r0, s->wide_k, pd, 0);
}

static __attribute__((noinline)) void c8_values_wide(struct c8_rows *s, int place, enum c8_sums sums)
{
    for (int i = 0; i < s->ld; i += LANES)
        if (sums == SUMS_NONE)
            c8_values(C8_MR, LV, true, s, place, false, SUMS_NONE, (int8_t *)s->wide_v + i * 4, (size_t)s->ld * 4, i,
                      0);
        else
            c8_values(C8_MR, LV, true, s, place, false, SUMS_THERE, (int8_t *)s->wide_v + i * 4, (size_t)s->ld * 4, i,
                      0);
}

static void c8_widen_keys(struct c8_rows *s, const uint8_t *k, int pd)
{
    for (int i = 0; i < pd; i += 4)
        for (int t = 0; t < ATTN_TILE; t += VL)
            for (int part = 0; part < PARTS; part++)
                I_store(s->wide_k + ((i / 4 * PARTS + part) * ATTN_TILE + t) * 4,
                        U_of(I_load(k + (i * ATTN_TILE + t * 4)), part));
}
#endif

/* Keys t to t + 3 of channels from i on, zero beyond the last. */
ALWAYS_INLINE I c8_value_four(const struct c8_rows *s, const int8_t *v, int d, int t, int i)
{
    int whole = d / LANES * LANES;
    return I_load(i < whole ? v + (t * d + i * 4) : s->v_tail[t / 4] + (i - whole) * 4);
}

/* What all rows want of a tile of V: its last channels in whole vectors; and if anyone does its sums, and its parts. */
static void c8_prepare_values(struct c8_rows *s, const int8_t *v, int d, bool sums, bool wide)
{
    static const uint8_t one[4] = {DOT_LESS + 1, DOT_LESS + 1, DOT_LESS + 1, DOT_LESS + 1};
    int whole = d / LANES * LANES;
    for (int t = 0; whole < d && t < ATTN_TILE / 4; t++)
        memcpy(s->v_tail[t], v + ((size_t)t * (size_t)d + (size_t)whole) * 4, (size_t)(d - whole) * 4);
    for (int i = 0; sums && i < s->ld; i += VL) {
        I acc = {0};
        for (int t = 0; t < ATTN_TILE; t += 4)
            for (int part = 0; part < PARTS; part++)
                DOT(acc, U_of(I_broadcast4(one), part), S_of(c8_value_four(s, v, d, t, i), part));
        I_store(s->v_sum + i, acc * (DOT_LESS ? DOT_LESS : P_BIAS));
    }
#if PARTS > 1
    for (int t = 0; wide && t < ATTN_TILE; t += 4)
        for (int i = 0; i < s->ld; i += VL)
            for (int part = 0; part < PARTS; part++)
                I_store(s->wide_v + ((t / 4 * PARTS + part) * s->ld + i) * 4, S_of(c8_value_four(s, v, d, t, i), part));
#else
    (void)wide;
#endif
}

/* K and V of the tile at t0. */
ALWAYS_INLINE void c8_tile_at(const struct attn_args *a, int64_t t0, const uint8_t *ret_kv[2])
{
    size_t block = attn_block(a, t0), at = (size_t)(t0 % a->block_size);
    ret_kv[0] = a->k + block + at * (size_t)c8_padded_dim(a->d);
    ret_kv[1] = a->v + block + at * (size_t)a->d;
}

/* Probabilities of rows [begin, end). Returns the place in the order where those begin that need two passes. */
static int c8_order(struct c8_rows *s, int begin, int end, bool full)
{
    int fine = end, coarse = begin;
    for (int r = begin; r < end; r++)
        fine -= P_PLANES == 2 && s->fine[r];
    int first_fine = fine;
    for (int r = begin; r < end; r++) {
        int place = P_PLANES == 2 && s->fine[r] ? fine++ : coarse++;
        if (full && s->fine[r])
            c8_probabilities(s, r, place, true, true);
        else if (full)
            c8_probabilities(s, r, place, false, true);
        else if (s->fine[r])
            c8_probabilities(s, r, place, true, false);
        else
            c8_probabilities(s, r, place, false, false);
    }
    return first_fine;
}

/* What rows [begin, end) see of the tile at t0, and the greatest dot of each. Returns whether all see all of it. */
static bool c8_look(struct c8_rows *s, const struct attn_args *a, int64_t t0, int begin, int end)
{
    int first = begin / a->group, last = (end - 1) / a->group; /* tokens: who comes later begins and ends later */
    if (attn_begin(a, last) <= t0 && attn_end(a, first) >= t0 + ATTN_TILE) {
        for (int r = begin; r < end; r++)
            c8_tile_max(s, r, true);
        for (int t = first, r = begin; t <= last; t++) {
            float large = c8_large(t0 - attn_begin(a, t), a->d);
            for (; r < (t + 1) * a->group; r++)
                s->large[r] = large;
        }
        return true;
    }
    for (int r = begin; r < end; r++) {
        int64_t lo = attn_begin(a, r / a->group) - t0, hi = attn_end(a, r / a->group) - t0;
        s->lo[r] = lo > 0 ? (int)lo : 0;
        s->hi[r] = hi < ATTN_TILE ? (int)hi : ATTN_TILE;
        s->large[r] = c8_large(lo < 0 ? -lo : 0, a->d);
        c8_tile_max(s, r, false);
    }
    return false;
}

/* Rows [begin, end) see some of the tile at t0. The first of them fetch that at t_ahead. */
static void c8_tile(struct c8_rows *s, const struct attn_args *a, int64_t t0, int begin, int end, int64_t t_ahead)
{
    int pd = c8_padded_dim(a->d), first = begin / C8_MR * C8_MR;
    bool wide = PARTS > 1 && end - first >= 2 * C8_MR;
    const uint8_t *kv[2], *next[2];
    c8_tile_at(a, t0, kv);
    c8_tile_at(a, t_ahead, next);
    const int8_t *v = (const int8_t *)kv[1];
#if PARTS > 1
    if (wide)
        c8_widen_keys(s, kv[0], pd);
#endif
    for (int r = first, mr; r < end; r += mr) {
        mr = s->rows - r < C8_MR ? s->rows - r : C8_MR;
#if PARTS > 1
        if (wide && mr == C8_MR) {
            c8_dots_wide(s, r, pd);
            continue;
        }
#endif
        c8_dots_of[mr](s, r, kv[0], pd, r == first ? next[0] - kv[0] : 0);
    }
    bool full = c8_look(s, a, t0, begin, end);
    c8_join(s, begin, end);
    int fine = c8_order(s, begin, end, full);
    enum c8_sums sums = SUMS_NONE;
    for (int r = begin; P_PLANES == 1 && r < end; r++)
        if (s->fine[r])
            sums = end - begin < C8_MR ? SUMS_ALSO : SUMS_THERE;
    c8_prepare_values(s, v, a->d, DOT_LESS || sums == SUMS_THERE, wide);
    for (int place = begin, mr; place < end; place += mr) {
        int left = (place < fine ? fine : end) - place;
        mr = left < C8_MR ? left : C8_MR;
#if PARTS > 1
        if (wide && mr == C8_MR) {
            c8_values_wide(s, place, sums);
            continue;
        }
#endif
        c8_values_of[mr](s, place, place >= fine, sums, v, a->d, place == begin ? (const int8_t *)next[1] : NULL);
    }
}

void KFN(attn_c8)(const struct attn_args *a)
{
    struct c8_rows s; /* large, but only what the call's rows and dimension need of it is touched */
    s.rows = a->tokens * a->group;
    s.ld = (a->d + LANES - 1) / LANES * LANES;
    for (int r = 0; r < s.rows; r++)
        c8_query(&s, a, r);
    memset(s.out, 0, (size_t)s.rows * (size_t)s.ld * sizeof(float));
    memset(s.mass, 0, sizeof(s.mass));
    memset(s.rest, 0, sizeof(s.rest));
    memset(s.max, 0, sizeof(s.max));
    memset(s.unit + s.rows, 0, sizeof(s.unit) - (size_t)s.rows * sizeof(float));
    memset(s.tile_max, 0, sizeof(s.tile_max));
    memset(s.large, 0, sizeof(s.large));
    memset(s.v_tail, 0, sizeof(s.v_tail));
    int64_t end = attn_end(a, a->tokens - 1);
    for (int64_t t0 = attn_begin(a, 0) / ATTN_TILE * ATTN_TILE; t0 < end; t0 += ATTN_TILE) {
        int from = 0, to = a->tokens; /* tokens that see any of the tile */
        while (attn_end(a, from) <= t0)
            from++;
        while (attn_begin(a, to - 1) >= t0 + ATTN_TILE)
            to--;
        c8_tile(&s, a, t0, from * a->group, to * a->group, t0 + ATTN_TILE < end ? t0 + ATTN_TILE : t0);
    }
    for (int r = 0; r < s.rows; r++)
        c8_finish(&s, a, r);
}
