/* The functions of ref/math.h on sixteen floats, bit for bit. */
#ifndef OCTAVO_KERNEL_X86_AVX512_MATH_H
#define OCTAVO_KERNEL_X86_AVX512_MATH_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The first n of 16 lanes. */
ALWAYS_INLINE __mmask16 mask16(size_t n)
{
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* exp_f32. max and min return their second operand for NaN, which lets it through; 2^n is exact, as two factors are. */
ALWAYS_INLINE __m512 exp_ps(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-87.3f), x);
    x = _mm512_min_ps(_mm512_set1_ps(88.7f), x);
    __m512 magic = _mm512_set1_ps(0x1.8p23f);
    __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), magic), magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(0x1.a01a02p-13f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.6c16c2p-10f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.111112p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555556p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555556p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

ALWAYS_INLINE __m512 rint_ps(__m512 x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The polynomial of exp2_f32. */
ALWAYS_INLINE __m512 exp2_poly(__m512 r)
{
    __m512 p = _mm512_set1_ps(0x1.5bb9fep-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3cea88p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b754p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf9bcp-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e42ap-1f));
    return _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
}

/* exp2_f32. */
ALWAYS_INLINE __m512 exp2_ps(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    __m512 n = rint_ps(x);
    return _mm512_scalef_ps(exp2_poly(_mm512_sub_ps(x, n)), n);
}

/* The polynomial of exp2_255_f32. */
ALWAYS_INLINE __m512 exp2_255_poly(__m512 r)
{
    __m512 p = _mm512_set1_ps(0x1.c23368p+3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.eeed3cp+5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.619028p+7f));
    return _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fdf69cp+7f));
}

ALWAYS_INLINE __m512 silu_mul_ps(__m512 gate, __m512 up)
{
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 e = exp_ps(_mm512_xor_ps(gate, _mm512_set1_ps(-0.0f)));
    return _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(one, e)), up);
}

/* Division of many numbers by one, correctly rounded without a divider: a quotient by the reciprocal, and two steps of
 * q += (x - q s) / s, whose remainder a fused multiply-add gives exactly. The first makes q faithful, and the second is
 * then correctly rounded (Markstein 1990, IBM J. Res. Dev. 34:1, theorem 8.1). Quotients so small that a remainder
 * underflows are wrong in their last bits only. */
struct divisor {
    __m512 s, inv;
    bool fast;
};

ALWAYS_INLINE struct divisor divisor_of(float s)
{
    return (struct divisor){_mm512_set1_ps(s), _mm512_set1_ps(1.0f / s), s > 0x1p-100f && s < 0x1p100f};
}

ALWAYS_INLINE __m512 divide(const struct divisor *d, __m512 x)
{
    if (!d->fast)
        return _mm512_div_ps(x, d->s);
    __m512 q = _mm512_mul_ps(x, d->inv);
    q = _mm512_fmadd_ps(_mm512_fnmadd_ps(q, d->s, x), d->inv, q);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, d->s, x), d->inv, q);
}

/* lanes_sum and lanes_max: halves are joined until one is left. */
ALWAYS_INLINE float tree_sum(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

ALWAYS_INLINE float tree_max(__m512 v)
{
    return _mm512_reduce_max_ps(v);
}

#endif
