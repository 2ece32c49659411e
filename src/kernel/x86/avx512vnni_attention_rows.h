/* What a C8 attention call remembers of its rows, how it reads q, and what it asks of memory before it is wanted; for
 * avx512vnni_attention.h. */

#define C8_MR 6                      /* rows at once in q.k, and in p.V of scattered rows */
#define C8_VR 3                      /* rows at once in p.V, sums and what they are added to in registers */
#define C8_NV 4                      /* vectors of channels at once in p.V */
#define C8_STRIP 4                   /* tiles; one of few rows, which wait for memory and not for stores */
#define C8_FEW 12                    /* rows */
#define C8_LR 2                      /* rows at once in p.V of few, */
#define C8_LINE 8                    /* and vectors of channels */
#define C8_NEAR 2048                 /* bytes ahead, where L2 reads ahead as well (Intel), in place of a whole tile */
#define C8_AHEAD 8                   /* rows between asking for one and using it: other workers had it last */
#define C8_PAGE 4096                 /* bytes, */
#define C8_PAGES_AHEAD 3             /* and tiles between the first touch of a page and the use of its lines */
#define C8_ROWS (ATTN_MAX_ROWS + 16) /* vectors may run over the end */

struct c8_tile {
    int begin, end;            /* rows that see some of it */
    bool all;                  /* they see all of it */
    const uint8_t *k, *next_k; /* what is fetched while k is read */
    const int8_t *v, *next_v;  /* and v, */
    const int8_t *turned;      /* of which there is an end: from turn bytes on it is turned + turn and what follows */
    size_t turn;
    uint64_t fine, kept; /* bit for each row: it has two planes; its correction is 1 */
};

/* Everything that a call remembers of its rows, and of the strip at work: row r of tile i is at i * stride + r. */
struct c8_rows {
    int rows, stride, num_tiles;
    bool tiled;          /* q.k and p.V go in tiles */
    bool run_is_short;   /* of tiles that follow one another, the one that the next tile is in */
    uint64_t begun, low; /* bit for each row: it has seen a key; it has had a low plane */
    float unit[C8_ROWS], mass[C8_ROWS], others[C8_ROWS];
    int32_t max[C8_ROWS];
    struct c8_tile tile[C8_STRIP];
    float tile_unit[C8_STRIP * C8_ROWS], large[C8_STRIP * C8_ROWS];
    float weight[C8_STRIP * C8_ROWS], correction[C8_STRIP * C8_ROWS];
    int32_t tile_max[C8_STRIP * C8_ROWS], p_sum[C8_STRIP * C8_ROWS];
    __mmask16 seen[C8_STRIP * C8_ROWS][2];                   /* keys, where a row does not see all of a tile */
    __m512i top[C8_STRIP * C8_ROWS];                         /* the greatest dot is one of 16 */
    _Alignas(64) int32_t dot[C8_STRIP * C8_ROWS][ATTN_TILE]; /* 128 * sum of q too much, as has the greatest */
    _Alignas(64) uint8_t p[C8_STRIP * C8_ROWS][ATTN_TILE];   /* high planes */
    _Alignas(64) uint8_t p_low[C8_ROWS][ATTN_TILE];          /* low ones of one tile: few rows' as rows, else a list, */
    uint8_t low_row[C8_ROWS];                                /* which says whose */
    /* q = 256 * hi + lo, (rows / C8_MR, pd / 4, row, plane, 4), or for tiles (plane, ATTN_MAX_ROWS, pd). */
    int8_t q[ATTN_MAX_ROWS * C8_MAX_DIM * 2 + 64];
    _Alignas(64) float out[ATTN_MAX_ROWS * C8_MAX_DIM], out_low[ATTN_MAX_ROWS * C8_MAX_DIM]; /* (rows, d) */
};

