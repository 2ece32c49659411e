/* Row kernels for AVX-512, where ref's text leaves too much to a compiler; the tiers that have it include this. */
#include "kernel/x86/avx512_math.h"

void KFN(rmsnorm)(float *y, const float *x, const float *weight, int n, float eps)
{
    __m512 lane = _mm512_setzero_ps();
    size_t len = (size_t)n;
    for (size_t i = 0; i < len; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(mask16(len - i), x + i); /* adding 0 * 0 changes no sum */
        lane = _mm512_fmadd_ps(v, v, lane);
    }
    float inv = 1.0f / sqrtf(tree_sum(lane) / (float)n + eps);
    __m512 scale = _mm512_set1_ps(inv);
    for (size_t i = 0; i < len; i += 16) {
        __mmask16 m = mask16(len - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), scale);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, weight + i)));
    }
}

void KFN(silu_mul)(float *y, const float *gate, const float *up, int n)
{
    size_t len = (size_t)n;
    for (size_t i = 0; i < len; i += 16) {
        __mmask16 m = mask16(len - i);
        __m512 v = silu_mul_ps(_mm512_maskz_loadu_ps(m, gate + i), _mm512_maskz_loadu_ps(m, up + i));
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}

/* clamp_rint, as bytes of q + 128: NaN gives lo. */
ALWAYS_INLINE __m128i to_u8(__m512 q, float lo, float hi)
{
    q = _mm512_max_ps(q, _mm512_set1_ps(lo));
    q = _mm512_min_ps(q, _mm512_set1_ps(hi));
    return _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(q), _mm512_set1_epi32(128)));
}

void KFN(quant_dynamic)(uint8_t *xq, float *ret_scale, const float *x, int n)
{
    __m512 most = _mm512_setzero_ps(), most2 = most;
    size_t len = (size_t)n, i = 0;
    for (; i + 32 <= len; i += 32) {
        most = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i)), most);
        most2 = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i + 16)), most2);
    }
    for (; i < len; i += 16)
        most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(mask16(len - i), x + i)), most);
    float s = tree_max(_mm512_max_ps(most, most2)) / 127.0f;
    s = s > 0 ? s : 1.0f;
    struct divisor by = divisor_of(s);
    for (i = 0; i + 16 <= len; i += 16)
        _mm_storeu_si128((__m128i *)(xq + i), to_u8(divide(&by, _mm512_loadu_ps(x + i)), -127.0f, 127.0f));
    if (i < len) { /* what lies beyond is 0 / s, the padding */
        size_t padded = (len - i + 3) / 4 * 4;
        __m128i q = to_u8(divide(&by, _mm512_maskz_loadu_ps(mask16(len - i), x + i)), -127.0f, 127.0f);
        _mm_mask_storeu_epi8(xq + i, mask16(padded), q);
    }
    *ret_scale = s;
}
