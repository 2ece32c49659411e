/* Peak loops for Armv8.2 dot products: four s8 x s8. */
#define VEC_BYTES 16
#define INT8_DOT(acc, u8, s8, ones, t) __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(u8), "w"(s8))
#define F32_FMA(acc, a, b) __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(acc) : "w"(a), "w"(b))
#include "kernel/simd/peak.h"

const struct peak_ops peak_dotprod = PEAK_OPS;
