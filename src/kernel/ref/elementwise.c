/* Row kernels: the specification. Compiled as it stands for ref, and again by each x86/ file with its own flags: there
 * is no reduction here whose order the compiler could choose, so vectorising cannot change a bit.
 * KFN(name) gives the variant's symbol. */
#ifndef KFN
#define KFN(name) name##_ref
#endif

#include "kernel/ops.h"
#include "kernel/ref/convert.h"
#include "kernel/ref/math.h"

#ifndef KERNEL_OWN_ROWS /* the tier brings its own */
void KFN(rmsnorm)(float *y, const float *x, const float *weight, int n, float eps)
{
    float lane[16] = {0};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] = fmaf(x[i + j], x[i + j], lane[j]);
    for (int j = 0; i + j < n; j++)
        lane[j] = fmaf(x[i + j], x[i + j], lane[j]);
    float inv = 1.0f / sqrtf(lanes_sum(lane) / (float)n + eps);
    for (i = 0; i < n; i++)
        y[i] = x[i] * inv * weight[i];
}

void KFN(silu_mul)(float *y, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = silu_mul_f32(gate[i], up[i]);
}

void KFN(rope)(float *x, const float *cos, const float *sin, int d)
{
    int h = d / 2;
    for (int i = 0; i < h; i++) {
        float a = x[i], b = x[i + h];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + h] = fmaf(b, cos[i], a * sin[i]);
    }
}

void KFN(add)(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += x[i];
}
#endif

/* K of a tile is (d, ATTN_TILE): one vector load holds one channel of many keys. V is (token, d). */
#define KV_WRITE(name, type, convert)                                                                                  \
    void KFN(name)(void *k_tile, void *v_tile, int slot, const float *k, const float *v, int d)                        \
    {                                                                                                                  \
        type *kt = (type *)k_tile + slot, *vt = (type *)v_tile + (size_t)slot * (size_t)d;                             \
        for (int i = 0; k && i < d; i++)                                                                               \
            kt[(size_t)i * ATTN_TILE] = convert(k[i]);                                                                 \
        for (int i = 0; v && i < d; i++)                                                                               \
            vt[i] = convert(v[i]);                                                                                     \
    }

#define F32_SAME(x) (x)
KV_WRITE(kv_write_bf16, uint16_t, bf16_from_f32)
KV_WRITE(kv_write_f16, uint16_t, f16_from_f32)
KV_WRITE(kv_write_f32, float, F32_SAME)

void KFN(softmax_stats)(const float *x, int n, float *ret_max, float *ret_sum)
{
    float lane[16];
    for (int j = 0; j < 16; j++)
        lane[j] = -INFINITY;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (int j = 0; i + j < n; j++)
        lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    float max = lanes_max(lane);
    for (int j = 0; j < 16; j++)
        lane[j] = 0;
    for (i = 0; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] += exp_f32(x[i + j] - max);
    for (int j = 0; i + j < n; j++)
        lane[j] += exp_f32(x[i + j] - max);
    *ret_max = max;
    *ret_sum = lanes_sum(lane);
}

#ifndef KERNEL_OWN_ROWS
void KFN(block_max)(float *y, const float *x, int n)
{
    for (int b = 0; b * SCAN_BLOCK < n; b++, x += SCAN_BLOCK) {
        int len = n - b * SCAN_BLOCK < SCAN_BLOCK ? n - b * SCAN_BLOCK : SCAN_BLOCK, i = 0;
        float lane[16];
        int32_t nan[16] = {0}, any = 0;
        for (int j = 0; j < 16; j++)
            lane[j] = -INFINITY;
        for (; i + 16 <= len; i += 16)
            for (int j = 0; j < 16; j++) {
                lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
                nan[j] |= x[i + j] != x[i + j];
            }
        for (int j = 0; i + j < len; j++) {
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
            nan[j] |= x[i + j] != x[i + j];
        }
        for (int j = 0; j < 16; j++)
            any |= nan[j];
        y[b] = any ? NAN : lanes_max(lane) + 0.0f; /* whose 0 comes first does not show */
    }
}
#endif

void KFN(block_sum)(double *y, const float *x, int n)
{
    for (int b = 0; b * SCAN_BLOCK < n; b++, x += SCAN_BLOCK) {
        int len = n - b * SCAN_BLOCK < SCAN_BLOCK ? n - b * SCAN_BLOCK : SCAN_BLOCK, i = 0;
        double lane[8] = {0};
        for (; i + 8 <= len; i += 8)
            for (int j = 0; j < 8; j++)
                lane[j] += (double)x[i + j];
        for (; i < len; i++)
            lane[0] += (double)x[i];
        y[b] = ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
    }
}

void KFN(exp_sub)(float *y, const float *x, int n, float sub)
{
    for (int i = 0; i < n; i++)
        y[i] = exp_f32(x[i] - sub);
}
