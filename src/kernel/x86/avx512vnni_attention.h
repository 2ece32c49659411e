/* C8 attention with vpdpbusd; part of the tiers that have it. The tile of keys is the outer loop and the query rows of
 * the call the inner one, six at a time: each load of K and V serves them all. What is done once for a row and a tile
 * runs on sixteen rows at once. */

#define C8_MR 6
#define C8_AHEAD ATTN_TILE /* keys from the tile at work to the one that is fetched */
#define C8_NV 4            /* vectors of channels at once in p.V */

/* Everything that a call remembers of its rows, (rows) each, padded so that vectors may run over the end. */
struct c8_rows {
    int rows;
    int64_t begin[ATTN_MAX_ROWS], end[ATTN_MAX_ROWS]; /* keys that it sees */
    float unit[ATTN_MAX_ROWS + 16], mass[ATTN_MAX_ROWS + 16], rest[ATTN_MAX_ROWS + 16];
    float weight[ATTN_MAX_ROWS + 16], correction[ATTN_MAX_ROWS + 16];
    int32_t max[ATTN_MAX_ROWS + 16], tile_max[ATTN_MAX_ROWS + 16], p_sum[ATTN_MAX_ROWS + 16];
    float large[ATTN_MAX_ROWS + 16];       /* c8_large at the tile at work */
    uint64_t fine, kept;                   /* bit for each row: two planes; correction is 1 */
    int32_t dot[ATTN_MAX_ROWS][ATTN_TILE]; /* 128 * sum of q too much, which the maximum takes off again */
    /* Rows that see the tile, those with one plane of p first, and in that order their planes: so that rows which need
     * two share their second pass over V with nobody. */
    uint8_t order[ATTN_MAX_ROWS], p_hi[ATTN_MAX_ROWS][ATTN_TILE], p_lo[ATTN_MAX_ROWS][ATTN_TILE];
    int8_t q[ATTN_MAX_ROWS * C8_MAX_DIM * 2 + 64];      /* (rows / C8_MR, pd / 4, row, plane, 4): q = 256 * hi + lo */
    _Alignas(64) float out[ATTN_MAX_ROWS * C8_MAX_DIM]; /* (rows, d) */
};

ALWAYS_INLINE __m512i broadcast4(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* c8_quant_q, into the planes of row r. */
static void c8_query(struct c8_rows *s, const struct attn_args *a, int r, int mr)
{
    const float *q = a->q + (size_t)(r / a->group) * a->ldq + (size_t)(r % a->group) * (size_t)a->d;
    size_t d = (size_t)a->d, pd = (size_t)c8_padded_dim(a->d);
    int8_t *to = s->q + (size_t)(r / C8_MR * C8_MR) * pd * 2 + (size_t)(r % C8_MR) * 8;
    __m512 scaled[C8_MAX_DIM / 16], most = _mm512_setzero_ps();
    for (size_t i = 0; i < d; i += 16) {
        __mmask16 m = mask16(d - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, q + i), _mm512_maskz_loadu_ps(m, a->c8->k_scale + i));
        scaled[i / 16] = v;
        most = _mm512_max_ps(_mm512_abs_ps(v), most);
    }
    int limit = INT32_MAX / (255 * a->d), q_max = limit < Q_MAX ? limit : Q_MAX;
    float unit = tree_max(most) / (float)q_max;
    unit = unit > 0 ? unit : 1.0f;
    struct divisor by = divisor_of(unit);
    for (size_t i = 0; i < pd; i += 16) {
        __m512 v = divide(&by, scaled[i / 16]);
        v = _mm512_max_ps(v, _mm512_set1_ps((float)-q_max));
        v = _mm512_min_ps(v, _mm512_set1_ps((float)q_max));
        __m512i n = _mm512_cvtps_epi32(v), hi = _mm512_srai_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(128)), 8);
        __m128i h = _mm512_cvtepi32_epi8(hi), l = _mm512_cvtepi32_epi8(_mm512_sub_epi32(n, _mm512_slli_epi32(hi, 8)));
        __m128i pairs[2] = {_mm_unpacklo_epi32(h, l), _mm_unpackhi_epi32(h, l)}; /* four of hi, four of lo, .. */
        for (size_t c = 0; c < 4 && i + c * 4 < pd; c++, to += (size_t)mr * 8)
            if (c % 2)
                _mm_storeh_pd((double *)to, _mm_castsi128_pd(pairs[c / 2]));
            else
                _mm_storel_epi64((__m128i *)to, pairs[c / 2]);
    }
    s->unit[r] = unit * (a->scale * 0x1.715476p+0f);
}

