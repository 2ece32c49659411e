/* Peak loops for AVX-512 with VNNI: four products and their sum in one instruction. */
#define VEC_BYTES 64
#define INT8_DOT(acc, u8, s8, ones, t) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8))
#define F32_FMA(acc, a, b) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
#include "kernel/simd/peak.h"

const struct peak_ops peak_avx512vnni = PEAK_OPS;
