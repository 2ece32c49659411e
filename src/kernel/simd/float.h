/* The float kernels of one tier, written once over a vector type; the file that includes this defines the macros of its
 * tier (V, VL, V_*) and KFN, and is compiled with its flags. Vectors run over output columns, keys or channels, never
 * along a reduction, so every output is the chain that ref/ writes down. */

#define NV (GEMM_NR / VL) /* vectors of a panel row, and of a tile of keys */
_Static_assert(GEMM_NR == ATTN_TILE, "NV is of both");

/* Rows of the next pass when rows are left: no more than mr, and as many in each pass. */
static inline int share(int rows, int mr)
{
    int passes = (rows + mr - 1) / mr;
    return (rows + passes - 1) / passes;
}

#include "kernel/simd/attention_float.h"
#include "kernel/simd/gemm_float.h"
