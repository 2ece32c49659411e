/* The float kernels of one tier, written once over a vector type; the file that includes this defines the macros of its
 * tier (V, VL, V_*) and KFN, and is compiled with its flags. Vectors run over output columns, keys or channels, never
 * along a reduction, so every output is the chain that ref/ writes down. */
#include "kernel/simd/fetch.h"

#define NV (GEMM_NR / VL) /* vectors of a panel row, and of a tile of keys */
#define MAX_NV 8          /* most vectors at once */
_Static_assert(GEMM_NR == ATTN_TILE && NV <= MAX_NV, "NV is of both");

enum elem { ELEM_BF16, ELEM_F16, ELEM_F32 };

ALWAYS_INLINE size_t elem_size(enum elem elem)
{
    return elem == ELEM_F32 ? 4 : 2;
}

ALWAYS_INLINE V V_load_elem(enum elem elem, const uint8_t *p)
{
    return elem == ELEM_BF16 ? V_load_bf16(p) : elem == ELEM_F16 ? V_load_f16(p) : V_load_f32(p);
}

/* acc[r][v] = fma(x[r * ldx], vector v at w, acc[r][v]) for mr rows and nv vectors. What there is less of is kept in
 * registers while the other goes by. */
ALWAYS_INLINE void outer_step(int mr, int nv, enum elem elem, V (*acc)[MAX_NV], const float *x, size_t ldx,
                              const uint8_t *w)
{
    V few[MAX_NV];
    if (mr < nv) {
        UNROLL
        for (int r = 0; r < mr; r++)
            few[r] = V_broadcast(x[(size_t)r * ldx]);
        UNROLL
        for (int v = 0; v < nv; v++) {
            V vector = V_load_elem(elem, w + (size_t)v * VL * elem_size(elem));
            UNROLL
            for (int r = 0; r < mr; r++)
                acc[r][v] = V_fma(few[r], vector, acc[r][v]);
        }
    } else {
        UNROLL
        for (int v = 0; v < nv; v++)
            few[v] = V_load_elem(elem, w + (size_t)v * VL * elem_size(elem));
        UNROLL
        for (int r = 0; r < mr; r++) {
            V row = V_broadcast(x[(size_t)r * ldx]);
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[r][v] = V_fma(row, few[v], acc[r][v]);
        }
    }
}

/* Rows of the next pass when rows are left: no more than mr, and as many in each pass. */
static inline int share(int rows, int mr)
{
    int passes = (rows + mr - 1) / mr;
    return (rows + passes - 1) / passes;
}

#include "kernel/simd/attention_float.h"
#include "kernel/simd/gemm_float.h"
