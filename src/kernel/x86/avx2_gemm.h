/* INT8 GEMM for AVX2; part of avx2.c. vpmaddubsw multiplies u8 by s8 and adds pairs, at twice the rate of 16-bit
 * numbers, but saturates: a pair is exact, whatever its unsigned numbers are, when the sum of its signed ones is within
 * 128 (of different signs it always is). So weights are the unsigned side (w + 128, which costs 128 times the sum of a
 * row), activations the signed one, and a four of activations with a larger pair goes in twice: halved with all others,
 * and what that leaves afterwards, from a list. Of normally distributed activations 3 fours in 100 are in it.
 *
 * Two weights in a byte are at most 15 as w + 8, need no list, and two products can be added before they are widened.
 */
#include "kernel/simd/math.h"

#define I8_MR 6            /* rows at once, with 16 columns: 12 accumulators, 2 of w, x and a product in 16 registers */
#define I8_ROW_BLOCK 48    /* rows that are made ready together, at most */
#define I8_K_BLOCK 512     /* of k: 16 KB of weights stay in L1 for all rows of a block */
#define I8_SPAN 32768      /* of k that is made ready at once */
#define I8_FEW 4           /* rows that wait for memory: their weights are read as they lie, two rows at a time */
#define I8_AHEAD 1024      /* bytes that those are fetched ahead; others fetch the next block meanwhile */
#define I8_READY (1 << 17) /* bytes of a block's activations: as many rows as fit, at least three */

/* A four of activations that goes in twice: which, and what is left of it. */
struct i8_rest {
    int16_t row, k; /* k: from the beginning of its I8_K_BLOCK */
    int32_t four;
};

/* Rows of a block over a span of k. */
struct i8_ready {
    size_t ldx;
    int32_t sum[I8_ROW_BLOCK];
    int num_rests[I8_SPAN / I8_K_BLOCK];
    _Alignas(32) int8_t x[I8_READY];    /* (rows, ldx): q, or half of it */
    struct i8_rest rests[I8_READY / 4]; /* (blocks of k, rows * I8_K_BLOCK / 4) */
};

ALWAYS_INLINE __m256i i8_four(const void *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

/* Stores eight fours of a row; those of too large a pair are halved and listed. Returns the list's length. */
ALWAYS_INLINE int i8_halve(int8_t *to, struct i8_rest *rests, int count, __m256i q, int row, int k)
{
    __m256i pairs = _mm256_abs_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q));
    __m256i large = _mm256_cmpgt_epi16(pairs, _mm256_set1_epi16(128));
    __m256i fine = _mm256_cmpeq_epi32(large, _mm256_setzero_si256());
    unsigned fours = 0xffu & ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(fine));
    if (fours) {
        __m256i u = _mm256_xor_si256(q, _mm256_set1_epi8((char)0x80));
        u = _mm256_and_si256(_mm256_srli_epi16(u, 1), _mm256_set1_epi8(0x7f));
        __m256i half = _mm256_sub_epi8(u, _mm256_set1_epi8(0x40));
        int32_t rest[8];
        _mm256_storeu_si256((__m256i *)rest, _mm256_sub_epi8(q, half));
        for (; fours; fours &= fours - 1) {
            int at = __builtin_ctz(fours);
            rests[count++] = (struct i8_rest){(int16_t)row, (int16_t)(k + at * 4), rest[at]};
        }
        q = _mm256_blendv_epi8(half, q, fine);
    }
    _mm256_storeu_si256((__m256i *)to, q);
    return count;
}

/* Bytes from one row to the next: an odd number of cache lines, or rows would meet in a few sets of L1. */
static size_t i8_ldx(int len)
{
    return (((size_t)len + 63) / 64 | 1) * 64;
}

/* The rests of a block of k. */
static inline struct i8_rest *i8_rests(struct i8_ready *ready, int rows, int block)
{
    return ready->rests + (size_t)block * (size_t)rows * (I8_K_BLOCK / 4);
}

/* Sum of q over len of a row of q + 128. */
static int32_t i8_sum(const uint8_t *x, int len)
{
    __m256i sums = _mm256_setzero_si256();
    int64_t sum[4], tail = 0;
    int i = 0;
    for (; i + 32 <= len; i += 32)
        sums = _mm256_add_epi64(sums,
                                _mm256_sad_epu8(_mm256_loadu_si256((const __m256i *)(x + i)), _mm256_setzero_si256()));
    for (; i < len; i++)
        tail += x[i];
    _mm256_storeu_si256((__m256i *)sum, sums);
    return (int32_t)(sum[0] + sum[1] + sum[2] + sum[3] + tail - 128 * (int64_t)len);
}

/* Rows of x, q + 128, over len of k, a multiple of 4. Rests are listed in the order of k, so that those of one row,
 * whose sums wait for one another, lie apart. */
