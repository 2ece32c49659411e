/* exp and the fixed reduction, as every variant computes them. */
#ifndef OCTAVO_KERNEL_REF_MATH_H
#define OCTAVO_KERNEL_REF_MATH_H

#include "kernel/ref/convert.h"

#include <math.h>

/* exp(x) to about 1e-7 relative, for x clamped to [-87.3, 88.7]: n = round(x / ln 2), a polynomial (Taylor, degree 7)
 * on the rest, |r| <= ln2/2, and n added to the exponent. Rounding by adding 1.5*2^23 is exact and the same in
 * scalar and vector code. NaN gives NaN. */
static inline float exp_f32(float x)
{
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.7f ? 88.7f : x;
    float t = fmaf(x, 0x1.715476p+0f, 0x1.8p23f);
    float n = t - 0x1.8p23f;
    float r = fmaf(n, -0x1.62e4p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.a01a02p-13f;
    p = fmaf(p, r, 0x1.6c16c2p-10f);
    p = fmaf(p, r, 0x1.111112p-7f);
    p = fmaf(p, r, 0x1.555556p-5f);
    p = fmaf(p, r, 0x1.555556p-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* 2^n in two factors, because n = 128 has no float of its own */
    int32_t half = (int32_t)(f32_bits(t) - 0x4b400000) >> 1, rest = (int32_t)(f32_bits(t) - 0x4b400000) - half;
    return p * f32_from_bits((uint32_t)(half + 127) << 23) * f32_from_bits((uint32_t)(rest + 127) << 23);
}

/* 2^x for x <= 0, clamped at -126, to about 2e-7 relative; 2^0 is 1. For attention over integers, where log2(e) is part
 * of a scale. The polynomial is minimax on [-1/2, 1/2] with
 * its first coefficient held at 1. */
static inline float exp2_f32(float x)
{
    x = x < -126.0f ? -126.0f : x;
    float t = x + 0x1.8p23f;
    float r = x - (t - 0x1.8p23f);
    float p = 0x1.5bb9fep-10f;
    p = fmaf(p, r, 0x1.3cea88p-7f);
    p = fmaf(p, r, 0x1.c6b754p-5f);
    p = fmaf(p, r, 0x1.ebf9bcp-3f);
    p = fmaf(p, r, 0x1.62e42ap-1f);
    p = fmaf(p, r, 1.0f);
    return p * f32_from_bits((f32_bits(t) - 0x4b400000u + 127u) << 23);
}

/* 255 * 2^x for x <= 0, to 1e-4 relative: what is rounded to eight bits needs no more. Minimax as well. */
static inline float exp2_255_f32(float x)
{
    x = x < -126.0f ? -126.0f : x;
    float t = x + 0x1.8p23f;
    float r = x - (t - 0x1.8p23f);
    float p = 0x1.c23368p+3f;
    p = fmaf(p, r, 0x1.eeed3cp+5f);
    p = fmaf(p, r, 0x1.619028p+7f);
    p = fmaf(p, r, 0x1.fdf69cp+7f);
    return p * f32_from_bits((f32_bits(t) - 0x4b400000u + 127u) << 23);
}

static inline float silu_mul_f32(float gate, float up)
{
    return gate / (1.0f + exp_f32(-gate)) * up;
}

/* The tree over 16 lanes: halves are added until one is left. */
static inline float lanes_sum(float lane[16])
{
    for (int w = 8; w > 0; w >>= 1)
        for (int i = 0; i < w; i++)
            lane[i] += lane[i + w];
    return lane[0];
}

static inline float lanes_max(float lane[16])
{
    for (int w = 8; w > 0; w >>= 1)
        for (int i = 0; i < w; i++)
            lane[i] = lane[i] > lane[i + w] ? lane[i] : lane[i + w];
    return lane[0];
}

#endif
