/* Dots of four (simd/gemm_i8.h) for x86 without VNNI. vpmaddubsw saturates, so bytes become 16-bit numbers, the even
 * and the odd ones of each four apart, which vpmaddwd multiplies and adds exactly. The tier defines MADD, that on I. */
#include "kernel/simd/math.h"

typedef int16_t S16 __attribute__((vector_size(VL * 4)));
typedef uint16_t U16 __attribute__((vector_size(VL * 4)));

typedef I D;
typedef struct {
    I even, odd;
} U, S;

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
    return (U){d & 0x00ff00ff, (I)((U16)d >> 8)};
}

ALWAYS_INLINE S S_of(D d)
{
    return (S){(I)((S16)((U16)d << 8) >> 8), (I)((S16)d >> 8)};
}

#define DOT_LESS 0
#define DOT(acc, u, s) ((acc) += MADD((u).even, (s).even), (acc) += MADD((u).odd, (s).odd))

/* q goes in whole: its even channels, and its odd ones. */
#define Q_PLANES 1

ALWAYS_INLINE void Q_pack(int8_t *to, const int32_t *q)
{
    int16_t pairs[4] = {(int16_t)q[0], (int16_t)q[2], (int16_t)q[1], (int16_t)q[3]};
    memcpy(to, pairs, sizeof(pairs));
}

ALWAYS_INLINE S Q_of(const int8_t *p, int plane)
{
    (void)plane;
    return (S){D_broadcast(p), D_broadcast(p + 4)};
}
