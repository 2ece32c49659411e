/* Dots of four (simd/gemm_i8.h) for x86 without VNNI, in two parts: bytes become 16-bit numbers, first the even ones of
 * each four and then the odd ones, which vpmaddwd multiplies and adds exactly. */
#include "kernel/simd/math.h"

typedef int16_t S16 __attribute__((vector_size(VL * 4)));
typedef uint16_t U16 __attribute__((vector_size(VL * 4)));

#define PARTS 2
#define DOT_LESS 0
/* Assembly, because gcc 12 makes all products first and then lacks the registers for them. */
#define DOT(acc, u, s)                                                                                                 \
    do {                                                                                                               \
        I product;                                                                                                     \
        __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(acc), "=&v"(product) : "v"(u), "v"(s));              \
    } while (0)

ALWAYS_INLINE I U_of(I d, int part)
{
    return part ? (I)((U16)d >> 8) : d & 0x00ff00ff;
}

ALWAYS_INLINE I S_of(I d, int part)
{
    return (I)((S16)(part ? (U16)d : (U16)d << 8) >> 8);
}

/* q goes in whole: its even channels, and its odd ones. P_pack makes the same pairs of a plane of p. */
#define Q_PLANES 1

ALWAYS_INLINE void Q_pack(int8_t *to, const int32_t *q)
{
    int16_t pairs[4] = {(int16_t)q[0], (int16_t)q[2], (int16_t)q[1], (int16_t)q[3]};
    memcpy(to, pairs, sizeof(pairs));
}