ALWAYS_INLINE __m512i broadcast4(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

ALWAYS_INLINE const float *c8_q_at(const struct attn_args *a, int r)
{
    return a->q + (size_t)(r / a->group) * a->ldq + (size_t)(r % a->group) * (size_t)a->d;
}

ALWAYS_INLINE float *c8_out_at(const struct attn_args *a, int r)
{
    return a->out + (size_t)(r / a->group) * a->ldout + (size_t)(r % a->group) * (size_t)a->d;
}

/* Asks for what rows [begin, end) of the call's begin with, or for the lines that their results go to. */
ALWAYS_INLINE void c8_ask(const struct c8_rows *s, const struct attn_args *a, bool out, int begin, int end)
{
    for (int r = begin; r < end && r < s->rows; r++)
        for (int i = 0; i < a->d; i += 16)
            if (out) /* assembly, because a compiler asks without a wish to write */
                __asm__ volatile("prefetchw %0" ::"m"(c8_out_at(a, r)[i]));
            else
                _mm_prefetch((const char *)(c8_q_at(a, r) + i), _MM_HINT_T0);
}

/* Asks for what a short call would wait for: the scales that it ends with, and what the next one begins with. */
static void c8_ask_ends(const struct attn_args *a)
{
    const struct attn_args *next = a->next;
    int bytes = a->d * (int)sizeof(float);
    fetch_lines(a->c8->v_scale, bytes);
    fetch_lines(a->c8->v_offset, bytes);
    if (!next)
        return;
    fetch_lines(next->c8->k_scale, bytes);
    for (int r = 0; r < next->tokens * next->group && r < C8_FEW; r++)
        fetch_lines(c8_q_at(next, r), bytes);
}

ALWAYS_INLINE const uint8_t *c8_k_at(const struct attn_args *a, int64_t t0)
{
    return a->k + attn_tile_at(a, t0);
}

ALWAYS_INLINE const int8_t *c8_v_at(const struct attn_args *a, int64_t t0)
{
    return (const int8_t *)a->v + attn_tile_at(a, t0);
}

ALWAYS_INLINE int64_t c8_first_tile(const struct attn_args *a)
{
    return attn_begin(a, 0) / ATTN_TILE * ATTN_TILE;
}

/* The tile that comes n after that at t0, in this call or the next, which *a is then; one of theirs if none does. */
static int64_t c8_tile_after(const struct attn_args **a, int64_t t0, int n)
{
    int64_t end = attn_end(*a, (*a)->tokens - 1), t = t0 + n * ATTN_TILE;
    if (t < end)
        return t;
    if (!(*a)->next)
        return t0;
    *a = (*a)->next;
    int64_t begin = c8_first_tile(*a);
    t += begin - (end + ATTN_TILE - 1) / ATTN_TILE * ATTN_TILE;
    return t < attn_end(*a, (*a)->tokens - 1) ? t : begin;
}

/* Touches the pages of the tile that comes C8_PAGES_AHEAD after that at t0: a CPU finds out where a page lies before it
 * can ask for a line of it, and pages may be small, those of the machine behind a virtual one too. */
static void c8_ask_pages(const struct attn_args *a, int64_t t0)
{
    int64_t t = c8_tile_after(&a, t0, C8_PAGES_AHEAD);
    for (int i = 0; i < ATTN_TILE * c8_padded_dim(a->d); i += C8_PAGE) {
        _mm_prefetch((const char *)c8_k_at(a, t) + i, _MM_HINT_NTA);
        _mm_prefetch((const char *)c8_v_at(a, t) + i, _MM_HINT_NTA);
    }
}

/* q times K's scales. whole: d is a multiple of 16. */
ALWAYS_INLINE __m512 c8_scaled(const struct attn_args *a, bool whole, const float *q, size_t i)
{
    __mmask16 m = whole ? 0xffff : mask16((size_t)a->d - i);
    return _mm512_mul_ps(_mm512_maskz_loadu_ps(m, q + i), _mm512_maskz_loadu_ps(m, a->c8->k_scale + i));
}

/* Numbers of q, as they lie in its planes. */
ALWAYS_INLINE __m512i c8_q(const struct attn_args *a, bool whole, const struct divisor *by, const float *q, size_t i,
                           __m512 q_max)
{
    __m512 v = divide(by, c8_scaled(a, whole, q, i));
    v = _mm512_max_ps(v, _mm512_sub_ps(_mm512_setzero_ps(), q_max));
    return _mm512_cvtps_epi32(_mm512_min_ps(v, q_max));
}

/* The planes of row r for tiles: d is a multiple of 64. */
static void c8_planes_tile(struct c8_rows *s, const struct attn_args *a, int r, float unit, float q_max)
{
    const __m512i half = _mm512_set1_epi32(128), low = _mm512_set1_epi32(255);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const float *q = c8_q_at(a, r);
    int8_t *hi = s->q + (size_t)r * (size_t)a->d, *lo = hi + (size_t)ATTN_MAX_ROWS * (size_t)a->d;
    struct divisor by = divisor_of(unit);
    for (size_t i = 0; i < (size_t)a->d; i += 64) {
        __m512i n[4], h[4];
        UNROLL
        for (int v = 0; v < 4; v++) {
            n[v] = c8_q(a, true, &by, q, i + (size_t)v * 16, _mm512_set1_ps(q_max));
            h[v] = _mm512_srai_epi32(_mm512_add_epi32(n[v], half), 8);
            n[v] = _mm512_and_si512(n[v], low);
        }
        __m512i high = _mm512_packs_epi16(_mm512_packs_epi32(h[0], h[1]), _mm512_packs_epi32(h[2], h[3]));
        __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(n[0], n[1]), _mm512_packs_epi32(n[2], n[3]));
        _mm512_storeu_si512(hi + i, _mm512_permutexvar_epi32(order, high));
        _mm512_storeu_si512(lo + i, _mm512_permutexvar_epi32(order, bytes));
    }
}

