/* Kernels for AVX2 with FMA and F16C. Row kernels are ref's own text, compiled with this tier's flags. */
#define KFN(name) name##_avx2
#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include <immintrin.h>
#include <string.h>

#define VL 8
#define GEMM_MR 3
typedef __m256 V;

static inline V V_zero(void)
{
    return _mm256_setzero_ps();
}
static inline V V_broadcast(float f)
{
    return _mm256_set1_ps(f);
}
static inline V V_fma(V a, V b, V c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline V V_mul(V a, V b)
{
    return _mm256_mul_ps(a, b);
}
static inline V V_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void V_store(float *p, V v)
{
    _mm256_storeu_ps(p, v);
}
static inline V V_load_f32(const uint8_t *p)
{
    return _mm256_loadu_ps((const float *)p);
}
static inline V V_load_bf16(const uint8_t *p)
{
    __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
}
static inline V V_load_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

#include "kernel/x86/vector.h"