/* Dots of mr rows with a tile, and the greatest of each row among the keys it sees. ahead: bytes from here to the K
 * that is fetched meanwhile, or 0. */
ALWAYS_INLINE void c8_dots(int mr, struct c8_rows *s, int r0, const uint8_t *k, int pd, const __mmask16 (*seen)[2],
                           ptrdiff_t ahead)
{
    __m512i hi[C8_MR][2], lo[C8_MR][2];
    const int8_t *q = s->q + (size_t)r0 * (size_t)pd * 2;
    UNROLL
    for (int r = 0; r < mr; r++)
        hi[r][0] = hi[r][1] = lo[r][0] = lo[r][1] = _mm512_setzero_si512();
    for (int i = 0; i < pd; i += 4, k += 4 * ATTN_TILE, q += mr * 8) {
        __m512i k0 = _mm512_loadu_si512(k), k1 = _mm512_loadu_si512(k + 64);
        if (ahead) {
            _mm_prefetch((const char *)k + ahead, _MM_HINT_T0);
            _mm_prefetch((const char *)k + ahead + 64, _MM_HINT_T0);
        }
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
        _mm512_storeu_si512(s->dot[r0 + r], d0);
        _mm512_storeu_si512(s->dot[r0 + r] + 16, d1);
        __m512i least = _mm512_set1_epi32(INT32_MIN);
        d0 = _mm512_mask_mov_epi32(least, seen[r][0], d0);
        d1 = _mm512_mask_mov_epi32(least, seen[r][1], d1);
        s->tile_max[r0 + r] = _mm512_reduce_max_epi32(_mm512_max_epi32(d0, d1));
    }
}

/* What joins this tile to the ones before, for rows [begin, end). */
static void c8_join(struct c8_rows *s, int begin, int end)
{
    s->fine = s->kept = 0;
    for (int r = begin / 16 * 16; r < end; r += 16) {
        __m512i tile = _mm512_loadu_si512(s->tile_max + r), before = _mm512_loadu_si512(s->max + r);
        __m512 unit = _mm512_loadu_ps(s->unit + r), mass = _mm512_loadu_ps(s->mass + r),
               rest = _mm512_loadu_ps(s->rest + r);
        __mmask16 first = _mm512_cmp_ps_mask(mass, _mm512_setzero_ps(), _CMP_EQ_OQ);
        __m512i now = _mm512_mask_mov_epi32(_mm512_max_epi32(tile, before), first, tile);
        __m512 weight = exp2_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(tile, now)), unit));
        __m512 correction = exp2_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(before, now)), unit));
        correction = _mm512_mask_mov_ps(correction, first, _mm512_setzero_ps());
        mass = _mm512_mul_ps(mass, correction);
        rest = _mm512_mul_ps(rest, correction);
        __m512 enough = _mm512_mul_ps(weight, _mm512_loadu_ps(s->large + r));
        __mmask16 mine = (__mmask16)(mask16((size_t)(end - r)) & ~(r < begin ? (1u << (begin - r)) - 1 : 0u));
        s->fine |= (uint64_t)(mine & _mm512_cmp_ps_mask(rest, enough, _CMP_LT_OQ)) << r;
        s->kept |= (uint64_t)(mine & _mm512_cmp_ps_mask(correction, _mm512_set1_ps(1.0f), _CMP_EQ_OQ)) << r;
        _mm512_storeu_ps(s->weight + r, weight);
        _mm512_storeu_ps(s->correction + r, correction);
        _mm512_mask_storeu_epi32(s->max + r, mine, now);
        _mm512_mask_storeu_ps(s->mass + r, mine, mass);
        _mm512_mask_storeu_ps(s->rest + r, mine, rest);
    }
}

