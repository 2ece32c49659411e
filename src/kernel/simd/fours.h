/* Dots of four (simd/gemm_i8.h) for instructions that multiply bytes as they lie in memory. The tier defines DOT,
 * DOT_LESS and DOT_FLIP, what its u8 are exclusive-ored with. */
#include "kernel/simd/math.h"

#define PARTS 1

ALWAYS_INLINE I U_of(I d, int part)
{
    (void)part;
    return d ^ DOT_FLIP;
}

ALWAYS_INLINE I S_of(I d, int part)
{
    (void)part;
    return d;
}

/* 16 bits of q are 256 * hi + lo, both signed. */
#define Q_PLANES 2
#define P_pack low_bytes

ALWAYS_INLINE void Q_pack(int8_t *to, const int32_t *q)
{
    for (int c = 0; c < 4; c++) {
        int32_t hi = (q[c] + 128) >> 8;
        to[c] = (int8_t)hi;
        to[4 + c] = (int8_t)(q[c] - hi * 256);
    }
}
