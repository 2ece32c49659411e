/* INT8 GEMM with vpdpbusd; part of the tiers that have it. A panel's sums go to a small tile in L1, and from there
 * through the epilogue: 1% of the time, and the inner loop keeps all registers. */

#define I8_MR 12 /* rows at once: 24 accumulators, two weights and a broadcast in 32 registers */

/* Four bytes of row 3 * triple + j, the first or the next four, in every lane. Rows are addressed from one pointer for
 * three of them: twelve pointers and the compiler's ideas about them do not fit the general registers. */
#define I8_BROADCAST(at)                                                                                               \
    __asm__("vpbroadcastd " at ", %0" : "=v"(v) : "r"(triple), "r"(ldx), "m"(*(const uint32_t *)triple))
ALWAYS_INLINE __m512i i8_broadcast(const uint8_t *triple, size_t ldx, int j, bool next)
{
    __m512i v;
    if (j == 0 && next)
        I8_BROADCAST("4(%1)");
    else if (j == 0)
        I8_BROADCAST("(%1)");
    else if (j == 1 && next)
        I8_BROADCAST("4(%1,%2,1)");
    else if (j == 1)
        I8_BROADCAST("(%1,%2,1)");
    else if (next)
        I8_BROADCAST("4(%1,%2,2)");
    else
        I8_BROADCAST("(%1,%2,2)");
    return v;
}

/* Four channels of mr rows, or the next four, times the columns of w: 16 in each of nw vectors. */
ALWAYS_INLINE void i8_step(int mr, int nw, __m512i (*acc)[4], const uint8_t *const *triple, size_t ldx, bool next,
                           const __m512i *w)
{
    UNROLL
    for (int r = 0; r < mr; r++) {
        __m512i xv = i8_broadcast(triple[r / 3], ldx, r % 3, next);
        UNROLL
        for (int v = 0; v < nw; v++)
            DPBUSD(acc[r][v], xv, w[v]);
    }
}

/* On to other channels: by additions, where a compiler would rather make all pointers anew from one number. */
ALWAYS_INLINE void i8_advance(int mr, const uint8_t **triple, int k)
{
    UNROLL
    for (int t = 0; t < (mr + 2) / 3; t++) {
        triple[t] += k;
        __asm__("" : "+r"(triple[t]));
    }
}

enum i8_ask { ASK_NOTHING, ASK_HALF, ASK_ALL };

/* mr rows of x times a panel, or times two that are `apart` bytes from one another, to sum (panels, mr, GEMM_NR), or
 * added to it. nibbles: two weights in a byte. ahead: what is wanted next is asked for so many bytes ahead of each
 * panel, as many lines as weights are read; or half as many from there on. */
ALWAYS_INLINE void i8_dots(int mr, int panels, bool nibbles, const uint8_t *x, size_t ldx, const int8_t *w,
                           size_t apart, int k4, enum i8_ask ask, enum cache cache, size_t ahead,
                           int32_t (*sum)[GEMM_NR], bool add)
{
    __m512i acc[I8_MR][4], low = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    const uint8_t *triple[4] = {x, x + 3 * ldx, x + 6 * ldx, x + 9 * ldx};
    const int8_t *half = w + ahead;
    int nw = 2 * panels;
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < nw; v++)
            acc[r][v] = _mm512_setzero_si512();
    }
    if (add) {
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int v = 0; v < nw; v++)
                acc[r][v] = _mm512_loadu_si512(sum[v / 2 * mr + r] + v % 2 * 16);
        }
    }
    int i = 0;
    if (!nibbles && panels == 1 && ask == ASK_NOTHING) { /* almost all of a prompt: as little beside it as can be */
        NO_UNROLL
        for (; i + 8 <= k4; i += 8, w += 8 * GEMM_NR) {
            UNROLL
            for (int next = 0; next < 2; next++) {
                const int8_t *from = w + next * 4 * GEMM_NR;
                __m512i d[4] = {_mm512_loadu_si512(from), _mm512_loadu_si512(from + 64)};
                i8_step(mr, nw, acc, triple, ldx, next, d);
            }
            i8_advance(mr, triple, 8);
        }
    }
    for (; i < k4; i += nibbles ? 8 : 4, w += 4 * GEMM_NR, half += 2 * GEMM_NR) {
        __m512i d[4], part[4];
        UNROLL
        for (int v = 0; v < nw; v++) {
            const int8_t *from = w + (v / 2 ? apart : 0) + v % 2 * 64;
            d[v] = part[v] = _mm512_loadu_si512(from);
            if (ask == ASK_ALL) /* as many instructions as read the weights */
                fetch_line(cache, from + ahead);
        }
        if (ask == ASK_HALF)
            fetch_line(cache, half);
        if (nibbles) {
            UNROLL
            for (int v = 0; v < nw; v++)
                part[v] = _mm512_sub_epi8(_mm512_and_si512(d[v], low), eight);
        }
        i8_step(mr, nw, acc, triple, ldx, false, part);
        i8_advance(mr, triple, 4);
        if (nibbles) {
            UNROLL
            for (int v = 0; v < nw; v++)
                part[v] = _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(d[v], 4), low), eight);
            i8_step(mr, nw, acc, triple, ldx, false, part);
            i8_advance(mr, triple, 4);
        }
    }
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < nw; v++)
            _mm512_storeu_si512(sum[v / 2 * mr + r] + v % 2 * 16, acc[r][v]);
    }
}