/* Dots of 16 keys to probabilities in [0, of]. */
ALWAYS_INLINE __m512i c8_probability(const int32_t *dot, __m512i tile_max, __m512 unit, float of)
{
    __m512i below = _mm512_sub_epi32(_mm512_loadu_si512(dot), tile_max);
    __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(below), unit);
    /* exp2_ps, but for its clamp: what is that small is 0 in integers either way */
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_scalef_ps(exp2_poly(r), n), _mm512_set1_ps(of)));
}

ALWAYS_INLINE int c8_sum_bytes(__m128i a, __m128i b)
{
    __m128i zero = _mm_setzero_si128();
    __m128i sum = _mm_add_epi32(_mm_sad_epu8(a, zero), _mm_sad_epu8(b, zero));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum)));
}

/* The planes of p of row r, zero for keys it does not see, to a place in the order. */
ALWAYS_INLINE void c8_probabilities(struct c8_rows *s, int r, int place, const __mmask16 *seen)
{
    __m512i tile_max = _mm512_set1_epi32(s->tile_max[r]);
    __m512 unit = _mm512_set1_ps(s->unit[r]);
    const int32_t *dot = s->dot[r];
    __m128i *hi = (__m128i *)s->p_hi[place], *lo = (__m128i *)s->p_lo[place];
    s->order[place] = (uint8_t)r;
    if (s->fine >> r & 1) {
        __m512i p0 = _mm512_maskz_mov_epi32(seen[0], c8_probability(dot, tile_max, unit, P_FINE));
        __m512i p1 = _mm512_maskz_mov_epi32(seen[1], c8_probability(dot + 16, tile_max, unit, P_FINE));
        __m128i h0 = _mm512_cvtepi32_epi8(_mm512_srli_epi32(p0, 8)),
                h1 = _mm512_cvtepi32_epi8(_mm512_srli_epi32(p1, 8));
        __m128i l0 = _mm512_cvtepi32_epi8(p0), l1 = _mm512_cvtepi32_epi8(p1);
        _mm_storeu_si128(hi, h0), _mm_storeu_si128(hi + 1, h1);
        _mm_storeu_si128(lo, l0), _mm_storeu_si128(lo + 1, l1);
        s->p_sum[r] = c8_sum_bytes(h0, h1) * 256 + c8_sum_bytes(l0, l1);
    } else {
        __m512i p0 = _mm512_maskz_mov_epi32(seen[0], c8_probability(dot, tile_max, unit, P_COARSE));
        __m512i p1 = _mm512_maskz_mov_epi32(seen[1], c8_probability(dot + 16, tile_max, unit, P_COARSE));
        __m128i h0 = _mm512_cvtepi32_epi8(p0), h1 = _mm512_cvtepi32_epi8(p1);
        _mm_storeu_si128(hi, h0), _mm_storeu_si128(hi + 1, h1);
        s->p_sum[r] = c8_sum_bytes(h0, h1) * 256;
    }
}

