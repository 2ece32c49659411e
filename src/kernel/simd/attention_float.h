/* Attention over float caches of one tier. The tile of keys is the outer loop and the query rows of the call the inner
 * one, a few at a time in registers: each load of K and V, and its conversion, serves them all. A tier also defines
 * ATTN_MR, the most rows at once, and ATTN_ACC, the accumulators that it has registers for. */

/* Everything that a call remembers of its rows, (rows) each, padded so that vectors may run over the end. */
struct attn_rows {
    int rows, mr, ld;                         /* mr: rows at once in q.k; ld: d in whole 16s */
    int lo[ATTN_MAX_ROWS], hi[ATTN_MAX_ROWS]; /* keys that it sees of the tile at work */
    float max[ATTN_MAX_ROWS + LANES], new_max[ATTN_MAX_ROWS + LANES], correction[ATTN_MAX_ROWS + LANES];
    float sum[ATTN_MAX_ROWS];
    _Alignas(64) float p[ATTN_MAX_ROWS][ATTN_TILE];       /* scores, then probabilities */
    _Alignas(64) float v_tail[ATTN_TILE][VL];             /* the channels behind the last whole vector */
    _Alignas(64) float q[ATTN_MAX_ROWS * ATTN_MAX_DIM];   /* (rows / mr, d, mr) */
    _Alignas(64) float out[ATTN_MAX_ROWS * ATTN_MAX_DIM]; /* (rows, ld) */
};

/* A tile of K and V. */
struct attn_tile {
    const uint8_t *k, *v;
    size_t d;
    const uint8_t *next_k; /* what is fetched while V is read, as V is while K is: it follows in memory; */
    bool ask;              /* or nothing is */
};

#define ATTN_NEAR 2048 /* bytes ahead, at most, where L2 reads ahead as well (Intel) */

/* How far ahead of K to ask, and of V until `turn`, behind which it is as far ahead of K's next tile. */
ALWAYS_INLINE ptrdiff_t attn_near(const struct attn_tile *tile, size_t bytes, const uint8_t **ret_turn)
{
    size_t all = ATTN_TILE * tile->d * bytes, near = all < ATTN_NEAR ? all : ATTN_NEAR;
    *ret_turn = tile->v + (all - near);
    return (ptrdiff_t)near;
}

/* Whether to ask for K and V from t0 on, until they jump. Short vectors, which take more instructions for a line, are
 * faster with it on Zen 4 in long runs too: BF16, 2,048 keys, 24 and 18 GB/s. */
ALWAYS_INLINE bool attn_asks(const struct attn_args *a, int64_t t0)
{
    return VL < 16 || cpu_ahead != CPU_AHEAD_ALONE || fetch_run_is_short(a, t0);
}

/* Vectors at once for mr rows. */
ALWAYS_INLINE int attn_vectors(int mr)
{
    int nv = ATTN_ACC / mr;
    return nv >= MAX_NV ? MAX_NV : nv >= 4 ? 4 : nv >= 2 ? 2 : 1;
}

/* Dots of mr rows with a tile, one chain over the channels each. */
ALWAYS_INLINE void attn_dots(int mr, enum elem elem, struct attn_rows *s, int r0, const struct attn_tile *tile)
{
    const int nv = attn_vectors(mr) < NV ? attn_vectors(mr) : NV, row_bytes = ATTN_TILE * (int)elem_size(elem);
    for (int t = 0; t < ATTN_TILE; t += nv * VL) {
        V acc[ATTN_MR][MAX_NV];
        const uint8_t *k = tile->k + (size_t)t * elem_size(elem);
        const float *q = s->q + (size_t)r0 * tile->d, *end = q + (size_t)mr * tile->d;
        const uint8_t *turn;
        ptrdiff_t to_v = cpu_ahead == CPU_AHEAD_NEAR ? attn_near(tile, elem_size(elem), &turn) : tile->v - tile->k;
        bool ask = t == 0 && tile->ask;
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[r][v] = V_zero();
        }
        NO_UNROLL
        for (; q < end; q += mr, k += row_bytes) {
            if (ask)
                fetch_once(k + to_v, row_bytes);
            outer_step(mr, nv, elem, acc, q, 1, k);
        }
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int v = 0; v < nv; v++)
                V_store(s->p[r0 + r] + t + v * VL, acc[r][v]);
        }
    }
}

/* Keys [from, to) of a tile that some rows all see, and what they multiply their outputs by before it. */
struct attn_keys {
    int from, to;
    const float *correction; /* (mr) */
};

/* Adds p.v for nv vectors of channels from i on to mr rows; v is key 0, whose rows are ldv bytes apart. fetch: what is
 * fetched meanwhile, as much as is read; tile: what v is of, NULL if nothing is fetched. */
