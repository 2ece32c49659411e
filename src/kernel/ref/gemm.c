/* Float GEMM: the specification. One chain of fma over k for each output, so that a row's result cannot depend on the
 * other rows, on tiles or on threads. */
#include "kernel/ops.h"
#include "kernel/ref/convert.h"

#include <math.h>

#define F32_SAME(x) (x)

#define GEMM(name, type, convert)                                                                                      \
    void name(float *y, size_t ldy, const float *x, size_t ldx, int rows, const void *w, int k, int n,                 \
              int panel_begin, int panel_end, const float *bias)                                                       \
    {                                                                                                                  \
        for (int p = panel_begin; p < panel_end; p++) {                                                                \
            const type *wp = (const type *)w + (size_t)p * (size_t)k * GEMM_NR;                                        \
            int j0 = p * GEMM_NR, cols = n - j0 < GEMM_NR ? n - j0 : GEMM_NR;                                          \
            for (int r = 0; r < rows; r++) {                                                                           \
                float acc[GEMM_NR] = {0};                                                                              \
                for (int i = 0; i < k; i++)                                                                            \
                    for (int j = 0; j < GEMM_NR; j++)                                                                  \
                        acc[j] = fmaf(x[(size_t)r * ldx + (size_t)i], convert(wp[(size_t)i * GEMM_NR + (size_t)j]),    \
                                      acc[j]);                                                                         \
                for (int j = 0; j < cols; j++)                                                                         \
                    y[(size_t)r * ldy + (size_t)(j0 + j)] = bias ? bias[j0 + j] + acc[j] : acc[j];                     \
            }                                                                                                          \
        }                                                                                                              \
    }

GEMM(gemm_bf16_ref, uint16_t, f32_from_bf16)
GEMM(gemm_f16_ref, uint16_t, f32_from_f16)
GEMM(gemm_f32_ref, float, F32_SAME)
