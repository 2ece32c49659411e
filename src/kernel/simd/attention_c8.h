/* C8 attention of one tier over dot products of four (simd/gemm_i8.h says what a tier defines for them). The tile of
 * keys is the outer loop and the query rows of the call the inner one, C8_MR at a time: each load of K and V serves
 * them all. A tier also defines
 *     Q_PLANES            accumulators that 16 bits of q need: 1, or 2 whose first counts 256 times
 *     Q_pack(to, q)       four channels of q, (4) int32, to eight bytes: four for each part or plane
 *     P_pack(to, p)       16 lanes of bytes, as they go into dots: four bytes for each four and part
 *     C8_NV               16-lane groups of channels at once in p.V */
#include "kernel/simd/fetch.h"

/* A compiler that kept the bytes from part to part would lack the registers. */
#if PARTS > 1
#define AFTER_PART() __asm__ volatile("" ::: "memory")
#else
#define AFTER_PART() ((void)0)
#endif

/* Few rows leave registers for twice as many keys, or channels. */
#define TIMES(mr) ((mr) <= C8_MR / 2 ? 2 : 1)

/* Everything that a call remembers of its rows, (rows) each, padded so that vectors may run over the end. */
struct c8_rows {
    int rows, ld;                             /* ld: d in whole 16s */
    int lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS]; /* keys that it sees of the tile at work */
    float unit[ATTN_MAX_ROWS + 16], mass[ATTN_MAX_ROWS + 16], others[ATTN_MAX_ROWS + 16], large[ATTN_MAX_ROWS + 16];
    float weight[ATTN_MAX_ROWS + 16], correction[ATTN_MAX_ROWS + 16];
    int32_t max[ATTN_MAX_ROWS + 16], tile_max[ATTN_MAX_ROWS + 16], p_sum[ATTN_MAX_ROWS + 16];
    int32_t fine[ATTN_MAX_ROWS + 16];      /* -1: it has a low plane */
    bool low[ATTN_MAX_ROWS];               /* it has had one */
    int32_t dot[ATTN_MAX_ROWS][ATTN_TILE]; /* a constant too much, which the maximum takes off again */
    uint8_t p[ATTN_MAX_ROWS][ATTN_TILE * PARTS], p_low[ATTN_MAX_ROWS][ATTN_TILE * PARTS];
    uint8_t low_row[ATTN_MAX_ROWS];                        /* whose low planes these are */
    int32_t v_sum[C8_MAX_DIM];                             /* over the tile, times DOT_LESS */
    int8_t v_tail[ATTN_TILE / 4][LANES * 4];               /* the channels behind the last whole 16 */
    _Alignas(64) int8_t q[ATTN_MAX_ROWS * C8_MAX_DIM * 2]; /* (rows / C8_MR, pd / 4, row, 8) */
    _Alignas(64) float out[ATTN_MAX_ROWS * C8_MAX_DIM], out_low[ATTN_MAX_ROWS * C8_MAX_DIM]; /* (rows, ld) */
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
    const float *sums = s->out + (size_t)r * (size_t)s->ld, *low = s->out_low + (size_t)r * (size_t)s->ld;
    const float *offset = a->c8->v_offset, *scale = a->c8->v_scale;
    float inv = 1.0f / s->mass[r];
    int i = 0;
    for (; i + VL <= a->d; i += VL) {
        V sum = V_load(sums + i) + V_load(low + i) + V_broadcast(0);
        V_store(out + i, (sum * V_broadcast(inv) - V_load(offset + i)) * V_load(scale + i));
    }
    for (; i < a->d; i++)
        out[i] = ((sums[i] + low[i] + 0.0f) * inv - offset[i]) * scale[i];
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
                fetch_once(k + ahead, nk * VL * 4);
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

/* 8 or 16 bits of p of VL keys of row r from t on, zero where it does not see them. full: it sees them all. The magic
 * numbers of V_exp2 and I_rint stay in for the caller to take off, MAGIC: one exponent is 1 too large. */
#define MAGIC 0x4b400000
ALWAYS_INLINE I c8_probability(const struct c8_rows *s, int r, int t, bool fine, bool full)
{
    I seen = full ? I_broadcast(-1) : c8_seen(s, r, t);
    V x = V_from_int((I_load(s->dot[r] + t) - s->tile_max[r]) & seen) * V_broadcast(s->unit[r]);
    V e = V_exp2_255(x);
    if (fine)
        e = V_exp2_twice(x) * V_broadcast(P_FINE / 2);
    I p = (I)(e + V_broadcast(0x1.8p23f));
    return full ? p : I_select(seen, p, I_broadcast(MAGIC));
}