static void i8_make_ready(struct i8_ready *ready, const uint8_t *x, size_t ldx, int rows, int len, bool halve)
{
    ready->ldx = i8_ldx(len);
    memset(ready->num_rests, 0, sizeof(ready->num_rests));
    for (int i = 0; i < len; i += 32) {
        int block = i / I8_K_BLOCK, count = ready->num_rests[block];
        struct i8_rest *rests = i8_rests(ready, rows, block);
        for (int r = 0; r < rows; r++) {
            int8_t *to = ready->x + (size_t)r * ready->ldx + i;
            const uint8_t *from = x + (size_t)r * ldx + i;
            uint8_t tail[32];
            if (len - i < 32) {
                memset(tail, 128, sizeof(tail));
                memcpy(tail, from, (size_t)(len - i));
                from = tail;
            }
            __m256i q = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)from), _mm256_set1_epi8((char)0x80));
            if (halve)
                count = i8_halve(to, rests, count, q, r, i % I8_K_BLOCK);
            else
                _mm256_storeu_si256((__m256i *)to, q);
        }
        ready->num_rests[block] = count;
    }
    for (int r = 0; r < rows; r++)
        ready->sum[r] = i8_sum(x + (size_t)r * ldx, len);
}

ALWAYS_INLINE __m256i i8_dot(__m256i acc, __m256i w, __m256i x)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}

ALWAYS_INLINE __m256i i8_weights(const int8_t *w)
{
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)w), _mm256_set1_epi8((char)0x80));
}

/* Four of k for mr rows and nv vectors of columns; eight where there are two weights in a byte. */
ALWAYS_INLINE void i8_step(int mr, int nv, bool nibbles, __m256i (*acc)[4], const int8_t *x, size_t ldx,
                           const int8_t *w)
{
    __m256i u[4], v[4], low = _mm256_set1_epi8(15);
    UNROLL
    for (int c = 0; c < nv; c++)
        if (nibbles) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(w + c * 32));
            u[c] = _mm256_and_si256(both, low);
            v[c] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        } else {
            u[c] = i8_weights(w + c * 32);
        }
    UNROLL
    for (int r = 0; r < mr; r++) {
        __m256i x0 = i8_four(x + (size_t)r * ldx), x1 = nibbles ? i8_four(x + (size_t)r * ldx + 4) : x0;
        UNROLL
        for (int c = 0; c < nv; c++)
            if (nibbles) {
                __m256i sum = _mm256_add_epi16(_mm256_maddubs_epi16(u[c], x0), _mm256_maddubs_epi16(v[c], x1));
                acc[r][c] = _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
            } else {
                acc[r][c] = i8_dot(acc[r][c], u[c], x0);
            }
    }
}

/* Adds mr rows times nv vectors of a panel's columns to sum. ahead: bytes from w to what is fetched, or 0. */
ALWAYS_INLINE void i8_dots(int mr, int nv, bool nibbles, ptrdiff_t ahead, const int8_t *x, size_t ldx, const int8_t *w,
                           int len, int32_t (*sum)[GEMM_NR])
{
    __m256i acc[I8_MR][4];
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int c = 0; c < nv; c++)
            acc[r][c] = _mm256_loadu_si256((const __m256i *)(sum[r] + c * 8));
    }
    int step = nibbles ? 8 : 4;
    UNROLL_TWICE
    for (int i = 0; i < len; i += step, x += step, w += 4 * GEMM_NR) {
        if (ahead && nv == 4) {
            _mm_prefetch((const char *)w + ahead, _MM_HINT_T0);
            _mm_prefetch((const char *)w + ahead + 64, _MM_HINT_T0);
        } else if (ahead) {
            _mm_prefetch((const char *)w + ahead, _MM_HINT_T1);
        }
        i8_step(mr, nv, nibbles, acc, x, ldx, w);
    }
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int c = 0; c < nv; c++)
            _mm256_storeu_si256((__m256i *)(sum[r] + c * 8), acc[r][c]);
    }
}

/* The first rows of a block fetch the next one. */
typedef void i8_rows_fn(const int8_t *x, size_t ldx, const int8_t *w, int len, bool first, int32_t (*sum)[GEMM_NR]);

/* few: all columns of a panel at once, for one or two rows; many: half of them and then the other half. */
#define I8_FEW_ROWS(name, mr, nibbles)                                                                                 \
    static __attribute__((noinline)) void name##_few_##mr(const int8_t *x, size_t ldx, const int8_t *w, int len,       \
                                                          bool first, int32_t(*sum)[GEMM_NR])                          \
    {                                                                                                                  \
        (void)first;                                                                                                   \
        i8_dots(mr, 4, nibbles, I8_AHEAD, x, ldx, w, len, sum);                                                        \
    }
