/* Kernels for AVX2 with FMA and F16C. */
#define KFN(name) name##_avx2
#define KERNEL_ISA CPU_ISA_AVX2
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/x86/ymm.h"
#include "kernel/x86/madd.h"

#define C8_MR 6
#define C8_NV 1
#include "kernel/simd/attention_c8.h"
#include "kernel/simd/float.h"
#undef DOT_LESS
#define DOT_LESS 128
#include "kernel/simd/gemm_i8_store.h"
#include "kernel/x86/avx2_gemm.h"
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"
#include "kernel/simd/rows.h"
