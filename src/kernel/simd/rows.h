/* Row kernels of one tier over its vectors (simd/math.h), where ref's text leaves too much to a compiler. */
#include "kernel/simd/math.h"

void KFN(rmsnorm)(float *y, const float *x, const float *weight, int n, float eps)
{
    V lanes[LV];
    float lane[LANES];
    int i = 0;
    for (int v = 0; v < LV; v++)
        lanes[v] = V_broadcast(0);
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < LV; v++) {
            V xv = V_load(x + i + v * VL);
            lanes[v] = V_fma(xv, xv, lanes[v]);
        }
    for (int v = 0; v < LV; v++)
        V_store(lane + v * VL, lanes[v]);
    for (int j = 0; i + j < n; j++)
        lane[j] = fmaf(x[i + j], x[i + j], lane[j]);
    float inv = 1.0f / sqrtf(lanes_sum(lane) / (float)n + eps);
    for (i = 0; i + VL <= n; i += VL)
        V_store(y + i, V_load(x + i) * V_broadcast(inv) * V_load(weight + i));
    for (; i < n; i++)
        y[i] = x[i] * inv * weight[i];
}

void KFN(silu_mul)(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        V_store(y + i, V_silu_mul(V_load(gate + i), V_load(up + i)));
    for (; i < n; i++)
        y[i] = silu_mul_f32(gate[i], up[i]);
}

void KFN(add)(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        V_store(y + i, V_load(y + i) + V_load(x + i));
    for (; i < n; i++)
        y[i] += x[i];
}

void KFN(rope)(float *x, const float *cos, const float *sin, int d)
{
    int h = d / 2, i = 0;
    for (; i + VL <= h; i += VL) {
        V a = V_load(x + i), b = V_load(x + i + h), c = V_load(cos + i), s = V_load(sin + i);
        V_store(x + i, V_fma(a, c, -(b * s)));
        V_store(x + i + h, V_fma(b, c, a * s));
    }
    for (; i < h; i++) {
        float a = x[i], b = x[i + h];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + h] = fmaf(b, cos[i], a * sin[i]);
    }
}

/* clamp_rint; NaN gives lo. */
ALWAYS_INLINE I I_clamp_rint(V x, float lo, float hi)
{
    return I_rint(V_min(V_max(x, V_broadcast(lo)), V_broadcast(hi)));
}

void KFN(quant_dynamic)(uint8_t *xq, float *ret_scale, const float *x, int n)
{
    V most[LV];
    float lane[LANES];
    int i = 0;
    for (int v = 0; v < LV; v++)
        most[v] = V_broadcast(0);
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < LV; v++)
            most[v] = V_max(V_abs(V_load(x + i + v * VL)), most[v]);
    for (int v = 0; v < LV; v++)
        V_store(lane + v * VL, most[v]);
    for (int j = 0; i + j < n; j++)
        lane[j] = fabsf(x[i + j]) > lane[j] ? fabsf(x[i + j]) : lane[j];
    float s = lanes_max(lane) / 127.0f;
    s = s > 0 ? s : 1.0f;
    struct V_divisor by = V_divisor_of(s);
    for (i = 0; i + LANES <= n; i += LANES) {
        I q[LV];
        for (int v = 0; v < LV; v++)
            q[v] = I_clamp_rint(V_divide(&by, V_load(x + i + v * VL)), -127.0f, 127.0f) + 128;
        low_bytes(xq + i, q);
    }
    for (; i < n; i++)
        xq[i] = (uint8_t)((int32_t)clamp_rint(x[i] / s, -127.0f, 127.0f) + 128);
    pad_row(xq, n);
    *ret_scale = s;
}

/* c8_quant of 16 channels, to bytes. */
ALWAYS_INLINE void c8_quant_lanes(uint8_t *to, const float *x, const float *inv, const float *offset, int32_t add)
{
    I q[LV];
    for (int v = 0; v < LV; v++) {
        V scaled = V_load(x + v * VL) * V_load(inv + v * VL) + V_load(offset + v * VL);
        q[v] = I_clamp_rint(scaled, -128.0f, 127.0f) + add;
    }
    low_bytes(to, q);
}

void KFN(kv_write_c8)(void *k_tile, void *v_tile, int slot, const float *k, const float *v, int d,
                      const struct c8_scales *s)
{
    size_t len = (size_t)d, pd = (size_t)c8_padded_dim(d), t = (size_t)slot, i = 0;
    uint8_t *kt = (uint8_t *)k_tile + t * 4, *vt = (uint8_t *)v_tile + t / 4 * 4 * len + t % 4, q[LANES];
    for (; v && i + LANES <= len; i += LANES) {
        c8_quant_lanes(q, v + i, s->v_inv + i, s->v_offset + i, 0);
        for (size_t c = 0; c < LANES; c++)
            vt[(i + c) * 4] = q[c];
    }
    for (; v && i < len; i++)
        vt[i * 4] = (uint8_t)(int8_t)c8_quant(v[i], s->v_inv[i], s->v_offset[i]);
    for (i = 0; k && i + LANES <= len; i += LANES) {
        c8_quant_lanes(q, k + i, s->k_inv + i, s->k_offset + i, 128);
        for (size_t c = 0; c < LANES; c += 4)
            memcpy(kt + (i + c) * ATTN_TILE, q + c, 4);
    }
    for (; k && i < len; i++)
        kt[i / 4 * 4 * ATTN_TILE + i % 4] = (uint8_t)((int32_t)c8_quant(k[i], s->k_inv[i], s->k_offset[i]) + 128);
    for (; k && i < pd; i++)
        kt[i / 4 * 4 * ATTN_TILE + i % 4] = 128;
}
