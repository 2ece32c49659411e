/* AVX-512 vectors for kernel/simd/float.h: what the tiers that have them share. */
#include <immintrin.h>
#include <string.h>

#define VL 16
#define GEMM_MR 8
#define ATTN_MR 12 /* 24 accumulators, 2 of K or V in 32 registers; broadcasts are operands */
#define ATTN_ACC 24
typedef __m512 V;

static inline V V_zero(void)
{
    return _mm512_setzero_ps();
}
static inline V V_broadcast(float f)
{
    return _mm512_set1_ps(f);
}
static inline V V_fma(V a, V b, V c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline V V_mul(V a, V b)
{
    return _mm512_mul_ps(a, b);
}
static inline V V_max(V a, V b)
{
    return _mm512_max_ps(a, b);
}
static inline V V_min(V a, V b)
{
    return _mm512_min_ps(a, b);
}
static inline V V_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void V_store(float *p, V v)
{
    _mm512_storeu_ps(p, v);
}
static inline V V_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline V V_load_f32(const uint8_t *p)
{
    return _mm512_loadu_ps((const float *)p);
}
static inline V V_load_bf16(const uint8_t *p)
{
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}
static inline V V_load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

#include "kernel/simd/math.h"

/* The low bytes of 16 lanes. */
static inline void low_bytes(void *to, const I *v)
{
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8((__m512i)v[0]));
}
