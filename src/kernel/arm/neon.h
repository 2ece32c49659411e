/* NEON vectors for kernel/simd: what the ARM tiers share. */
#include <arm_neon.h>
#include <string.h>

#define VL 4
#define GEMM_MR 2 /* 16 accumulators, 8 of weights and a broadcast in 32 registers */
#define ATTN_MR 6 /* 24 accumulators, 4 of K or V and a broadcast in 32 registers */
#define ATTN_ACC 24
typedef float32x4_t V;

static inline V V_zero(void)
{
    return vdupq_n_f32(0);
}
static inline V V_broadcast(float f)
{
    return vdupq_n_f32(f);
}
static inline V V_fma(V a, V b, V c)
{
    return vfmaq_f32(c, a, b);
}
static inline V V_mul(V a, V b)
{
    return vmulq_f32(a, b);
}
/* Not vmaxq and vminq, which answer NaN with NaN. */
static inline V V_max(V a, V b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline V V_min(V a, V b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline V V_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void V_store(float *p, V v)
{
    vst1q_f32(p, v);
}
static inline V V_load_i8(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}
static inline V V_load_f32(const uint8_t *p)
{
    return vreinterpretq_f32_u8(vld1q_u8(p));
}
static inline V V_load_bf16(const uint8_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
static inline V V_load_f16(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

#include "kernel/simd/math.h"

/* The low bytes of 16 lanes. */
static inline void low_bytes(void *to, const I *v)
{
    int16x8_t a = vcombine_s16(vmovn_s32((int32x4_t)v[0]), vmovn_s32((int32x4_t)v[1]));
    int16x8_t b = vcombine_s16(vmovn_s32((int32x4_t)v[2]), vmovn_s32((int32x4_t)v[3]));
    vst1q_s8(to, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
}