ALWAYS_INLINE void attn_values_at(int mr, int nv, enum elem elem, struct attn_rows *s, int r0, struct attn_keys keys,
                                  const uint8_t *v, size_t ldv, int i, const uint8_t *fetch,
                                  const struct attn_tile *tile)
{
    const uint8_t *turn = NULL;
    ptrdiff_t near = tile && cpu_ahead == CPU_AHEAD_NEAR ? attn_near(tile, elem_size(elem), &turn) : 0;
    bool ask = tile && tile->ask;
    V acc[ATTN_MR][MAX_NV];
    float *out = s->out + (size_t)r0 * (size_t)s->ld + i;
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            acc[r][u] = V_mul(V_load(out + (size_t)r * (size_t)s->ld + u * VL), V_broadcast(keys.correction[r]));
    }
    const float *p = s->p[r0] + keys.from, *end = s->p[r0] + keys.to;
    v += (size_t)keys.from * ldv;
    NO_UNROLL
    for (; p < end; p++, v += ldv, fetch += nv * VL * (int)elem_size(elem)) {
        if (near)
            fetch_lines(v < turn ? v + near : tile->next_k + (v - turn), nv * VL * (int)elem_size(elem));
        else if (ask)
            fetch_once(fetch, nv * VL * (int)elem_size(elem));
        outer_step(mr, nv, elem, acc, p, ATTN_TILE, v);
    }
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            V_store(out + (size_t)r * (size_t)s->ld + u * VL, acc[r][u]);
    }
}

ALWAYS_INLINE void attn_values(int mr, enum elem elem, struct attn_rows *s, int r0, struct attn_keys keys,
                               const struct attn_tile *tile)
{
    const int nv = attn_vectors(mr), d = (int)tile->d;
    size_t bytes = elem_size(elem), ldv = tile->d * bytes;
    int i = 0;
    for (; i + nv * VL <= d; i += nv * VL)
        attn_values_at(mr, nv, elem, s, r0, keys, tile->v + (size_t)i * bytes, ldv, i,
                       tile->next_k + i * ATTN_TILE * bytes, tile);
    for (; i + VL <= d; i += VL)
        attn_values_at(mr, 1, elem, s, r0, keys, tile->v + (size_t)i * bytes, ldv, i,
                       tile->next_k + i * ATTN_TILE * bytes, tile);
    if (i < d)
        attn_values_at(mr, 1, ELEM_F32, s, r0, keys, (const uint8_t *)s->v_tail, sizeof(s->v_tail[0]), i, tile->next_k,
                       NULL);
}

/* One function for each number of rows. */
#define ATTN_ROWS(mr)                                                                                                  \
    static __attribute__((noinline)) void attn_dots_##mr(enum elem elem, struct attn_rows *s, int r0,                  \
                                                         const struct attn_tile *tile)                                 \
    {                                                                                                                  \
        if (elem == ELEM_BF16)                                                                                         \
            attn_dots(mr, ELEM_BF16, s, r0, tile);                                                                     \
        else if (elem == ELEM_F16)                                                                                     \
            attn_dots(mr, ELEM_F16, s, r0, tile);                                                                      \
        else                                                                                                           \
            attn_dots(mr, ELEM_F32, s, r0, tile);                                                                      \
    }                                                                                                                  \
    static __attribute__((noinline)) void attn_values_##mr(enum elem elem, struct attn_rows *s, int r0,                \
                                                           struct attn_keys keys, const struct attn_tile *tile)        \
    {                                                                                                                  \
        if (elem == ELEM_BF16)                                                                                         \
            attn_values(mr, ELEM_BF16, s, r0, keys, tile);                                                             \
        else if (elem == ELEM_F16)                                                                                     \
            attn_values(mr, ELEM_F16, s, r0, keys, tile);                                                              \
        else                                                                                                           \
            attn_values(mr, ELEM_F32, s, r0, keys, tile);                                                              \
    }
typedef void attn_dots_fn(enum elem, struct attn_rows *, int, const struct attn_tile *);
typedef void attn_values_fn(enum elem, struct attn_rows *, int, struct attn_keys, const struct attn_tile *);
ATTN_ROWS(1)
ATTN_ROWS(2)
ATTN_ROWS(3)
ATTN_ROWS(4)
ATTN_ROWS(5)
ATTN_ROWS(6)
#if ATTN_MR == 6
#define ATTN_ROWS_OF(name)                                                                                             \
    {                                                                                                                  \
        NULL, name##1, name##2, name##3, name##4, name##5, name##6                                                     \
    }
