/* C8 attention of one tier over dot products of four (simd/gemm_i8.h says what a tier defines for them). The tile of
 * keys is the outer loop and the query rows of the call the inner one, C8_MR at a time: each load of K and V serves
 * them all. A tier also defines Q_PLANES             accumulators that 16 bits of q need: 1, or 2 whose first counts
 * 256 times Q_pack(to, q)        four channels of q, (4) int32, to eight bytes Q_of(p, plane)       S of those eight
 * bytes C8_NV                16-lane groups of channels at once in p.V */
#include "kernel/simd/math.h"

/* Everything that a call remembers of its rows, (rows) each, padded so that vectors may run over the end. */
struct c8_rows {
    int rows, ld;                             /* ld: d in whole 16s */
    int lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS]; /* keys that it sees of the tile at work */
    float unit[ATTN_MAX_ROWS + 16], mass[ATTN_MAX_ROWS + 16], rest[ATTN_MAX_ROWS + 16], large[ATTN_MAX_ROWS + 16];
    float weight[ATTN_MAX_ROWS + 16], correction[ATTN_MAX_ROWS + 16];
    int32_t max[ATTN_MAX_ROWS + 16], tile_max[ATTN_MAX_ROWS + 16];
    int32_t fine[ATTN_MAX_ROWS + 16];      /* -1: two planes of p */
    int32_t dot[ATTN_MAX_ROWS][ATTN_TILE]; /* a constant too much, which the maximum takes off again */
    uint8_t order[ATTN_MAX_ROWS]; /* the rows that see the tile, those of one plane first; p is in this order */
    uint8_t p_hi[ATTN_MAX_ROWS][ATTN_TILE], p_lo[ATTN_MAX_ROWS][ATTN_TILE];
    int32_t v_sum[C8_MAX_DIM];                             /* over the tile; where DOT_LESS is not 0 */
    int8_t v_tail[ATTN_TILE / 4][LANES * 4];               /* the channels behind the last whole 16 */
    _Alignas(64) int8_t q[ATTN_MAX_ROWS * C8_MAX_DIM * 2]; /* (rows / C8_MR, pd / 4, row, 8) */
    _Alignas(64) float out[ATTN_MAX_ROWS * C8_MAX_DIM];    /* (rows, ld) */
};

static void c8_query(struct c8_rows *s, const struct attn_args *a, int r)
{
    const float *q = a->q + (size_t)(r / a->group) * a->ldq + (size_t)(r % a->group) * (size_t)a->d;
    int first = r / C8_MR * C8_MR, mr = s->rows - first < C8_MR ? s->rows - first : C8_MR;
    size_t pd = (size_t)c8_padded_dim(a->d);
    int8_t *to = s->q + ((size_t)first * pd / 4 + (size_t)(r - first)) * 8;
    int32_t q16[C8_MAX_DIM];
    s->unit[r] = c8_quant_q(q16, q, a->c8->k_scale, a->d, a->scale);
    for (size_t i = 0; i < pd; i += 4, to += mr * 8)
        Q_pack(to, q16 + i);
}