#define I8_MANY_ROWS(name, mr, nibbles)                                                                                \
    static __attribute__((noinline)) void name##_many_##mr(const int8_t *x, size_t ldx, const int8_t *w, int len,      \
                                                           bool first, int32_t(*sum)[GEMM_NR])                         \
    {                                                                                                                  \
        int32_t(*right)[GEMM_NR] = (int32_t(*)[GEMM_NR])(sum[0] + 16);                                                 \
        const ptrdiff_t block = I8_K_BLOCK * GEMM_NR / (nibbles ? 2 : 1);                                              \
        if (first) {                                                                                                   \
            i8_dots(mr, 2, nibbles, block, x, ldx, w, len, sum);                                                       \
            i8_dots(mr, 2, nibbles, block, x, ldx, w + 64, len, right);                                                \
        } else {                                                                                                       \
            i8_dots(mr, 2, nibbles, 0, x, ldx, w, len, sum);                                                           \
            i8_dots(mr, 2, nibbles, 0, x, ldx, w + 64, len, right);                                                    \
        }                                                                                                              \
    }
#define I8_ROWS(name, nibbles)                                                                                         \
    I8_FEW_ROWS(name, 1, nibbles)                                                                                      \
    I8_FEW_ROWS(name, 2, nibbles)                                                                                      \
    I8_MANY_ROWS(name, 3, nibbles)                                                                                     \
    I8_MANY_ROWS(name, 4, nibbles)                                                                                     \
    I8_MANY_ROWS(name, 5, nibbles)                                                                                     \
    I8_MANY_ROWS(name, 6, nibbles)                                                                                     \
    static i8_rows_fn *const name##_of[] = {NULL,          name##_few_1,  name##_few_2, name##_many_3,                 \
                                            name##_many_4, name##_many_5, name##_many_6};
I8_ROWS(i8, false)
I8_ROWS(i4, true)

/* Adds what was left of fours, of any row, in the block of k that w begins with. */
static void i8_add_rests(const struct i8_rest *rest, int count, const int8_t *w, int32_t (*sum)[GEMM_NR])
{
    for (const struct i8_rest *end = rest + count; rest < end; rest++) {
        const int8_t *at = w + (size_t)rest->k * GEMM_NR;
        __m256i x = _mm256_set1_epi32(rest->four), *to = (__m256i *)sum[rest->row];
        UNROLL
        for (int c = 0; c < 4; c++)
            to[c] = i8_dot(to[c], i8_weights(at + c * 32), x);
    }
}

/* Adds ready rows times a panel, w of which begins where they do. */
static void i8_panel(struct i8_ready *ready, int rows, const int8_t *w, int len, bool nibbles, int32_t (*sum)[GEMM_NR])
{
    i8_rows_fn *const *rows_of = nibbles ? i4_of : i8_of;
    int most = rows <= I8_FEW ? 2 : I8_MR;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < GEMM_NR; j++) /* weights are w + 128, or w + 8 */
            sum[r][j] = (int32_t)((uint32_t)sum[r][j] - (uint32_t)ready->sum[r] * (nibbles ? 8u : 128u));
    for (int i = 0; i < len; i += I8_K_BLOCK, w += I8_K_BLOCK * GEMM_NR / (nibbles ? 2 : 1)) {
        int block = len - i < I8_K_BLOCK ? len - i : I8_K_BLOCK;
        for (int r = 0, n; r < rows; r += n) {
            int passes = (rows - r + most - 1) / most;
            n = (rows - r + passes - 1) / passes;
            rows_of[n](ready->x + (size_t)r * ready->ldx + i, ready->ldx, w, block, r == 0, sum + r);
        }
        i8_add_rests(i8_rests(ready, rows, i / I8_K_BLOCK), ready->num_rests[i / I8_K_BLOCK], w, sum);
    }
}

static void i8_panels(const struct gemm_i8_args *a, bool nibbles, int panel_begin, int panel_end)
{
    struct i8_ready ready; /* large, but only what the call's rows need of it is touched */
    _Alignas(64) int32_t sum[I8_ROW_BLOCK][GEMM_NR];
    int span = a->k4 < I8_SPAN ? a->k4 : I8_SPAN, most = I8_READY / (int)i8_ldx(span), per_byte = nibbles ? 2 : 1;
    most = most < I8_ROW_BLOCK ? most : I8_ROW_BLOCK;
    for (int r0 = 0; r0 < a->rows; r0 += most) {
        int rows = a->rows - r0 < most ? a->rows - r0 : most;
        for (int p = panel_begin; p < panel_end; p++) {
            const int8_t *w = a->w + (size_t)p * (size_t)a->k4 * GEMM_NR / (size_t)per_byte;
            memset(sum, 0, (size_t)rows * sizeof(sum[0]));
            for (int i = 0; i < a->k4; i += I8_SPAN) {
                int len = a->k4 - i < I8_SPAN ? a->k4 - i : I8_SPAN;
                if (p == panel_begin || a->k4 > I8_SPAN)
                    i8_make_ready(&ready, a->x + (size_t)r0 * a->ldx + i, a->ldx, rows, len, !nibbles);
                i8_panel(&ready, rows, w + (size_t)i * GEMM_NR / (size_t)per_byte, len, nibbles, sum);
            }
            for (int r = 0; r < rows; r++)
                i8_store(a, sum[r], r0 + r, p);
        }
    }
}

void KFN(gemm_i8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    i8_panels(a, false, panel_begin, panel_end);
}

void KFN(gemm_w4a8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    i8_panels(a, true, panel_begin, panel_end);
}
