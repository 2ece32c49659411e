/* Peak loops for AVX-512 without VNNI: products in pairs to 16 bits, pairs to 32 bits, then the sum. */
#define VEC_BYTES 64
#define INT8_DOT(acc, u8, s8, ones, t)                                                                                 \
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"                               \
                     : "+v"(acc), "=&v"(t)                                                                             \
                     : "v"(u8), "v"(s8), "v"(ones))
#define F32_FMA(acc, a, b) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
#include "kernel/simd/peak.h"

const struct peak_ops peak_avx512 = PEAK_OPS;