/* Dots of mr rows with a tile. */
ALWAYS_INLINE void c8_dots(int mr, struct c8_rows *s, int r0, const uint8_t *k_tile, int pd)
{
    for (int half = 0; half < ATTN_TILE; half += LANES) {
        I acc[C8_MR][Q_PLANES][LV];
        const uint8_t *k = k_tile + half * 4;
        const int8_t *q = s->q + (size_t)r0 * (size_t)pd * 2;
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
            for (int plane = 0; plane < Q_PLANES; plane++)
#pragma GCC unroll 8
                for (int v = 0; v < LV; v++)
                    acc[r][plane][v] = (I){0};
#pragma GCC unroll 1
        for (int i = 0; i < pd; i += 4, k += 4 * ATTN_TILE, q += mr * 8) {
            U kv[LV];
#pragma GCC unroll 8
            for (int v = 0; v < LV; v++)
                kv[v] = U_of(D_load(k + v * VL * 4));
#pragma GCC unroll 8
            for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
                for (int plane = 0; plane < Q_PLANES; plane++) {
                    S qv = Q_of(q + r * 8, plane);
#pragma GCC unroll 8
                    for (int v = 0; v < LV; v++)
                        DOT(acc[r][plane][v], kv[v], qv);
                }
        }
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 8
            for (int v = 0; v < LV; v++) {
                N dot = (N)acc[r][0][v];
                if (Q_PLANES == 2)
                    dot = (dot << 8) + (N)acc[r][Q_PLANES - 1][v];
                I_store(s->dot[r0 + r] + half + v * VL, (I)dot);
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

/* The greatest dot of row r among the keys it sees. */
ALWAYS_INLINE void c8_tile_max(struct c8_rows *s, int r)
{
    I most = I_broadcast(INT32_MIN);
    for (int t = 0; t < ATTN_TILE; t += VL) {
        I dot = I_select(c8_seen(s, r, t), I_load(s->dot[r] + t), I_broadcast(INT32_MIN));
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

/* The planes of p of row r, zero for keys it does not see, to a place in the order; and what they add to its mass. */
ALWAYS_INLINE void c8_probabilities(struct c8_rows *s, int r, int place, bool fine)
{
    V unit = V_broadcast(s->unit[r]), of = V_broadcast(fine ? P_FINE : P_COARSE);
    I sum = {0};
    for (int t = 0; t < ATTN_TILE; t += LANES) {
        I hi[LV], lo[LV];
        for (int v = 0; v < LV; v++) {
            I seen = c8_seen(s, r, t + v * VL);
            I below = (I_load(s->dot[r] + t + v * VL) - s->tile_max[r]) & seen;
            lo[v] = I_rint(V_exp2(V_from_int(below) * unit) * of) & seen;
            hi[v] = fine ? lo[v] >> 8 : lo[v];
            sum += lo[v];
        }
        low_bytes(s->p_hi[place] + t, hi);
        if (fine)
            low_bytes(s->p_lo[place] + t, lo);
    }
    s->order[place] = (uint8_t)r;
    int32_t p_sum = I_sum_across(sum) * (fine ? 1 : 256);
    s->mass[r] = fmaf((float)p_sum, s->weight[r], s->mass[r]);
    s->rest[r] = fmaf((float)(p_sum - P_FINE), s->weight[r], s->rest[r]);
}

/* Adds p (mr, ATTN_TILE) times nv vectors of channels of v, whose fours of keys are ldv bytes apart. */
ALWAYS_INLINE void c8_plane(int mr, int nv, I (*acc)[C8_NV * LV], const uint8_t *p, const int8_t *v, size_t ldv,
                            const int32_t *v_sum)
{
#if DOT_LESS
#pragma GCC unroll 8
    for (int u = 0; u < nv; u++)
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++)
            acc[r][u] += I_load(v_sum + u * VL) * DOT_LESS;
#else
    (void)v_sum;
#endif
#pragma GCC unroll 1
    for (const uint8_t *end = p + ATTN_TILE; p < end; p += 4, v += ldv) {
        U pv[C8_MR];
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++)
            pv[r] = U_of(D_broadcast(p + r * ATTN_TILE));
#pragma GCC unroll 8
        for (int u = 0; u < nv; u++) {
            S vv = S_of(D_load(v + u * VL * 4));
#pragma GCC unroll 8
            for (int r = 0; r < mr; r++)
                DOT(acc[r][u], pv[r], vv);
        }
    }
}

/* Joins nv vectors of channels from i on to mr rows from a place in the order on, all fine or none. */
ALWAYS_INLINE void c8_values(int mr, int nv, struct c8_rows *s, int place, bool fine, const int8_t *v, size_t ldv,
                             int i)
{
    I acc[C8_MR][C8_NV * LV];
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 8
        for (int u = 0; u < nv; u++)
            acc[r][u] = (I){0};
    c8_plane(mr, nv, acc, s->p_hi[place], v, ldv, s->v_sum + i);
    if (fine) {
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 8
            for (int u = 0; u < nv; u++)
                acc[r][u] <<= 8;
        c8_plane(mr, nv, acc, s->p_lo[place], v, ldv, s->v_sum + i);
    }
    float worth = fine ? 1.0f : 256.0f; /* of one unit of acc; exact, wherever it is multiplied */
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++) {
        size_t row = s->order[place + r];
        V weight = V_broadcast(s->weight[row] * worth), correction = V_broadcast(s->correction[row]);
        float *out = s->out + row * (size_t)s->ld + i;
#pragma GCC unroll 8
        for (int u = 0; u < nv; u++)
            V_store(out + u * VL, V_fma(V_from_int(acc[r][u]), weight, V_load(out + u * VL) * correction));
    }
}

#define C8_ROWS(mr)                                                                                                    \
    static __attribute__((noinline)) void c8_dots_##mr(struct c8_rows *s, int r0, const uint8_t *k, int pd)            \
    {                                                                                                                  \
        c8_dots(mr, s, r0, k, pd);                                                                                     \
    }                                                                                                                  \
    static                                                                                                             \
        __attribute__((noinline)) void c8_values_##mr(struct c8_rows *s, int place, bool fine, const int8_t *v, int d) \
    {                                                                                                                  \
        int i = 0;                                                                                                     \
        for (; i + LANES * C8_NV <= d; i += LANES * C8_NV)                                                             \
            c8_values(mr, C8_NV *LV, s, place, fine, v + i * 4, (size_t)d * 4, i);                                     \
        for (; i + LANES <= d; i += LANES)                                                                             \
            c8_values(mr, LV, s, place, fine, v + i * 4, (size_t)d * 4, i);                                            \
        if (i < d)                                                                                                     \
            c8_values(mr, LV, s, place, fine, s->v_tail[0], sizeof(s->v_tail[0]), i);                                  \
    }
C8_ROWS(1)
C8_ROWS(2)
C8_ROWS(3)
typedef void c8_dots_fn(struct c8_rows *, int, const uint8_t *, int);
typedef void c8_values_fn(struct c8_rows *, int, bool, const int8_t *, int);
static c8_dots_fn *const c8_dots_of[C8_MR + 1] = {NULL, c8_dots_1, c8_dots_2, c8_dots_3};
static c8_values_fn *const c8_values_of[C8_MR + 1] = {NULL, c8_values_1, c8_values_2, c8_values_3};

/* What all rows want of a tile of V: its last channels in whole vectors, and its sums. */
static void c8_prepare_values(struct c8_rows *s, const int8_t *v, int d)
{
    int whole = d / LANES * LANES;
    for (int t = 0; whole < d && t < ATTN_TILE / 4; t++)
        memcpy(s->v_tail[t], v + ((size_t)t * (size_t)d + (size_t)whole) * 4, (size_t)(d - whole) * 4);
#if DOT_LESS
    static const uint8_t one[4] = {DOT_LESS + 1, DOT_LESS + 1, DOT_LESS + 1, DOT_LESS + 1};
    U ones = U_of(D_broadcast(one));
    for (int i = 0; i < s->ld; i += VL) {
        bool tail = i >= whole;
        I acc = {0};
        for (int t = 0; t < ATTN_TILE / 4; t++) {
            S vv = S_of(D_load(tail ? s->v_tail[t] + (i - whole) * 4 : v + ((size_t)t * (size_t)d + (size_t)i) * 4));
            DOT(acc, ones, vv);
        }
        I_store(s->v_sum + i, acc);
    }
#endif
}

/* Rows [begin, end) see some of the tile at t0. */
static void c8_tile(struct c8_rows *s, const struct attn_args *a, int64_t t0, int begin, int end)
{
    int pd = c8_padded_dim(a->d), first = begin / C8_MR * C8_MR;
    size_t block = attn_block(a, t0), at = (size_t)(t0 % a->block_size);
    const uint8_t *k = a->k + block + at * (size_t)pd;
    const int8_t *v = (const int8_t *)a->v + block + at * (size_t)a->d;
    for (int r = first, mr; r < end; r += mr) {
        mr = s->rows - r < C8_MR ? s->rows - r : C8_MR;
        c8_dots_of[mr](s, r, k, pd);
    }
    for (int r = begin; r < end; r++) {
        int64_t lo = attn_begin(a, r / a->group) - t0, hi = attn_end(a, r / a->group) - t0;
        s->lo[r] = lo > 0 ? (int)lo : 0;
        s->hi[r] = hi < ATTN_TILE ? (int)hi : ATTN_TILE;
        s->large[r] = c8_large(lo < 0 ? -lo : 0, a->d);
        c8_tile_max(s, r);
    }
    c8_join(s, begin, end);
    int num_coarse = 0, coarse = 0;
    for (int r = begin; r < end; r++)
        num_coarse += !s->fine[r];
    for (int r = begin, fine = num_coarse; r < end; r++)
        if (s->fine[r])
            c8_probabilities(s, r, fine++, true);
        else
            c8_probabilities(s, r, coarse++, false);
    c8_prepare_values(s, v, a->d);
    for (int place = 0, mr; place < end - begin; place += mr) {
        int left = (place < num_coarse ? num_coarse : end - begin) - place;
        mr = left < C8_MR ? left : C8_MR;
        c8_values_of[mr](s, place, place >= num_coarse, v, a->d);
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
        c8_tile(&s, a, t0, from * a->group, to * a->group);
    }
    for (int r = 0; r < s.rows; r++) {
        float *out = a->out + (size_t)(r / a->group) * a->ldout + (size_t)(r % a->group) * (size_t)a->d;
        const float *sums = s.out + (size_t)r * (size_t)s.ld;
        float inv = 1.0f / s.mass[r];
        for (int i = 0; i < a->d; i++)
            out[i] = (sums[i] * inv - a->c8->v_offset[i]) * a->c8->v_scale[i];
    }
}
