/* Kernels for AVX-VNNI: AVX2 with dot products of four u8 x s8 pairs without saturation (vpdpbusd). */
#define KFN(name) name##_avxvnni
#define KERNEL_ISA CPU_ISA_AVXVNNI
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/x86/ymm.h"
/* Assembly, because gcc 12 copies an accumulator before it lets the intrinsic overwrite it; VEX, because an assembler
 * would take AVX-512's instruction of the same name. */
#define DOT(acc, u, s) __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u), "x"(s))
#define DOT_LESS 0
#define DOT_FLIP 0
#include "kernel/simd/fours.h"

#define I8_MR 3 /* 12 accumulators, 3 of x and one of w in 16 registers */
#define C8_MR 3
#define C8_NV 2
#include "kernel/simd/attention_c8.h"
#include "kernel/simd/float.h"
#include "kernel/simd/gemm_i8.h"
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"
#include "kernel/simd/rows.h"