#else
ATTN_ROWS(7)
ATTN_ROWS(8)
ATTN_ROWS(9)
ATTN_ROWS(10)
ATTN_ROWS(11)
ATTN_ROWS(12)
#define ATTN_ROWS_OF(name)                                                                                             \
    {                                                                                                                  \
        NULL, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9, name##10, name##11,     \
            name##12                                                                                                   \
    }
#endif
static attn_dots_fn *const attn_dots_of[ATTN_MR + 1] = ATTN_ROWS_OF(attn_dots_);
static attn_values_fn *const attn_values_of[ATTN_MR + 1] = ATTN_ROWS_OF(attn_values_);

/* ---- softmax of a tile ---- */

/* All ones for keys t, t + 1, .. that row r sees. */
ALWAYS_INLINE I attn_seen(const struct attn_rows *s, int r, int t)
{
    I key;
    for (int i = 0; i < VL; i++)
        key[i] = t + i;
    return (I)(key >= s->lo[r]) & (I)(key < s->hi[r]);
}

/* Dots to scores, and the maximum with them. whole: the row sees all of the tile. */
ALWAYS_INLINE void attn_scores(struct attn_rows *s, int r, float scale, bool whole)
{
    V most = V_broadcast(-INFINITY);
    float lane[VL], max = s->max[r];
    for (int t = 0; t < ATTN_TILE; t += VL) {
        V score = V_mul(V_load(s->p[r] + t), V_broadcast(scale));
        if (!whole)
            score = V_select(attn_seen(s, r, t), score, V_broadcast(-INFINITY));
        V_store(s->p[r] + t, score);
        most = V_max(score, most);
    }
    V_store(lane, most);
    for (int i = 0; i < VL; i++)
        max = lane[i] > max ? lane[i] : max;
    s->new_max[r] = max;
}

/* Scores to unnormalised probabilities, zero for keys that the row does not see, and their sum. */
ALWAYS_INLINE void attn_probabilities(struct attn_rows *s, int r, bool whole)
{
    V e[NV], lanes[LV], max = V_broadcast(s->new_max[r]);
    for (int v = 0; v < NV; v++) {
        e[v] = V_exp_most_0(V_load(s->p[r] + v * VL) - max);
        if (!whole)
            e[v] = (V)((I)e[v] & attn_seen(s, r, v * VL));
        V_store(s->p[r] + v * VL, e[v]);
    }
    for (int v = 0; v < LV; v++)
        lanes[v] = e[v] + e[v + LV];
    s->sum[r] = fmaf(s->sum[r], s->correction[r], V_lanes_sum(lanes));
    s->max[r] = s->new_max[r];
}

/* Rows [begin, end). */
static void attn_softmax(struct attn_rows *s, float scale, int begin, int end)
{
    for (int r = begin; r < end; r++)
        if (s->hi[r] - s->lo[r] == ATTN_TILE)
            attn_scores(s, r, scale, true);
        else
            attn_scores(s, r, scale, false);
    for (int r = begin; r < end; r += VL) /* what comes out behind end is not used */
        V_store(s->correction + r, V_exp_most_0(V_load(s->max + r) - V_load(s->new_max + r)));
    for (int r = begin; r < end; r++)
        if (s->hi[r] - s->lo[r] == ATTN_TILE)
            attn_probabilities(s, r, true);
        else
            attn_probabilities(s, r, false);
}

/* ---- the call ---- */

/* Joins a tile to the outputs of mr rows: the keys that all of them see together, those before and behind it a row at
 * a time. A key that a row does not see is left out, as it may hold anything. */
static void attn_join(enum elem elem, struct attn_rows *s, int r0, int mr, const struct attn_tile *tile)
{
    static const float one[12] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int from = 0, to = ATTN_TILE;
    bool before = false, behind = false;
    for (int r = r0; r < r0 + mr; r++) {
        from = s->lo[r] > from ? s->lo[r] : from;
        to = s->hi[r] < to ? s->hi[r] : to;
    }
    to = to > from ? to : from;
    for (int r = r0; r < r0 + mr; r++) {
        before |= s->lo[r] < from;
        behind |= s->hi[r] > to;
    }
    const float *correction = s->correction + r0;
    if (before) {
        for (int r = r0; r < r0 + mr; r++) {
            int end = s->hi[r] < from ? s->hi[r] : from;
            attn_values_of[1](elem, s, r, (struct attn_keys){s->lo[r], end, s->correction + r}, tile);
        }
        correction = one;
    }
    attn_values_of[mr](elem, s, r0, (struct attn_keys){from, to, correction}, tile);
    for (int r = r0; behind && r < r0 + mr; r++)
        if (s->hi[r] > to)
            attn_values_of[1](elem, s, r, (struct attn_keys){to, s->hi[r], one}, tile);
}

