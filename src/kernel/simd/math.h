/* The functions of ref/math.h over vectors of VL floats, bit for bit. A tier defines V (floats), VL, V_load, V_store,
 * V_broadcast, V_fma, V_max(a, b): a > b ? a : b, V_min(a, b): a < b ? a : b, and low_bytes; what is here needs nothing
 * else of it but the compiler's vectors. Scalar tails are ref's own functions. */
#ifndef OCTAVO_KERNEL_SIMD_MATH_H
#define OCTAVO_KERNEL_SIMD_MATH_H

#include "kernel/ref/math.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef ALWAYS_INLINE
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

/* For the loop that follows: wholly, so that arrays become registers, or not at all, so that addresses stay few. clang
 * takes GCC's pragma as a wish, and leaves the arrays in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#define NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_TWICE _Pragma("GCC unroll 2")
#define UNROLL_4 _Pragma("GCC unroll 4")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

#define LANES 16
#define LV (LANES / VL) /* vectors of 16 lanes */

typedef int32_t I __attribute__((vector_size(VL * 4)));
typedef uint32_t N __attribute__((vector_size(VL * 4))); /* wraps */

ALWAYS_INLINE I I_load(const void *p)
{
    I v;
    memcpy(&v, p, sizeof(v));
    return v;
}

ALWAYS_INLINE void I_store(void *p, I v)
{
    memcpy(p, &v, sizeof(v));
}

ALWAYS_INLINE I I_broadcast(int32_t i)
{
    return (I){0} + i;
}

/* Four bytes, the same in every lane. */
ALWAYS_INLINE I I_broadcast4(const void *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return I_broadcast(four);
}

ALWAYS_INLINE V V_from_int(I i)
{
    return __builtin_convertvector(i, V);
}

/* rint, for |x| < 2^22. */
ALWAYS_INLINE I I_rint(V x)
{
    return (I)(x + V_broadcast(0x1.8p23f)) - 0x4b400000;
}

/* Where mask is all ones, a; where it is 0, b. */
ALWAYS_INLINE V V_select(I mask, V a, V b)
{
    return (V)(((I)a & mask) | ((I)b & ~mask));
}

ALWAYS_INLINE I I_select(I mask, I a, I b)
{
    return (a & mask) | (b & ~mask);
}

ALWAYS_INLINE V V_abs(V x)
{
    return (V)((I)x & 0x7fffffff);
}

/* 2^n for -127 < n < 128. */
ALWAYS_INLINE V V_power(I n)
{
    return (V)((N)(n + 127) << 23);
}

/* e^x / 2^n. */
ALWAYS_INLINE V V_exp_rest(V x, V n)
{
    V r = V_fma(n, V_broadcast(-0x1.62e4p-1f), x);
    r = V_fma(n, V_broadcast(-0x1.7f7d1cp-20f), r);
    V p = V_broadcast(0x1.a01a02p-13f);
    p = V_fma(p, r, V_broadcast(0x1.6c16c2p-10f));
    p = V_fma(p, r, V_broadcast(0x1.111112p-7f));
    p = V_fma(p, r, V_broadcast(0x1.555556p-5f));
    p = V_fma(p, r, V_broadcast(0x1.555556p-3f));
    p = V_fma(p, r, V_broadcast(0.5f));
    p = V_fma(p, r, V_broadcast(1.0f));
    return V_fma(p, r, V_broadcast(1.0f));
}

/* exp_f32: NaN goes through. */
ALWAYS_INLINE V V_exp(V x)
{
    x = V_max(V_broadcast(-87.3f), x);
    x = V_min(V_broadcast(88.7f), x);
    V magic = V_broadcast(0x1.8p23f), t = V_fma(x, V_broadcast(0x1.715476p+0f), magic), n = t - magic;
    I whole = (I)t - 0x4b400000, half = whole >> 1;
    return V_exp_rest(x, n) * V_power(half) * V_power(whole - half);
}

/* The same for x <= 0, NaN and minus infinity: 2^n is then one float, and the product is rounded once in either form.
 */