/* The high plane of row r as if it were not fine. */
ALWAYS_INLINE void c8_coarse(struct c8_rows *s, int r, bool full)
{
    N sum = {0}; /* wraps */
    UNROLL
    for (int t = 0; t < ATTN_TILE; t += LANES) {
        I p[LV];
        UNROLL
        for (int v = 0; v < LV; v++) {
            p[v] = c8_probability(s, r, t + v * VL, false, full);
            sum += (N)p[v];
        }
        P_pack(s->p[r] + t * PARTS, p);
    }
    s->p_sum[r] = I_sum_across((I)(sum - (uint32_t)MAGIC * (ATTN_TILE / VL))) * 256;
}

/* Both planes of row r, the low one to a place of its own. */
ALWAYS_INLINE void c8_fine_row(struct c8_rows *s, int r, int place, bool full)
{
    N sum = {0};
    for (int t = 0; t < ATTN_TILE; t += LANES) {
        I high[LV], low[LV];
        for (int v = 0; v < LV; v++) {
            I p = c8_probability(s, r, t + v * VL, true, full) - MAGIC;
            sum += (N)p;
            high[v] = p >> 8;
            low[v] = p & 255;
        }
        P_pack(s->p[r] + t * PARTS, high);
        P_pack(s->p_low[place] + t * PARTS, low);
    }
    s->low_row[place] = (uint8_t)r;
    s->p_sum[r] = I_sum_across((I)sum);
}

/* All ones for rows r, r + 1, .. before the end. */
ALWAYS_INLINE I c8_mine(int r, int end)
{
    I mine;
    for (int i = 0; i < VL; i++)
        mine[i] = r + i < end ? -1 : 0;
    return mine;
}

/* What joins this tile to the ones before, for rows [begin, end). */
static void c8_join(struct c8_rows *s, int begin, int end)
{
    for (int r = begin; r < end; r += VL) { /* rows behind end come out as they were */
        I tile = I_load(s->tile_max + r), before = I_load(s->max + r), mine = c8_mine(r, end);
        V unit = V_load(s->unit + r), mass = V_load(s->mass + r), others = V_load(s->others + r);
        I first = (I)(mass == V_broadcast(0)), now = I_select(first | (I)(tile > before), tile, before);
        V weight = V_exp2(V_from_int(tile - now) * unit);
        V correction = V_select(first, V_broadcast(0), V_exp2(V_from_int(before - now) * unit));
        V all_others = V_fma(V_from_int(I_load(s->p_sum + r) - P_FINE), weight, others * correction);
        I_store(s->fine + r, (I)(all_others < weight * V_load(s->large + r)));
        V_store(s->weight + r, weight);
        V_store(s->correction + r, correction);
        I_store(s->max + r, I_select(mine, now, before));
        V_store(s->others + r, V_select(mine, all_others, others));
    }
}

/* What is divided by in the end. */
static void c8_add_mass(struct c8_rows *s, int begin, int end)
{
    for (int r = begin; r < end; r += VL) {
        V before = V_load(s->mass + r), now = before * V_load(s->correction + r);
        now = V_fma(V_from_int(I_load(s->p_sum + r)), V_load(s->weight + r), now);
        V_store(s->mass + r, V_select(c8_mine(r, end), now, before));
    }
}

/* Adds p of mr rows times nv vectors of channels of v, whose fours of keys, or each part of them, are ldv bytes apart.
 * fetch: what is fetched meanwhile, as much as is read, or NULL. */
ALWAYS_INLINE void c8_pass(int mr, int nv, bool wide, I (*acc)[2 * C8_NV * LV], const uint8_t *p, const int8_t *v,
                           size_t ldv, const int8_t *fetch)
{
    NO_UNROLL
    for (const uint8_t *end = p + ATTN_TILE * PARTS; p < end; p += 4 * PARTS, v += wide ? 0 : ldv) {
        if (fetch) {
            fetch_once(fetch, nv * VL * 4);
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
                I pv = I_broadcast4(p + r * ATTN_TILE * PARTS + part * 4);
                if (PARTS == 1)
                    pv = U_of(pv, part);
                UNROLL
                for (int u = 0; u < nv; u++)
                    DOT(acc[r][u], pv, vv[u]);
            }
            AFTER_PART();
        }
    }
}

/* Joins nv vectors of channels from i on: to mr rows from place on, or low planes to the rows that have those from
 * place on. */
