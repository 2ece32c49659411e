/* 256-bit vectors for kernel/simd: what AVX2 and AVX-VNNI share. */
#include <immintrin.h>

#define VL 8
#define GEMM_MR 3
#define ATTN_MR 6 /* 12 accumulators, 2 of K or V and a broadcast in 16 registers */
#define ATTN_ACC 12
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
static inline V V_max(V a, V b)
{
    return _mm256_max_ps(a, b);
}
static inline V V_min(V a, V b)
{
    return _mm256_min_ps(a, b);
}
static inline V V_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void V_store(float *p, V v)
{
    _mm256_storeu_ps(p, v);
}
static inline V V_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
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

#include "kernel/simd/math.h"

/* The low bytes of 16 lanes. */
static inline void low_bytes(void *to, const I *v)
{
    __m256i a = (__m256i)(v[0] & 0xff), b = (__m256i)(v[1] & 0xff), words = _mm256_packus_epi32(a, b);
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(to, _mm_shuffle_epi32(bytes, 0xd8));
}

/* The low 16 bits of 16 lanes, in each four the pairs (0, 2) and (1, 3). */
static inline void P_pack(void *to, const I *p)
{
    const __m256i pairs = _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13,
                                           0, 1, 8, 9, 4, 5, 12, 13);
    __m256i a = _mm256_shuffle_epi8((__m256i)p[0], pairs), b = _mm256_shuffle_epi8((__m256i)p[1], pairs);
    __m256i fours = _mm256_unpacklo_epi64(a, b); /* 0, 2, 1, 3 */
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(fours, 0xd8));
}
