/* Kernels for Armv8.2 with dot products of four s8 x s8 pairs (sdot). u8 = q + 128 becomes q by its top bit. */
#define KFN(name) name##_dotprod
#define KERNEL_ISA CPU_ISA_DOTPROD
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/arm/neon.h"
#define DOT(acc, u, s) ((acc) = (I)vdotq_s32((int32x4_t)(acc), (int8x16_t)(u), (int8x16_t)(s)))
#define DOT_LESS 128
#define DOT_FLIP ((int32_t)0x80808080)
#include "kernel/simd/fours.h"

#define I8_MR 3 /* 24 accumulators, 3 of x and one of w in 32 registers */
#define C8_MR 3
#define C8_NV 2
#include "kernel/simd/attention_c8.h"
#include "kernel/simd/float.h"
#include "kernel/simd/gemm_i8.h"
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"
#include "kernel/simd/rows.h"
