/* Peak loops for AVX-VNNI: four products and their sum in one instruction. */
#define VEC_BYTES 32
#define INT8_DOT(acc, u8, s8, ones, t) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u8), "x"(s8))
#define F32_FMA(acc, a, b) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b))
#include "kernel/simd/peak.h"

const struct peak_ops peak_avxvnni = PEAK_OPS;