/* The planes of row r, one of mr that lie together. */
static void c8_planes(struct c8_rows *s, const struct attn_args *a, int r, int mr, float unit, float q_max)
{
    size_t pd = (size_t)c8_padded_dim(a->d);
    int8_t *to = s->q + (size_t)(r / C8_MR * C8_MR) * pd * 2 + (size_t)(r % C8_MR) * 8;
    struct divisor by = divisor_of(unit);
    for (size_t i = 0; i < pd; i += 16) {
        __m512i n = c8_q(a, false, &by, c8_q_at(a, r), i, _mm512_set1_ps(q_max));
        __m512i hi = _mm512_srai_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(128)), 8);
        __m128i h = _mm512_cvtepi32_epi8(hi), l = _mm512_cvtepi32_epi8(_mm512_sub_epi32(n, _mm512_slli_epi32(hi, 8)));
        __m128i pairs[2] = {_mm_unpacklo_epi32(h, l), _mm_unpackhi_epi32(h, l)}; /* four of hi, four of lo, .. */
        for (size_t c = 0; c < 4 && i + c * 4 < pd; c++, to += (size_t)mr * 8)
            if (c % 2)
                _mm_storeh_pd((double *)to, _mm_castsi128_pd(pairs[c / 2]));
            else
                _mm_storel_epi64((__m128i *)to, pairs[c / 2]);
    }
}

/* Halves of a, of b, each the greater of what was in two. */
#define MAX_HALVES(a, b) _mm512_max_epi32(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee))
#define MAX_QUARTERS(a, b) _mm512_max_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd))

/* The greatest of each of sixteen vectors. */
ALWAYS_INLINE __m512i max_of_rows(const __m512i *v)
{
    __m512i pair[4], q[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        q[i] = MAX_QUARTERS(MAX_HALVES(v[i], v[i + 4]),
                            MAX_HALVES(v[i + 8], v[i + 12])); /* lane of 128: row i, i + 4, .. */
    UNROLL
    for (int i = 0; i < 4; i += 2)
        pair[i / 2] = _mm512_max_epi32(_mm512_unpacklo_epi64(q[i], q[i + 1]), _mm512_unpackhi_epi64(q[i], q[i + 1]));
    __m512 p0 = _mm512_castsi512_ps(pair[0]), p1 = _mm512_castsi512_ps(pair[1]);
    return _mm512_max_epi32(_mm512_castps_si512(_mm512_shuffle_ps(p0, p1, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(p0, p1, 0xdd)));
}

/* c8_quant_q of all rows. Their maxima first, so that no row waits for the division of the one before. */
static void c8_queries(struct c8_rows *s, const struct attn_args *a)
{
    int limit = INT32_MAX / (255 * a->d), q_max = limit < Q_MAX ? limit : Q_MAX;
    float unit[C8_ROWS];
    c8_ask(s, a, false, 0, C8_AHEAD);
    for (int r = 0; r < s->rows; r++) {
        __m512 most = _mm512_setzero_ps();
        c8_ask(s, a, false, r + C8_AHEAD, r + C8_AHEAD + 1);
        if (s->tiled)
            for (size_t i = 0; i < (size_t)a->d; i += 16)
                most = _mm512_max_ps(_mm512_abs_ps(c8_scaled(a, true, c8_q_at(a, r), i)), most);
        else
            for (size_t i = 0; i < (size_t)a->d; i += 16)
                most = _mm512_max_ps(_mm512_abs_ps(c8_scaled(a, false, c8_q_at(a, r), i)), most);
        s->top[r] = _mm512_castps_si512(most); /* no sign: integers compare as they do */
    }
    for (int r = 0; r < s->rows; r += 16) {
        __m512 u = _mm512_div_ps(_mm512_castsi512_ps(max_of_rows(s->top + r)), _mm512_set1_ps((float)q_max));
        u = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), _mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_GT_OQ), u);
        _mm512_storeu_ps(unit + r, u);
        u = _mm512_mul_ps(u, _mm512_set1_ps(a->scale * 0x1.715476p+0f));
        u = _mm512_maskz_mov_ps(mask16((size_t)(s->rows - r)), u); /* of nobody's rows too: numbers that cost no more */
        _mm512_storeu_ps(s->unit + r, u);
    }
    for (int r = 0; s->tiled && r < s->rows; r++)
        c8_planes_tile(s, a, r, unit[r], (float)q_max);
    for (int r = 0; !s->tiled && r < s->rows; r++)
        c8_planes(s, a, r, s->rows - r / C8_MR * C8_MR < C8_MR ? s->rows % C8_MR : C8_MR, unit[r], (float)q_max);
}
