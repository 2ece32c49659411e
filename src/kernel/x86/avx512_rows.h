/* Row kernels for AVX-512, where ref's text leaves too much to a compiler; the tiers that have it include this. */
#include "kernel/x86/avx512_math.h"

#include <string.h>

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

void KFN(add)(float *y, const float *x, int n)
{
    size_t len = (size_t)n, i = 0;
    for (; i + 16 <= len; i += 16)
        _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(y + i), _mm512_loadu_ps(x + i)));
    __mmask16 m = mask16(len - i);
    if (i < len)
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_add_ps(_mm512_maskz_loadu_ps(m, y + i), _mm512_maskz_loadu_ps(m, x + i)));
}

void KFN(rope)(float *x, const float *cos, const float *sin, int d)
{
    size_t h = (size_t)d / 2;
    for (size_t i = 0; i < h; i += 16) {
        __mmask16 m = mask16(h - i);
        __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + h + i);
        __m512 c = _mm512_maskz_loadu_ps(m, cos + i), s = _mm512_maskz_loadu_ps(m, sin + i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + h + i, m, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

/* c8_quant of 16 channels; NaN gives -128. */
ALWAYS_INLINE __m512i c8_quant_ps(const float *x, const float *inv, const float *offset, __mmask16 m)
{
    __m512 q = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x), _mm512_maskz_loadu_ps(m, inv));
    q = _mm512_add_ps(q, _mm512_maskz_loadu_ps(m, offset));
    q = _mm512_max_ps(q, _mm512_set1_ps(-128.0f));
    return _mm512_cvtps_epi32(_mm512_min_ps(q, _mm512_set1_ps(127.0f)));
}

void KFN(kv_write_c8)(void *k_tile, void *v_tile, int slot, const float *k, const float *v, int d,
                      const struct c8_scales *s)
{
    size_t len = (size_t)d, pd = (size_t)c8_padded_dim(d), t = (size_t)slot;
    uint8_t *kt = (uint8_t *)k_tile + t * 4;
    int8_t *vt = (int8_t *)v_tile + t / 4 * 4 * len;
    __mmask64 byte = 0x1111111111111111ull << (t % 4); /* of each four, this token's */
    __m128i shift = _mm_cvtsi32_si128((int)(t % 4) * 8);
    for (size_t i = 0; k && i < len; i += 16) {
        __mmask16 m = mask16(len - i);
        __m512i q = _mm512_add_epi32(c8_quant_ps(k + i, s->k_inv + i, s->k_offset + i, m), _mm512_set1_epi32(128));
        q = _mm512_mask_mov_epi32(_mm512_set1_epi32(128), m, q);
        uint8_t fours[16];
        _mm_storeu_si128((__m128i *)fours, _mm512_cvtepi32_epi8(q));
        for (size_t c = 0; c < 16 && i + c < pd; c += 4)
            memcpy(kt + (i + c) * ATTN_TILE, fours + c, 4);
    }
    for (size_t i = 0; v && i < len; i += 16) {
        __mmask16 m = mask16(len - i);
        __m512i q = _mm512_sll_epi32(c8_quant_ps(v + i, s->v_inv + i, s->v_offset + i, m), shift);
        size_t bytes = (len - i < 16 ? len - i : 16) * 4;
        _mm512_mask_storeu_epi8(vt + i * 4, bytes == 64 ? byte : byte & ((1ull << bytes) - 1), q);
    }
}
