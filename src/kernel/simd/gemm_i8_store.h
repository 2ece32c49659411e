/* From the integer sums of an INT8 GEMM to what is stored, of one tier over its vectors (simd/math.h). The tier defines
 * DOT_LESS: what its dots take off each u8 of x. */
#include "kernel/simd/math.h"

/* VL columns of one row, in the order of struct gemm_i8_args. */
ALWAYS_INLINE V i8_finish(const struct gemm_i8_args *a, const int32_t *sum, int r, int j)
{
    N acc = (N)I_load(sum) - (N)I_load(a->w_sum + j) * (128 - DOT_LESS); /* x is q + 128 */
    if (a->col_add)
        acc += (N)I_load(a->col_add + j);
    if (a->row_zero)
        acc -= (uint32_t)a->row_zero[r] * (N)I_load(a->col_sum + j);
    if (a->col_zero)
        acc -= (uint32_t)a->row_sum[r] * (N)I_load(a->col_zero + j);
    V f = V_from_int((I)acc) * V_load(a->col_scale + j);
    if (a->row_scale)
        f = f * V_broadcast(a->row_scale[r]);
    if (a->bias)
        f = f + V_load(a->bias + j);
    return f;
}

static void i8_store(const struct gemm_i8_args *a, const int32_t *sum, int r, int p)
{
    float f[GEMM_NR];
    for (int j = 0; j < GEMM_NR; j += VL)
        V_store(f + j, i8_finish(a, sum + j, r, p * GEMM_NR + j));
    if (a->swiglu)
        for (int j = 0; j < SWIGLU_NR; j += VL)
            V_store(f + j, V_silu_mul(V_load(f + j), V_load(f + SWIGLU_NR + j)));
    int nr = a->swiglu ? SWIGLU_NR : GEMM_NR, cols = a->n - p * nr < nr ? a->n - p * nr : nr;
    memcpy(a->y + (size_t)r * a->ldy + (size_t)p * (size_t)nr, f, (size_t)cols * sizeof(float));
}
