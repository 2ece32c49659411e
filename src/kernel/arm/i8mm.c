/* Kernels for Arm with I8MM: dot products of four u8 x s8 pairs (usdot), and of two rows of eight by two columns of
 * eight (usmmla), which the GEMM takes where there are two rows. */
#define KFN(name) name##_i8mm
#define KERNEL_ISA CPU_ISA_I8MM
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/arm/neon.h"
#define DOT(acc, u, s) ((acc) = (I)vusdotq_s32((int32x4_t)(acc), (uint8x16_t)(u), (int8x16_t)(s)))
#define DOT_LESS 0
#define DOT_FLIP 0
#include "kernel/simd/fours.h"

#define I8_MR 6
#define C8_MR 3
#define C8_NV 2
#include "kernel/simd/attention_c8.h"
#include "kernel/simd/float.h"
#define I8_OWN_DOTS "kernel/arm/i8mm_gemm.h"
#include "kernel/simd/gemm_i8.h"
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"
#include "kernel/simd/rows.h"