/* Adds p (C8_MR, ATTN_TILE) times 16 * nv channels of v. */
ALWAYS_INLINE void c8_plane(int mr, int nv, __m512i (*acc)[C8_NV], const uint8_t *p, const int8_t *v, size_t d,
                            const int8_t *fetch, __mmask16 m)
{
    NO_UNROLL
    for (const uint8_t *end = p + ATTN_TILE; p < end; p += 4, v += 4 * d, fetch += fetch ? nv * 64 : 0) {
        __m512i vv[C8_NV];
        UNROLL
        for (int u = 0; u < nv; u++)
            vv[u] = nv == 1 ? _mm512_maskz_loadu_epi32(m, v) : _mm512_loadu_si512(v + u * 64);
        UNROLL
        for (int u = 0; fetch && u < nv; u++)
            _mm_prefetch((const char *)fetch + u * 64, _MM_HINT_T0);
        UNROLL
        for (int r = 0; r < mr; r++) {
            __m512i pv = broadcast4(p + r * ATTN_TILE);
            UNROLL
            for (int u = 0; u < nv; u++)
                DPBUSD(acc[r][u], pv, vv[u]);
        }
    }
}

/* Joins sums of 16 * nv channels (of those in m, with nv = 1) to out. worth: of one unit of acc. */
ALWAYS_INLINE void c8_accumulate(int mr, int nv, bool kept, __m512i (*acc)[C8_NV], struct c8_rows *s,
                                 const uint8_t *order, float worth, size_t d, size_t i, __mmask16 m)
{
    UNROLL
    for (int r = 0; r < mr; r++) {
        __m512 w = _mm512_set1_ps(s->weight[order[r]] * worth), c = _mm512_set1_ps(s->correction[order[r]]);
        float *out = s->out + (size_t)order[r] * d + i;
        UNROLL
        for (int u = 0; u < nv; u++) {
            __m512 old = nv == 1 ? _mm512_maskz_loadu_ps(m, out) : _mm512_loadu_ps(out + u * 16);
            old = kept ? old : _mm512_mul_ps(old, c);
            old = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][u]), w, old);
            if (nv == 1)
                _mm512_mask_storeu_ps(out, m, old);
            else
                _mm512_storeu_ps(out + u * 16, old);
        }
    }
}

/* Channels [i, i + 16 * nv) for mr rows from a place in the order on, all fine or none. */
ALWAYS_INLINE void c8_values(int mr, int nv, struct c8_rows *s, int place, bool fine, bool kept, const int8_t *v,
                             size_t d, size_t i, ptrdiff_t ahead, __mmask16 m)
{
    __m512i acc[C8_MR][C8_NV];
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int u = 0; u < nv; u++)
            acc[r][u] = _mm512_setzero_si512();
    }
    c8_plane(mr, nv, acc, s->p_hi[place], v + i * 4, d, ahead ? v + ahead + i * ATTN_TILE : NULL, m);
    if (fine) {
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int u = 0; u < nv; u++)
                acc[r][u] = _mm512_slli_epi32(acc[r][u], 8);
        }
        c8_plane(mr, nv, acc, s->p_lo[place], v + i * 4, d, NULL, m);
    }
    float worth = fine ? 1.0f : 256.0f; /* exact, wherever it is multiplied */
    if (kept)                           /* times 1 changes nothing */
        c8_accumulate(mr, nv, true, acc, s, s->order + place, worth, d, i, m);
    else
        c8_accumulate(mr, nv, false, acc, s, s->order + place, worth, d, i, m);
}