ALWAYS_INLINE void c8_values(int mr, int nv, bool wide, struct c8_rows *s, int place, bool low, const int8_t *v,
                             size_t ldv, int i, const int8_t *fetch)
{
    I acc[C8_MR][2 * C8_NV * LV];
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            acc[r][u] = DOT_LESS ? I_load(s->v_sum + i + u * VL) : (I){0};
    }
    c8_pass(mr, nv, wide, acc, low ? s->p_low[place] : s->p[place], v, ldv, fetch);
    UNROLL
    for (int r = 0; r < mr; r++) {
        int row = low ? s->low_row[place + r] : place + r;
        float *out = (low ? s->out_low : s->out) + (size_t)row * (size_t)s->ld + i;
        V worth = V_broadcast(low ? s->weight[row] : s->weight[row] * 256.0f);
        V correction = V_broadcast(low ? 1.0f : s->correction[row]); /* times 1 changes nothing */
        UNROLL
        for (int u = 0; u < nv; u++)
            V_store(out + u * VL, V_fma(V_from_int(acc[r][u]), worth, V_load(out + u * VL) * correction));
    }
}

/* d channels of mr rows. */
ALWAYS_INLINE void c8_channels(int mr, struct c8_rows *s, int place, bool low, const int8_t *v, int d,
                               const int8_t *fetch)
{
    const int nv = C8_NV * LV * TIMES(mr);
    int i = 0;
    for (; i + nv * VL <= d; i += nv * VL)
        c8_values(mr, nv, false, s, place, low, v + i * 4, (size_t)d * 4, i, fetch ? fetch + i * ATTN_TILE : NULL);
    for (; i + LANES <= d; i += LANES)
        c8_values(mr, LV, false, s, place, low, v + i * 4, (size_t)d * 4, i, fetch ? fetch + i * ATTN_TILE : NULL);
    if (i < d)
        c8_values(mr, LV, false, s, place, low, s->v_tail[0], sizeof(s->v_tail[0]), i, NULL);
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
    static __attribute__((noinline)) void c8_values_##mr(struct c8_rows *s, int place, bool low, const int8_t *v,      \
                                                         int d, const int8_t *fetch)                                   \
    {                                                                                                                  \
        if (fetch)                                                                                                     \
            c8_channels(mr, s, place, low, v, d, fetch);                                                               \
        else                                                                                                           \
            c8_channels(mr, s, place, low, v, d, NULL);                                                                \
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
typedef void c8_values_fn(struct c8_rows *, int, bool, const int8_t *, int, const int8_t *);
static c8_dots_fn *const c8_dots_of[C8_MR + 1] = C8_OF(c8_dots_);
static c8_values_fn *const c8_values_of[C8_MR + 1] = C8_OF(c8_values_);

#if PARTS > 1
/* The same for a tile whose parts are made. */
static __attribute__((noinline)) void c8_dots_wide(struct c8_rows *s, int r0, int pd)
{
    c8_dots(C8_MR, true, s, r0, s->wide_k, pd, 0);
}

static __attribute__((noinline)) void c8_values_wide(struct c8_rows *s, int place, bool low)
{
    for (int i = 0; i < s->ld; i += LANES)
        c8_values(C8_MR, LV, true, s, place, low, (int8_t *)s->wide_v + i * 4, (size_t)s->ld * 4, i, NULL);
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

/* What all rows want of a tile of V: its last channels in whole vectors; its sums, or its parts. */
static void c8_prepare_values(struct c8_rows *s, const int8_t *v, int d, bool wide)
{
    static const uint8_t one[4] = {DOT_LESS + 1, DOT_LESS + 1, DOT_LESS + 1, DOT_LESS + 1};
    int whole = d / LANES * LANES;
    for (int t = 0; whole < d && t < ATTN_TILE / 4; t++)
        memcpy(s->v_tail[t], v + ((size_t)t * (size_t)d + (size_t)whole) * 4, (size_t)(d - whole) * 4);
    for (int i = 0; DOT_LESS && i < s->ld; i += VL) {
        I acc = {0};
        for (int t = 0; t < ATTN_TILE; t += 4)
            DOT(acc, U_of(I_broadcast4(one), 0), S_of(c8_value_four(s, v, d, t, i), 0));
        I_store(s->v_sum + i, acc * DOT_LESS);
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
    size_t at = attn_tile_at(a, t0);
    ret_kv[0] = a->k + at;
    ret_kv[1] = a->v + at;
}

/* Low planes of fine rows in [begin, end), and what out_low was before. Returns how many there are. */
static int c8_fine_rows(struct c8_rows *s, int begin, int end, bool full)
{
    int count = 0;
    for (int r = begin; r < end; r++) {
        if (s->low[r] && s->correction[r] != 1.0f)
            for (int i = 0; i < s->ld; i += VL) {
                float *out = s->out_low + (size_t)r * (size_t)s->ld + i;
                V_store(out, V_load(out) * V_broadcast(s->correction[r]));
            }
        if (!s->fine[r])
            continue;
        s->low[r] = true;
        if (full)
            c8_fine_row(s, r, count++, true);
        else
            c8_fine_row(s, r, count++, false);
    }
    return count;
}

/* p.V of high planes of rows [begin, end), or of as many low planes. */
static void c8_sum_values(struct c8_rows *s, int begin, int end, bool low, bool wide, const int8_t *v, int d,
                          const int8_t *fetch)
{
    for (int place = begin, mr; place < end; place += mr) {
        mr = end - place < C8_MR ? end - place : C8_MR;
#if PARTS > 1
        if (wide && mr == C8_MR) {
            c8_values_wide(s, place, low);
            continue;
        }
#else
        (void)wide;
#endif
        c8_values_of[mr](s, place, low, v, d, place == begin ? fetch : NULL);
    }
}

/* What rows [begin, end) see of the tile at t0, and the greatest dot of each. Returns whether all see all of it. */
static bool c8_look(struct c8_rows *s, const struct attn_args *a, int64_t t0, int begin, int end)
{
    int first = begin / a->group, last = (end - 1) / a->group; /* tokens: who comes later begins and ends later */
    if (attn_begin(a, last) <= t0 && attn_end(a, first) >= t0 + ATTN_TILE) {
        for (int r = begin; r < end; r++)
            c8_tile_max(s, r, true);
        for (int t = first, r = begin; t <= last; t++) {
            float large = c8_large(t0 + ATTN_TILE - attn_begin(a, t) - 1, a->d);
            for (; r < (t + 1) * a->group; r++)
                s->large[r] = large;
        }
        return true;
    }
    for (int r = begin; r < end; r++) {
        int64_t lo = attn_begin(a, r / a->group) - t0, hi = attn_end(a, r / a->group) - t0;
        s->lo[r] = lo > 0 ? (int)lo : 0;
        s->hi[r] = hi < ATTN_TILE ? (int)hi : ATTN_TILE;
        s->large[r] = c8_large(s->hi[r] - lo - 1, a->d);
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
    for (int r = begin; r < end; r++)
        if (full)
            c8_coarse(s, r, true);
        else
            c8_coarse(s, r, false);
    c8_join(s, begin, end);
    int fine = c8_fine_rows(s, begin, end, full);
    c8_add_mass(s, begin, end);
    c8_prepare_values(s, v, a->d, wide);
    c8_sum_values(s, begin, end, false, wide, v, a->d, (const int8_t *)next[1]);
    c8_sum_values(s, 0, fine, true, wide, v, a->d, NULL);
}

void KFN(attn_c8)(const struct attn_args *a)
{
    struct c8_rows s; /* large, but only what the call's rows and dimension need of it is touched */
    s.rows = a->tokens * a->group;
    s.ld = (a->d + LANES - 1) / LANES * LANES;
    for (int r = 0; r < s.rows; r++)
        c8_query(&s, a, r);
    memset(s.out, 0, (size_t)s.rows * (size_t)s.ld * sizeof(float));
    memset(s.out_low, 0, (size_t)s.rows * (size_t)s.ld * sizeof(float));
    memset(s.low, 0, sizeof(s.low));
    memset(s.mass, 0, sizeof(s.mass));
    memset(s.others, 0, sizeof(s.others));
    memset(s.p_sum, 0, sizeof(s.p_sum));
    memset(s.max, 0, sizeof(s.max));
    memset(s.unit + s.rows, 0, sizeof(s.unit) - (size_t)s.rows * sizeof(float));
    memset(s.tile_max, 0, sizeof(s.tile_max));
    memset(s.large, 0, sizeof(s.large));
    memset(s.v_tail, 0, sizeof(s.v_tail));
    int64_t end = attn_end(a, a->tokens - 1), t0 = attn_begin(a, 0) / ATTN_TILE * ATTN_TILE;
    bool alone = cpu_ahead == CPU_AHEAD_ALONE, run_is_short = alone && fetch_run_is_short(a, t0);
    for (int64_t next; t0 < end; t0 = next) {
        next = t0 + ATTN_TILE;
        if (alone && next < end && attn_tile_at(a, next) != attn_tile_at(a, t0) + a->tile_stride)
            run_is_short = fetch_run_is_short(a, next);
        /* A CPU that reads ahead by itself has fetched most of the next one. */
        int64_t ahead = alone && !run_is_short ? next + ATTN_TILE : next;
        int from = 0, to = a->tokens; /* tokens that see any of the tile */
        while (attn_end(a, from) <= t0)
            from++;
        while (attn_begin(a, to - 1) >= t0 + ATTN_TILE)
            to--;
        c8_tile(&s, a, t0, from * a->group, to * a->group, ahead < end ? ahead : t0);
    }
    for (int r = 0; r < s.rows; r++)
        c8_finish(&s, a, r);
}
