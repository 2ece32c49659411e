/* Peak loops for I8MM: two rows of eight u8 by two columns of eight s8 at once. */
#define VEC_BYTES 16
#define INT8_DOT(acc, u8, s8, ones, t) __asm__ volatile("usmmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(u8), "w"(s8))
#define F32_FMA(acc, a, b) __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(acc) : "w"(a), "w"(b))
#include "kernel/simd/peak.h"

const struct peak_ops peak_i8mm = {
    .int8_macs = NUM_ACC * VEC_BYTES * 2, /* each byte meets two */
    .f32_macs = NUM_ACC * VEC_BYTES / 4,
    .int8 = int8_loop,
    .f32 = f32_loop,
    .read = read_loop,
};