#define C8_ROWS(mr)                                                                                                    \
    static __attribute__((noinline)) void c8_dots_##mr(struct c8_rows *s, int r0, const uint8_t *k, int pd,            \
                                                       const __mmask16(*seen)[2], ptrdiff_t ahead)                     \
    {                                                                                                                  \
        if (ahead)                                                                                                     \
            c8_dots(mr, s, r0, k, pd, seen, ahead);                                                                    \
        else                                                                                                           \
            c8_dots(mr, s, r0, k, pd, seen, 0);                                                                        \
    }                                                                                                                  \
    static __attribute__((noinline)) void c8_values_##mr(struct c8_rows *s, int place, bool fine, const int8_t *v,     \
                                                         size_t d, ptrdiff_t ahead)                                    \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        bool kept = true;                                                                                              \
        for (int r = 0; r < mr; r++)                                                                                   \
            kept = kept && (s->kept >> s->order[place + r] & 1);                                                       \
        for (; ahead && i + 16 * C8_NV <= d; i += 16 * C8_NV)                                                          \
            c8_values(mr, C8_NV, s, place, fine, kept, v, d, i, ahead, 0xffff);                                        \
        for (; i + 16 * C8_NV <= d; i += 16 * C8_NV)                                                                   \
            c8_values(mr, C8_NV, s, place, fine, kept, v, d, i, 0, 0xffff);                                            \
        for (; i < d; i += 16)                                                                                         \
            c8_values(mr, 1, s, place, fine, kept, v, d, i, 0, mask16(d - i));                                         \
    }
C8_ROWS(1)
C8_ROWS(2)
C8_ROWS(3)
C8_ROWS(4)
C8_ROWS(5)
C8_ROWS(6)

typedef void c8_dots_fn(struct c8_rows *, int, const uint8_t *, int, const __mmask16 (*)[2], ptrdiff_t);
typedef void c8_values_fn(struct c8_rows *, int, bool, const int8_t *, size_t, ptrdiff_t);
static c8_dots_fn *const c8_dots_of[] = {NULL, c8_dots_1, c8_dots_2, c8_dots_3, c8_dots_4, c8_dots_5, c8_dots_6};
static c8_values_fn *const c8_values_of[] = {NULL,        c8_values_1, c8_values_2, c8_values_3,
                                             c8_values_4, c8_values_5, c8_values_6};

/* Which keys of the tile at t0 row r sees. */
ALWAYS_INLINE void c8_seen(const struct c8_rows *s, int r, int64_t t0, __mmask16 *seen)
{
    int64_t begin = s->begin[r] - t0, end = s->end[r] - t0;
    uint32_t bits = end >= ATTN_TILE ? UINT32_MAX : end <= 0 ? 0 : (1u << end) - 1;
    bits &= begin >= ATTN_TILE ? 0 : begin <= 0 ? UINT32_MAX : ~((1u << begin) - 1);
    seen[0] = (__mmask16)bits;
    seen[1] = (__mmask16)(bits >> 16);
}

/* K and V of the tile at t0. */
ALWAYS_INLINE void c8_tile_at(const struct attn_args *a, int64_t t0, const uint8_t *ret_kv[2])
{
    size_t block = attn_block(a, t0), at = (size_t)(t0 % a->block_size);
    ret_kv[0] = a->k + block + at * (size_t)c8_padded_dim(a->d);
    ret_kv[1] = a->v + block + at * (size_t)a->d;
}