ALWAYS_INLINE V V_exp_most_0(V x)
{
    x = V_max(V_broadcast(-87.3f), x);
    V magic = V_broadcast(0x1.8p23f), t = V_fma(x, V_broadcast(0x1.715476p+0f), magic), n = t - magic;
    return V_exp_rest(x, n) * V_power((I)t - 0x4b400000);
}

/* 2^(x + 1): exactly twice exp2_f32, in an instruction less. */
ALWAYS_INLINE V V_exp2_twice(V x)
{
    x = V_max(V_broadcast(-126.0f), x);
    V magic = V_broadcast(0x1.8p23f + 128), t = x + magic, r = x - (t - magic);
    V p = V_broadcast(0x1.5bb9fep-10f);
    p = V_fma(p, r, V_broadcast(0x1.3cea88p-7f));
    p = V_fma(p, r, V_broadcast(0x1.c6b754p-5f));
    p = V_fma(p, r, V_broadcast(0x1.ebf9bcp-3f));
    p = V_fma(p, r, V_broadcast(0x1.62e42ap-1f));
    p = V_fma(p, r, V_broadcast(1.0f));
    return p * (V)((N)t << 23);
}

/* exp2_255_f32: half of its coefficients, twice the power. */
ALWAYS_INLINE V V_exp2_255(V x)
{
    x = V_max(V_broadcast(-126.0f), x);
    V magic = V_broadcast(0x1.8p23f + 128), t = x + magic, r = x - (t - magic);
    V p = V_broadcast(0x1.c23368p+2f);
    p = V_fma(p, r, V_broadcast(0x1.eeed3cp+4f));
    p = V_fma(p, r, V_broadcast(0x1.619028p+6f));
    p = V_fma(p, r, V_broadcast(0x1.fdf69cp+6f));
    return p * (V)((N)t << 23);
}

/* exp2_f32. */
ALWAYS_INLINE V V_exp2(V x)
{
    return V_exp2_twice(x) * V_broadcast(0.5f);
}

ALWAYS_INLINE V V_silu_mul(V gate, V up)
{
    return gate / (V_broadcast(1.0f) + V_exp(-gate)) * up;
}

/* Division of many numbers by one, correctly rounded without a divider: avx512_math.h says why. */
struct V_divisor {
    V s, inv;
    bool fast;
};

ALWAYS_INLINE struct V_divisor V_divisor_of(float s)
{
    return (struct V_divisor){V_broadcast(s), V_broadcast(1.0f / s), s > 0x1p-100f && s < 0x1p100f};
}

ALWAYS_INLINE V V_divide(const struct V_divisor *d, V x)
{
    if (!d->fast)
        return x / d->s;
    V q = x * d->inv;
    q = V_fma(V_fma(-q, d->s, x), d->inv, q);
    return V_fma(V_fma(-q, d->s, x), d->inv, q);
}

/* lanes_sum. */
ALWAYS_INLINE float V_lanes_sum(const V *lanes)
{
    typedef float quarter __attribute__((vector_size(16)));
    quarter q[4];
    memcpy(q, lanes, sizeof(q));
    quarter sum = (q[0] + q[2]) + (q[1] + q[3]);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

typedef int32_t I4 __attribute__((vector_size(16)));

ALWAYS_INLINE int32_t I_max_across(I v)
{
    I4 part[VL / 4], most;
    memcpy(part, &v, sizeof(v));
    most = part[0];
    for (int i = 1; i < VL / 4; i++)
        most = (most & (part[i] < most)) | (part[i] & ~(part[i] < most));
    int32_t a = most[0] > most[1] ? most[0] : most[1], b = most[2] > most[3] ? most[2] : most[3];
    return a > b ? a : b;
}

ALWAYS_INLINE int32_t I_sum_across(I v)
{
    I4 part[VL / 4], sum;
    memcpy(part, &v, sizeof(v));
    sum = part[0];
    for (int i = 1; i < VL / 4; i++)
        sum += part[i];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

#endif