/* What all rows' outputs of 16 columns are made with: (sum + add) * scale * the row's scale + bias. */
struct i8_columns {
    __m512i add;
    __m512 scale, bias;
};

ALWAYS_INLINE struct i8_columns i8_columns_at(const struct gemm_i8_args *a, int j)
{
    __m512i add = _mm512_slli_epi32(_mm512_loadu_si512(a->w_sum + j), 7); /* x was taken as q + 128 */
    __m512i to = a->col_add ? _mm512_loadu_si512(a->col_add + j) : _mm512_setzero_si512();
    return (struct i8_columns){
        .add = _mm512_sub_epi32(to, add),
        .scale = _mm512_loadu_ps(a->col_scale + j),
        .bias = a->bias ? _mm512_loadu_ps(a->bias + j) : _mm512_set1_ps(-0.0f), /* which changes nothing */
    };
}

/* 16 columns of one row, in the order of struct gemm_i8_args. zeros: rows or columns may have zero points. */
ALWAYS_INLINE __m512 i8_finish(const struct gemm_i8_args *a, const struct i8_columns *c, bool zeros, const int32_t *sum,
                               __m512 row_scale, int r, int j)
{
    __m512i acc = _mm512_add_epi32(_mm512_loadu_si512(sum), c->add);
    if (zeros && a->row_zero)
        acc = _mm512_sub_epi32(
            acc, _mm512_mullo_epi32(_mm512_set1_epi32(a->row_zero[r]), _mm512_loadu_si512(a->col_sum + j)));
    if (zeros && a->col_zero)
        acc = _mm512_sub_epi32(
            acc, _mm512_mullo_epi32(_mm512_set1_epi32(a->row_sum[r]), _mm512_loadu_si512(a->col_zero + j)));
    __m512 f = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), c->scale), row_scale);
    return _mm512_add_ps(f, c->bias);
}

ALWAYS_INLINE void i8_store_rows(const struct gemm_i8_args *a, const struct i8_columns *c, bool zeros, bool swiglu,
                                 int32_t (*sum)[GEMM_NR], int r0, int rows, int p)
{
    static const float one = 1.0f; /* times 1 changes nothing either */
    int j = p * GEMM_NR, at = swiglu ? p * SWIGLU_NR : j;
    __mmask16 here = mask16((size_t)(a->n - at)), there = a->n - at > 16 ? mask16((size_t)(a->n - at - 16)) : 0;
    const float *scale = a->row_scale ? a->row_scale + r0 : &one;
    float *y = a->y + (size_t)r0 * a->ldy + at;
    UNROLL_4
    for (int r = 0; r < rows; r++, y += a->ldy, scale += a->row_scale != NULL) { /* rows' divisions beside each other */
        __m512 s = _mm512_set1_ps(*scale);
        __m512 lo = i8_finish(a, &c[0], zeros, sum[r], s, r0 + r, j);
        __m512 hi = i8_finish(a, &c[1], zeros, sum[r] + 16, s, r0 + r, j + 16);
        _mm512_mask_storeu_ps(y, here, swiglu ? silu_mul_ps(lo, hi) : lo);
        if (!swiglu)
            _mm512_mask_storeu_ps(y + 16, there, hi);
    }
}

