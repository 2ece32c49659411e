/* Dots of four (simd/gemm_i8.h) for instructions that multiply bytes as they lie in memory. The tier defines DOT,
 * DOT_LESS and DOT_FLIP, what its u8 are exclusive-ored with. */
#include "kernel/simd/math.h"

typedef I D, U, S;

ALWAYS_INLINE D D_load(const void *p)
{
    return I_load(p);
}

ALWAYS_INLINE D D_broadcast(const void *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return I_broadcast(four);
}

ALWAYS_INLINE U U_of(D d)
{
    return d ^ DOT_FLIP;
}

ALWAYS_INLINE S S_of(D d)
{
    return d;
}

/* 16 bits of q are 256 * hi + lo, both signed. */
#define Q_PLANES 2

ALWAYS_INLINE void Q_pack(int8_t *to, const int32_t *q)
{
    for (int c = 0; c < 4; c++) {
        int32_t hi = (q[c] + 128) >> 8;
        to[c] = (int8_t)hi;
        to[4 + c] = (int8_t)(q[c] - hi * 256);
    }
}

ALWAYS_INLINE S Q_of(const int8_t *p, int plane)
{
    return D_broadcast(p + plane * 4);
}
