/* Activations to integers with a zero point or a static scale, of one tier over its vectors (simd/math.h). */
#include "kernel/simd/math.h"

/* clamp_rint as a float; NaN gives lo. */
ALWAYS_INLINE V V_clamp_rint(V x, float lo, float hi)
{
    V magic = V_broadcast(0x1.8p23f);
    return V_min(V_max(x, V_broadcast(lo)), V_broadcast(hi)) + magic - magic;
}

/* 16 of x / s, with the zero point. */
ALWAYS_INLINE void quant_asym_lanes(uint8_t *xq, const float *x, const struct V_divisor *by, float zero)
{
    I q[LV];
    for (int v = 0; v < LV; v++) {
        V r = V_clamp_rint(V_divide(by, V_load(x + v * VL)), -512.0f, 512.0f) + V_broadcast(zero);
        q[v] = I_rint(V_clamp_rint(r, -128.0f, 127.0f)) + 128;
    }
    low_bytes(xq, q);
}

void KFN(quant_dynamic_asym)(uint8_t *xq, float *ret_scale, int32_t *ret_zero, const float *x, int n)
{
    V least[LV], most[LV];
    float lanes[2][LANES], lo = 0, hi = 0;
    int i = 0;
    for (int v = 0; v < LV; v++)
        least[v] = most[v] = V_broadcast(0);
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < LV; v++) {
            V xv = V_load(x + i + v * VL);
            least[v] = V_min(xv, least[v]);
            most[v] = V_max(xv, most[v]);
        }
    for (int v = 0; v < LV; v++) {
        V_store(lanes[0] + v * VL, least[v]);
        V_store(lanes[1] + v * VL, most[v]);
    }
    for (int j = 0; j < LANES; j++) {
        lo = lanes[0][j] < lo ? lanes[0][j] : lo;
        hi = lanes[1][j] > hi ? lanes[1][j] : hi;
    }
    for (; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float s = (hi - lo) / 255.0f;
    s = s > 0 ? s : 1.0f;
    float zero = clamp_rint(-128.0f - lo / s, -128.0f, 127.0f);
    struct V_divisor by = V_divisor_of(s);
    for (i = 0; i + LANES <= n; i += LANES)
        quant_asym_lanes(xq + i, x + i, &by, zero);
    for (; i < n; i++)
        xq[i] = (uint8_t)((int32_t)clamp_rint(clamp_rint(x[i] / s, -512.0f, 512.0f) + zero, -128.0f, 127.0f) + 128);
    pad_row(xq, n);
    *ret_scale = s;
    *ret_zero = (int32_t)zero;
}

void KFN(quant_static)(uint8_t *xq, const float *x, int n, float inv_scale, float offset)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        I q[LV];
        for (int v = 0; v < LV; v++) {
            V scaled = V_load(x + i + v * VL) * V_broadcast(inv_scale) + V_broadcast(offset);
            q[v] = I_rint(V_clamp_rint(scaled, -128.0f, 127.0f)) + 128;
        }
        low_bytes(xq + i, q);
    }
    for (; i < n; i++)
        xq[i] = (uint8_t)((int32_t)clamp_rint(x[i] * inv_scale + offset, -128.0f, 127.0f) + 128);
    pad_row(xq, n);
}