/* The channels of a tile of V behind the last whole vector. */
static void attn_v_tail(enum elem elem, struct attn_rows *s, const struct attn_tile *tile)
{
    size_t whole = tile->d / VL * VL;
    for (size_t t = 0; t < ATTN_TILE; t++)
        for (size_t i = whole; i < tile->d; i++) {
            const uint8_t *p = tile->v + (t * tile->d + i) * elem_size(elem);
            uint16_t h;
            memcpy(&h, p, 2);
            if (elem == ELEM_F32)
                memcpy(&s->v_tail[t][i - whole], p, 4);
            else
                s->v_tail[t][i - whole] = elem == ELEM_BF16 ? f32_from_bf16(h) : f32_from_f16(h);
        }
}

/* Rows [begin, end) see some of the tile at t0. */
static void attn_tile_join(enum elem elem, struct attn_rows *s, const struct attn_args *a, const struct attn_tile *tile,
                           int64_t t0, int begin, int end)
{
    for (int r = begin / s->mr * s->mr; r < end; r += s->mr)
        attn_dots_of[s->rows - r < s->mr ? s->rows - r : s->mr](elem, s, r, tile);
    for (int r = begin; r < end; r++) {
        int64_t lo = attn_begin(a, r / a->group) - t0, hi = attn_end(a, r / a->group) - t0;
        s->lo[r] = lo > 0 ? (int)lo : 0;
        s->hi[r] = hi < ATTN_TILE ? (int)hi : ATTN_TILE;
    }
    attn_softmax(s, a->scale, begin, end);
    if (tile->d % VL)
        attn_v_tail(elem, s, tile);
    for (int r = begin, mr; r < end; r += mr) {
        mr = share(end - r, ATTN_MR);
        attn_join(elem, s, r, mr, tile);
    }
}

static void attn_rows_init(struct attn_rows *s, const struct attn_args *a)
{
    size_t d = (size_t)a->d;
    s->rows = a->tokens * a->group;
    s->mr = share(s->rows, ATTN_MR);
    s->ld = (a->d + LANES - 1) / LANES * LANES;
    memset(s->out, 0, (size_t)s->rows * (size_t)s->ld * sizeof(float));
    memset(s->sum, 0, sizeof(s->sum));
    memset(s->new_max, 0, sizeof(s->new_max));
    memset(s->v_tail, 0, sizeof(s->v_tail));
    for (int r = 0; r < ATTN_MAX_ROWS + LANES; r++)
        s->max[r] = -INFINITY;
    for (int r = 0; r < s->rows; r++) {
        const float *q = a->q + (size_t)(r / a->group) * a->ldq + (size_t)(r % a->group) * d;
        int first = r / s->mr * s->mr, mr = s->rows - first < s->mr ? s->rows - first : s->mr;
        float *to = s->q + (size_t)first * d + (r - first);
        for (size_t i = 0; i < d; i++)
            to[i * (size_t)mr] = q[i];
    }
}

ALWAYS_INLINE void attn(enum elem elem, const struct attn_args *a)
{
    struct attn_rows s; /* large, but only what the call's rows and dimension need of it is touched */
    attn_rows_init(&s, a);
    int64_t end = attn_end(a, a->tokens - 1), t0 = attn_begin(a, 0) / ATTN_TILE * ATTN_TILE;
    bool ask = attn_asks(a, t0);
    for (size_t at = attn_tile_at(a, t0), next; t0 < end; t0 += ATTN_TILE, at = next) {
        next = t0 + ATTN_TILE < end ? attn_tile_at(a, t0 + ATTN_TILE) : at;
        struct attn_tile tile = {a->k + at, a->v + at, (size_t)a->d, a->k + next, ask};
        if (next != at + a->tile_stride && t0 + ATTN_TILE < end)
            ask = attn_asks(a, t0 + ATTN_TILE);
        int from = 0, to = a->tokens; /* tokens that see any of the tile */
        while (attn_end(a, from) <= t0)
            from++;
        while (attn_begin(a, to - 1) >= t0 + ATTN_TILE)
            to--;
        attn_tile_join(elem, &s, a, &tile, t0, from * a->group, to * a->group);
    }
    for (int r = 0; r < s.rows; r++) {
        float *out = a->out + (size_t)(r / a->group) * a->ldout + (size_t)(r % a->group) * (size_t)a->d;
        const float *sums = s.out + (size_t)r * (size_t)s.ld;
        float inv = 1.0f / s.sum[r];
        for (int i = 0; i < a->d; i++)
            out[i] = sums[i] * inv;
    }
}

void KFN(attn_bf16)(const struct attn_args *a)
{
    attn(ELEM_BF16, a);
}

void KFN(attn_f16)(const struct attn_args *a)
{
    attn(ELEM_F16, a);
}

void KFN(attn_f32)(const struct attn_args *a)
{
    attn(ELEM_F32, a);
}