static void c8_tile(struct c8_rows *s, const struct attn_args *a, int64_t t0, int begin, int end, int64_t t_ahead)
{
    int pd = c8_padded_dim(a->d);
    const uint8_t *kv[2], *next[2];
    c8_tile_at(a, t0, kv);
    c8_tile_at(a, t_ahead, next); /* the first rows fetch it: evenly, because what comes in a burst is dropped */
    __mmask16 seen[ATTN_MAX_ROWS][2];
    int first = begin / C8_MR * C8_MR;
    for (int r = first, mr; r < end; r += mr) {
        mr = s->rows - r < C8_MR ? s->rows - r : C8_MR;
        for (int i = r; i < r + mr; i++) {
            c8_seen(s, i, t0, seen[i]);
            s->large[i] = c8_large(t0 > s->begin[i] ? t0 - s->begin[i] : 0, a->d);
        }
        c8_dots_of[mr](s, r, kv[0], pd, seen + r, r == first ? next[0] - kv[0] : 0);
    }
    c8_join(s, begin, end);
    int num_coarse = end - begin - __builtin_popcountll(s->fine), coarse = 0, fine = num_coarse;
    if (s->fine && end - begin <= C8_MR) { /* so few that two groups would cost more than a plane of zeros */
        num_coarse = 0;
        fine = __builtin_popcountll(~s->fine & (((1ull << (end - begin)) - 1) << begin));
        memset(s->p_lo, 0, (size_t)fine * ATTN_TILE);
    }
    for (int r = begin; r < end; r++)
        c8_probabilities(s, r, s->fine >> r & 1 ? fine++ : coarse++, seen[r]);
    for (int r = begin / 16 * 16; r < end; r += 16) {
        __mmask16 mine = (__mmask16)(mask16((size_t)(end - r)) & ~(r < begin ? (1u << (begin - r)) - 1 : 0u));
        __m512i sum = _mm512_loadu_si512(s->p_sum + r), others = _mm512_sub_epi32(sum, _mm512_set1_epi32(P_FINE));
        __m512 w = _mm512_loadu_ps(s->weight + r);
        __m512 mass = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), w, _mm512_loadu_ps(s->mass + r));
        __m512 rest = _mm512_fmadd_ps(_mm512_cvtepi32_ps(others), w, _mm512_loadu_ps(s->rest + r));
        _mm512_mask_storeu_ps(s->mass + r, mine, mass);
        _mm512_mask_storeu_ps(s->rest + r, mine, rest);
    }
    for (int place = 0, mr; place < end - begin; place += mr) {
        int left = (place < num_coarse ? num_coarse : end - begin) - place;
        mr = left < C8_MR ? left : C8_MR;
        c8_values_of[mr](s, place, place >= num_coarse, (const int8_t *)kv[1], (size_t)a->d,
                         place ? 0 : next[1] - kv[1]);
    }
}

void KFN(attn_c8)(const struct attn_args *a)
{
    struct c8_rows s; /* large, but only what the call's rows and dimension need of it is touched */
    size_t d = (size_t)a->d;
    s.rows = a->tokens * a->group;
    for (int r = 0; r < s.rows; r++) {
        s.begin[r] = attn_begin(a, r / a->group);
        s.end[r] = attn_end(a, r / a->group);
        c8_query(&s, a, r, s.rows - r / C8_MR * C8_MR < C8_MR ? s.rows % C8_MR : C8_MR);
    }
    memset(s.out, 0, (size_t)s.rows * d * sizeof(float));
    memset(s.mass, 0, sizeof(s.mass));
    memset(s.max, 0, sizeof(s.max));
    memset(s.unit + s.rows, 0, sizeof(s.unit) - (size_t)s.rows * sizeof(float));
    memset(s.tile_max, 0, sizeof(s.tile_max));
    memset(s.p_sum, 0, sizeof(s.p_sum));
    memset(s.large, 0, sizeof(s.large));
    memset(s.rest, 0, sizeof(s.rest));
    int64_t end = attn_end(a, a->tokens - 1);
    for (int64_t t0 = attn_begin(a, 0) / ATTN_TILE * ATTN_TILE; t0 < end; t0 += ATTN_TILE) {
        int from = 0, to = a->tokens; /* tokens that see any of the tile */
        while (attn_end(a, from) <= t0)
            from++;
        while (attn_begin(a, to - 1) >= t0 + ATTN_TILE)
            to--;
        c8_tile(&s, a, t0, from * a->group, to * a->group, t0 + C8_AHEAD < end ? t0 + C8_AHEAD : t0);
    }
    for (int r = 0; r < s.rows; r++) {
        float *out = a->out + (size_t)(r / a->group) * a->ldout + (size_t)(r % a->group) * d;
        __m512 inv = _mm512_set1_ps(1.0f / s.mass[r]);
        for (size_t i = 0; i < d; i += 16) {
            __mmask16 m = mask16(d - i);
            __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, s.out + (size_t)r * d + i), inv);
            v = _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, a->c8->v_offset + i));
            _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, a->c8->v_scale + i)));
        }
    }
}