/* Rows of panel p, whose columns c are. */
static void i8_store_with(const struct gemm_i8_args *a, const struct i8_columns *c, int32_t (*sum)[GEMM_NR], int r0,
                          int rows, int p)
{
    if (a->row_zero || a->col_zero)
        i8_store_rows(a, c, true, a->swiglu, sum, r0, rows, p);
    else if (a->swiglu)
        i8_store_rows(a, c, false, true, sum, r0, rows, p);
    else
        i8_store_rows(a, c, false, false, sum, r0, rows, p);
}

ALWAYS_INLINE void i8_panel_columns(const struct gemm_i8_args *a, int p, struct i8_columns *ret)
{
    ret[0] = i8_columns_at(a, p * GEMM_NR);
    ret[1] = i8_columns_at(a, p * GEMM_NR + 16);
}

static void i8_store(const struct gemm_i8_args *a, int32_t (*sum)[GEMM_NR], int r0, int rows, int p)
{
    struct i8_columns c[2];
    i8_panel_columns(a, p, c);
    i8_store_with(a, c, sum, r0, rows, p);
}

/* One function for each number of rows, so that a remainder costs what it is. */
typedef void i8_rows_fn(const uint8_t *x, size_t ldx, const int8_t *w, size_t apart, int k4, enum i8_ask ask,
                        enum cache cache, size_t ahead, int32_t (*sum)[GEMM_NR], bool add);

#define I8_DOTS(mr, panels, nibbles, ask, cache, add)                                                                  \
    i8_dots(mr, panels, nibbles, x, ldx, w, apart, k4, ask, cache, ahead, sum, add)
#define I8_CACHES(mr, panels, nibbles, ask, add)                                                                       \
    if (cache == CACHE_L1)                                                                                             \
        I8_DOTS(mr, panels, nibbles, ask, CACHE_L1, add);                                                              \
    else if (cache == CACHE_L2)                                                                                        \
        I8_DOTS(mr, panels, nibbles, ask, CACHE_L2, add);                                                              \
    else                                                                                                               \
        I8_DOTS(mr, panels, nibbles, ask, CACHE_ALL, add)
#define I8_ROWS(name, mr, nibbles)                                                                                     \
    static __attribute__((noinline)) void name##mr(const uint8_t *x, size_t ldx, const int8_t *w, size_t apart,        \
                                                   int k4, enum i8_ask ask, enum cache cache, size_t ahead,            \
                                                   int32_t(*sum)[GEMM_NR], bool add)                                   \
    {                                                                                                                  \
        if (ask == ASK_NOTHING) {                                                                                      \
            I8_DOTS(mr, 1, nibbles, ASK_NOTHING, CACHE_ALL, add);                                                      \
        } else if (ask == ASK_HALF) {                                                                                  \
            I8_CACHES(mr, 1, nibbles, ASK_HALF, add);                                                                  \
        } else {                                                                                                       \
            I8_CACHES(mr, 1, nibbles, ASK_ALL, add);                                                                   \
        }                                                                                                              \
    }
#define I8_PAIR(name, mr, nibbles) /* which ask for all, and add to nothing */                                         \
    static __attribute__((noinline)) void name##mr(const uint8_t *x, size_t ldx, const int8_t *w, size_t apart,        \
                                                   int k4, enum i8_ask ask, enum cache cache, size_t ahead,            \
                                                   int32_t(*sum)[GEMM_NR], bool add)                                   \
    {                                                                                                                  \
        (void)ask;                                                                                                     \
        (void)add;                                                                                                     \
        I8_CACHES(mr, 2, nibbles, ASK_ALL, false);                                                                     \
    }
