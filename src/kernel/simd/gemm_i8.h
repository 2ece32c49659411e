/* INT8 GEMM of one tier over dot products of four. A tier defines
 *     PARTS            instructions that a dot takes, each with a part of the bytes
 *     U_of(d, part), S_of(d, part)   what they take of bytes d, unsigned and signed
 *     DOT(acc, u, s)   adds: over the parts, the sums over four of (u - DOT_LESS) * s
 * and I8_MR, the rows that keep their accumulators in registers. Sums of a panel go to memory between blocks of k, so
 * that a block of weights stays in L1 for all rows of a block. */
#include "kernel/simd/gemm_i8_store.h"

#define I8_ROW_BLOCK 48 /* rows of x that stay in L2 while the panels go by */
#define I8_K_BLOCK 512

/* What a loaded vector holds: weights, or two of four bits in each byte, of which the low or the high ones are wanted.
 */
enum i8_weights { W_BYTES, W_LOW, W_HIGH };

typedef int8_t I8 __attribute__((vector_size(VL * 4)));

ALWAYS_INLINE I i8_weights_of(I d, enum i8_weights weights)
{
    if (weights == W_BYTES)
        return d;
    I nibbles = (weights == W_HIGH ? (I)((N)d >> 4) : d) & 0x0f0f0f0f;
    return (I)((I8)nibbles - 8);
}

#ifdef I8_OWN_DOTS /* a file that has i8_dots */
#include I8_OWN_DOTS
#else
#define PV (GEMM_NR / VL) /* vectors of a panel */

/* Four channels of mr rows times a panel. */
ALWAYS_INLINE void i8_step(int mr, enum i8_weights weights, I (*acc)[PV], const uint8_t *x, size_t ldx, const int8_t *w)
{
    UNROLL
    for (int part = 0; part < PARTS; part++) {
        I u[I8_MR];
        UNROLL
        for (int r = 0; r < mr; r++)
            u[r] = U_of(I_broadcast4(x + (size_t)r * ldx), part);
        UNROLL
        for (int v = 0; v < PV; v++) {
            I s = S_of(i8_weights_of(I_load(w + v * VL * 4), weights), part);
            UNROLL
            for (int r = 0; r < mr; r++)
                DOT(acc[r][v], u[r], s);
        }
    }
}

/* Adds mr rows of x times a panel to sum (mr, GEMM_NR). nibbles: two weights in a byte. */
ALWAYS_INLINE void i8_dots(int mr, bool nibbles, const uint8_t *x, size_t ldx, const int8_t *w, int k4,
                           int32_t (*sum)[GEMM_NR])
{
    I acc[I8_MR][PV];
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < PV; v++)
            acc[r][v] = I_load(sum[r] + v * VL);
    }
    NO_UNROLL
    for (int i = 0; i < k4; i += nibbles ? 8 : 4, w += 4 * GEMM_NR) {
        i8_step(mr, nibbles ? W_LOW : W_BYTES, acc, x + i, ldx, w);
        if (nibbles)
            i8_step(mr, W_HIGH, acc, x + i + 4, ldx, w);
    }
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < PV; v++)
            I_store(sum[r] + v * VL, acc[r][v]);
    }
}
#endif

/* One function for each number of rows, so that a remainder costs what it is. */
#define I8_ROWS(mr)                                                                                                    \
    static __attribute__((noinline)) void i8_rows_##mr(const uint8_t *x, size_t ldx, const int8_t *w, int k4,          \
                                                       int32_t(*sum)[GEMM_NR])                                         \
    {                                                                                                                  \
        i8_dots(mr, false, x, ldx, w, k4, sum);                                                                        \
    }                                                                                                                  \
    static __attribute__((noinline)) void i4_rows_##mr(const uint8_t *x, size_t ldx, const int8_t *w, int k4,          \
                                                       int32_t(*sum)[GEMM_NR])                                         \
    {                                                                                                                  \
        i8_dots(mr, true, x, ldx, w, k4, sum);                                                                         \
    }
typedef void i8_rows_fn(const uint8_t *, size_t, const int8_t *, int, int32_t (*)[GEMM_NR]);
I8_ROWS(1)
I8_ROWS(2)
#if I8_MR == 2
#define I8_ROWS_OF(name)                                                                                               \
    {                                                                                                                  \
        NULL, name##1, name##2                                                                                         \
    }
#elif I8_MR == 3
I8_ROWS(3)
#define I8_ROWS_OF(name)                                                                                               \
    {                                                                                                                  \
        NULL, name##1, name##2, name##3                                                                                \
    }
#else
I8_ROWS(3)
I8_ROWS(4)
I8_ROWS(5)
I8_ROWS(6)
#define I8_ROWS_OF(name)                                                                                               \
    {                                                                                                                  \
        NULL, name##1, name##2, name##3, name##4, name##5, name##6                                                     \
    }
#endif
static i8_rows_fn *const i8_rows[I8_MR + 1] = I8_ROWS_OF(i8_rows_);
static i8_rows_fn *const i4_rows[I8_MR + 1] = I8_ROWS_OF(i4_rows_);

static void i8_panels(const struct gemm_i8_args *a, bool nibbles, int panel_begin, int panel_end)
{
    _Alignas(64) int32_t sum[I8_ROW_BLOCK][GEMM_NR];
    i8_rows_fn *const *rows_of = nibbles ? i4_rows : i8_rows;
    int per_byte = nibbles ? 2 : 1;
    for (int r0 = 0; r0 < a->rows; r0 += I8_ROW_BLOCK) {
        int block = a->rows - r0 < I8_ROW_BLOCK ? a->rows - r0 : I8_ROW_BLOCK;
        const uint8_t *x = a->x + (size_t)r0 * a->ldx;
        for (int p = panel_begin; p < panel_end; p++) {
            memset(sum, 0, (size_t)block * sizeof(sum[0]));
            for (int i = 0; i < a->k4; i += I8_K_BLOCK) {
                int k4 = a->k4 - i < I8_K_BLOCK ? a->k4 - i : I8_K_BLOCK;
                const int8_t *w = a->w + ((size_t)p * (size_t)a->k4 + (size_t)i) * GEMM_NR / (size_t)per_byte;
                for (int r = 0, rows; r < block; r += rows) {
                    rows = block - r < I8_MR ? block - r : I8_MR;
                    rows_of[rows](x + (size_t)r * a->ldx + i, a->ldx, w, k4, sum + r);
                }
            }
            for (int r = 0; r < block; r++)
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
