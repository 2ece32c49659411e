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
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"

/* The low 16 bits of 16 lanes, in each four the pairs (0, 2) and (1, 3). */
static inline void P_pack(void *to, const I *p)
{
    __m512i pairs = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13));
    __m512i fours = _mm512_shuffle_epi8((__m512i)p[0], pairs);
    fours = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6), fours);
    _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(fours));
}

#include "kernel/x86/madd.h"

#define I8_MR 6 /* 12 accumulators, 12 of x, 2 of w and a product in 32 registers */
#define C8_MR 6
#define C8_NV 2
#include "kernel/simd/attention_c8.h"
#include "kernel/simd/float.h"
#include "kernel/simd/gemm_i8.h"