#define I8_ALL(name, nibbles)                                                                                          \
    I8_ROWS(name##_, 1, nibbles)                                                                                       \
    I8_ROWS(name##_, 2, nibbles)                                                                                       \
    I8_ROWS(name##_, 3, nibbles)                                                                                       \
    I8_ROWS(name##_, 4, nibbles)                                                                                       \
    I8_ROWS(name##_, 5, nibbles)                                                                                       \
    I8_ROWS(name##_, 6, nibbles)                                                                                       \
    I8_ROWS(name##_, 7, nibbles)                                                                                       \
    I8_ROWS(name##_, 8, nibbles)                                                                                       \
    I8_ROWS(name##_, 9, nibbles)                                                                                       \
    I8_ROWS(name##_, 10, nibbles)                                                                                      \
    I8_ROWS(name##_, 11, nibbles)                                                                                      \
    I8_ROWS(name##_, 12, nibbles)                                                                                      \
    I8_PAIR(name##_pair_, 1, nibbles)                                                                                  \
    I8_PAIR(name##_pair_, 2, nibbles)                                                                                  \
    I8_PAIR(name##_pair_, 3, nibbles)                                                                                  \
    I8_PAIR(name##_pair_, 4, nibbles)                                                                                  \
    static const struct i8_fns name = {                                                                                \
        {NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8, name##_9, name##_10,    \
         name##_11, name##_12},                                                                                        \
        {NULL, name##_pair_1, name##_pair_2, name##_pair_3, name##_pair_4},                                            \
    };

#define I8_PAIR_ROWS 4 /* at most, with two panels at once */

struct i8_fns {
    i8_rows_fn *rows[I8_MR + 1], *pair[I8_PAIR_ROWS + 1];
};
I8_ALL(i8, false)
I8_ALL(i4, true)

#define I8_L1_AHEAD 4096           /* bytes ahead of one use, enough for memory and few enough for L1, of a panel; */
#define I8_L2_AHEAD 6144           /* the same for L2, where the CPU follows; not a multiple of 4 KB */
#define I8_L2_ROWS 9               /* at most, that take weights from L2 as fast as memory gives them */
#define I8_NEAR_AHEAD 1536         /* for one or two, where L2 reads ahead as well (Intel) */
#define I8_SLICE_BYTES (16 << 10)  /* of a panel: two of them, and as much of some rows of x, fit in L1 */
#define I8_BLOCK_ROWS 264          /* of x that stay in L2 while the panels go by, */
#define I8_BLOCK_BYTES (840 << 10) /* as long as they have no more */

/* So far ahead is what is read once asked for. */
static size_t i8_ahead(int panels)
{
    return cpu_ahead == CPU_AHEAD_ONCE    ? I8_L1_AHEAD / (size_t)panels
           : cpu_ahead == CPU_AHEAD_ALONE ? I8_L2_AHEAD
                                          : I8_NEAR_AHEAD;
}

/* What the epilogue of a panel reads of the columns' arrays, lines that no prefetcher knows of. */
static void i8_fetch_columns(const struct gemm_i8_args *a, int p)
{
    const char *sum = (const char *)(a->w_sum + p * GEMM_NR), *scale = (const char *)(a->col_scale + p * GEMM_NR);
    _mm_prefetch(sum, _MM_HINT_T0);
    _mm_prefetch(sum + 64, _MM_HINT_T0);
    _mm_prefetch(scale, _MM_HINT_T0);
    _mm_prefetch(scale + 64, _MM_HINT_T0);
}

/* A few rows, with weights from memory: it gives more when they are read in two places at once, the panels' first half
 * and their second. Returns the panel where it has stopped, one before the end when their number is odd. */
static int i8_pairs(const struct gemm_i8_args *a, i8_rows_fn *pair, size_t panel_bytes, int panel_begin, int panel_end)
{
    int32_t sum[2 * I8_PAIR_ROWS][GEMM_NR];
    int half = (panel_end - panel_begin) / 2;
    for (int p = panel_begin; p < panel_begin + half; p++) {
        i8_fetch_columns(a, p + 1);
        i8_fetch_columns(a, p + half + 1);
        pair(a->x, a->ldx, a->w + (size_t)p * panel_bytes, (size_t)half * panel_bytes, a->k4, ASK_ALL, cache_once(),
             i8_ahead(2), sum, false);
        i8_store(a, sum, 0, a->rows, p);
        i8_store(a, sum + a->rows, 0, a->rows, p + half);
    }
    return panel_begin + 2 * half;
}

/* The passes that rows take, and how many the next one takes: 16 as 8 and 8, not as 12 and 4. */
static int i8_passes(int rows, int *ret_rows)
{
    int passes = (rows + I8_MR - 1) / I8_MR;
    *ret_rows = (rows + passes - 1) / passes;
    return passes;
}

/* Two passes, with weights from memory, a slice of k at a time: it stays in L1 for the second, and what each of them
 * asks for, half of the next slice, finds room there. */
static void i8_slices(const struct gemm_i8_args *a, const struct i8_fns *fns, size_t panel_bytes, int panel_begin,
                      int panel_end)
{
    int32_t sum[2 * I8_MR][GEMM_NR];
    size_t k_bytes = panel_bytes / (size_t)a->k4; /* of the panel, for one of k */
    int most = (int)(I8_SLICE_BYTES / k_bytes), slices = (a->k4 + most - 1) / most;
    int slice = ((a->k4 + slices - 1) / slices + 7) / 8 * 8, first = (a->rows + 1) / 2;
    for (int p = panel_begin; p < panel_end; p++) {
        i8_fetch_columns(a, p + 1);
        for (int k = 0, n; k < a->k4; k += n) {
            n = a->k4 - k < slice ? a->k4 - k : slice;
            const int8_t *w = a->w + (size_t)p * panel_bytes + (size_t)k * k_bytes;
            size_t ahead = (size_t)n * k_bytes;
            for (int pass = 0; pass < 2; pass++) {
                int r = pass * first, rows = pass ? a->rows - first : first;
                fns->rows[rows](a->x + (size_t)r * a->ldx + k, a->ldx, w, 0, n, ASK_HALF, cache_once(),
                                ahead + (size_t)pass * ahead / 2, sum + r, k > 0);
            }
        }
        i8_store(a, sum, 0, a->rows, p);
    }
}

/* Asks for the lines that a panel's results of some rows go to, while these are made: another one or two for each row,
 * which no prefetcher finds. In assembly, because a compiler asks without a wish to write. */
static void i8_ask_results(const struct gemm_i8_args *a, int r, int rows, int p)
{
    const size_t line = 64 / sizeof(float);
    const float *y = a->y + (size_t)r * a->ldy + (size_t)p * (a->swiglu ? SWIGLU_NR : GEMM_NR);
    for (int i = 0; i < rows; i++, y += a->ldy) {
        __asm__ volatile("prefetchw %0" ::"m"(*y));
        if (!a->swiglu)
            __asm__ volatile("prefetchw %0" ::"m"(y[line]));
    }
}

static void i8_panels(const struct gemm_i8_args *a, const struct i8_fns *fns, size_t panel_bytes, int panel_begin,
                      int panel_end)
{
    int32_t sum[I8_MR][GEMM_NR];
    int fit = (int)(I8_BLOCK_BYTES / a->ldx / I8_MR) * I8_MR, most = fit < I8_BLOCK_ROWS ? fit : I8_BLOCK_ROWS;
    most = most > I8_MR ? most : I8_MR;
    bool few = a->rows <= I8_PAIR_ROWS, alone = few && cpu_ahead == CPU_AHEAD_ALONE; /* one line of addresses */
    if (few && !alone)
        panel_begin = i8_pairs(a, fns->pair[a->rows], panel_bytes, panel_begin, panel_end);
    if (a->rows > (cpu_ahead == CPU_AHEAD_ALONE ? I8_L2_ROWS : I8_MR) && a->rows <= 2 * I8_MR) {
        i8_slices(a, fns, panel_bytes, panel_begin, panel_end);
        return;
    }
    for (int r0 = 0, r1; r0 < a->rows; r0 = r1) {
        int blocks = (a->rows - r0 + most - 1) / most;
        r1 = r0 + (a->rows - r0 + blocks - 1) / blocks; /* 512 as 256 and 256, not as 264 and 248 */
        for (int p = panel_begin; p < panel_end; p++) {
            const int8_t *w = a->w + (size_t)p * panel_bytes;
            for (int r = r0, rows; r < r1; r += rows) {
                int passes = i8_passes(r1 - r, &rows);
                enum i8_ask ask = passes <= 2 ? ASK_HALF : ASK_NOTHING;
                enum cache cache = cpu_ahead == CPU_AHEAD_ALONE ? CACHE_L2 : CACHE_ALL;
                size_t ahead = panel_bytes + (passes == 1 ? panel_bytes / 2 : 0);
                if (rows == a->rows) { /* weights that are used once */
                    ask = alone ? ASK_NOTHING : ASK_ALL;
                    cache = cache_once();
                    ahead = i8_ahead(1);
                }
                if (ask != ASK_NOTHING || rows == a->rows)
                    i8_fetch_columns(a, p + 1);
                if (rows < a->rows)
                    i8_ask_results(a, r, rows, p);
                fns->rows[rows](a->x + (size_t)r * a->ldx, a->ldx, w, 0, a->k4, ask, cache, ahead, sum, false);
                i8_store(a, sum, r, rows, p);
            }
        }
    }
}

static void i8_gemm(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    i8_panels(a, &i8, (size_t)a->k4 * GEMM_NR, panel_begin, panel_end);
}

static void i4_gemm(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    i8_panels(a, &i4, (size_t)a->k4 * GEMM_NR / 2, panel_begin, panel_end);
}
