/* Kernels for AVX-512 (F, BW, DQ, VL). */
#define KFN(name) name##_avx512
#define KERNEL_ISA CPU_ISA_AVX512
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/x86/avx512.h"
#include "kernel/x86/avx512_rows.h"

#include "kernel/simd/math.h"

/* The low bytes of 16 lanes. */
static inline void low_bytes(void *to, const I *v)
{
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8((__m512i)v[0]));
}

#define MADD(a, b) ((I)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#include "kernel/x86/madd.h"

#define I8_MR 6 /* 12 accumulators, 12 of x, 2 of w and a product in 32 registers */
#define C8_MR 3
#define C8_NV 2
#include "kernel/simd/attention_c8.h"
#include "kernel/simd/float.h"
#include "kernel/simd/gemm_i8.h"
