/* Integer linears: the specification. Sums of products are exact, so their order is free; what is float has the order
 * written here. Compiled for each tier like elementwise.c. */
#ifndef KFN
#define KFN(name) name##_ref
#endif

#include "kernel/ops.h"
#include "kernel/ref/math.h"

/* Round half to even by adding 1.5 * 2^23: exact for |x| < 2^22, and the same in scalar and vector code. */
static inline float rint_f32(float x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

/* Clamped before it is rounded, which is the same for integer bounds and keeps every input in range; NaN gives lo. */
static inline float clamp_rint(float x, float lo, float hi)
{
    x = x > lo ? x : lo;
    x = x < hi ? x : hi;
    return rint_f32(x);
}

static inline void pad_row(uint8_t *xq, int n)
{
    for (; n % 4; n++)
        xq[n] = 128;
}

#ifndef KERNEL_OWN_ROWS
void KFN(quant_dynamic)(uint8_t *xq, float *ret_scale, const float *x, int n)
{
    float lane[16] = {0};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] = fabsf(x[i + j]) > lane[j] ? fabsf(x[i + j]) : lane[j];
    for (int j = 0; i + j < n; j++)
        lane[j] = fabsf(x[i + j]) > lane[j] ? fabsf(x[i + j]) : lane[j];
    float s = lanes_max(lane) / 127.0f;
    s = s > 0 ? s : 1.0f;
    for (i = 0; i < n; i++)
        xq[i] = (uint8_t)((int32_t)clamp_rint(x[i] / s, -127.0f, 127.0f) + 128);
    pad_row(xq, n);
    *ret_scale = s;
}

void KFN(quant_dynamic_asym)(uint8_t *xq, float *ret_scale, int32_t *ret_zero, const float *x, int n)
{
    float lo = 0, hi = 0;
    for (int i = 0; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float s = (hi - lo) / 255.0f;
    s = s > 0 ? s : 1.0f;
    float zero = clamp_rint(-128.0f - lo / s, -128.0f, 127.0f);
    for (int i = 0; i < n; i++)
        xq[i] = (uint8_t)((int32_t)clamp_rint(clamp_rint(x[i] / s, -512.0f, 512.0f) + zero, -128.0f, 127.0f) + 128);
    pad_row(xq, n);
    *ret_scale = s;
    *ret_zero = (int32_t)zero;
}

void KFN(quant_static)(uint8_t *xq, const float *x, int n, float inv_scale, float offset)
{
    for (int i = 0; i < n; i++)
        xq[i] = (uint8_t)((int32_t)clamp_rint(x[i] * inv_scale + offset, -128.0f, 127.0f) + 128);
    pad_row(xq, n);
}

#endif

/* The sums of one row and panel to what is stored for them. */
static inline void gemm_i8_finish(const struct gemm_i8_args *a, const uint32_t *acc, int r, int panel)
{
    float f[GEMM_NR], *y = a->y + (size_t)r * a->ldy;
    for (int i = 0; i < GEMM_NR; i++) {
        int j = panel * GEMM_NR + i;
        uint32_t sum = acc[i];
        if (a->col_add)
            sum += (uint32_t)a->col_add[j];
        if (a->row_zero)
            sum -= (uint32_t)a->row_zero[r] * (uint32_t)a->col_sum[j];
        if (a->col_zero)
            sum -= (uint32_t)a->col_zero[j] * (uint32_t)a->row_sum[r];
        f[i] = (float)(int32_t)sum * a->col_scale[j];
        if (a->row_scale)
            f[i] *= a->row_scale[r];
        if (a->bias)
            f[i] += a->bias[j];
    }
    int nr = a->swiglu ? SWIGLU_NR : GEMM_NR, cols = a->n - panel * nr < nr ? a->n - panel * nr : nr;
    for (int i = 0; i < cols; i++)
        y[panel * nr + i] = a->swiglu ? silu_mul_f32(f[i], f[SWIGLU_NR + i]) : f[i];
}

#ifndef KERNEL_OWN_DOTS /* the tier brings its own */
void KFN(gemm_i8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    for (int p = panel_begin; p < panel_end; p++) {
        const int8_t *wp = a->w + (size_t)p * (size_t)a->k4 * GEMM_NR;
        for (int r = 0; r < a->rows; r++) {
            const uint8_t *x = a->x + (size_t)r * a->ldx;
            uint32_t acc[GEMM_NR] = {0}; /* unsigned: wrapping is defined, and the true sum fits */
            for (int i = 0; i < a->k4; i += 4) {
                int32_t x0 = x[i] - 128, x1 = x[i + 1] - 128, x2 = x[i + 2] - 128, x3 = x[i + 3] - 128;
                const int8_t *w = wp + (size_t)i * GEMM_NR;
                for (int j = 0; j < GEMM_NR; j++)
                    acc[j] += (uint32_t)(x0 * w[j * 4] + x1 * w[j * 4 + 1] + x2 * w[j * 4 + 2] + x3 * w[j * 4 + 3]);
            }
            gemm_i8_finish(a, acc, r, p);
        }
    }
}
#endif

#ifndef KERNEL_OWN_W4
void KFN(gemm_w4a8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    for (int p = panel_begin; p < panel_end; p++) {
        const uint8_t *wp = (const uint8_t *)a->w + (size_t)p * (size_t)a->k4 * GEMM_NR / 2;
        for (int r = 0; r < a->rows; r++) {
            const uint8_t *x = a->x + (size_t)r * a->ldx;
            uint32_t acc[GEMM_NR] = {0};
            for (int i = 0; i < a->k4; i += 8) {
                const uint8_t *w = wp + (size_t)i * GEMM_NR / 2;
                for (int j = 0; j < GEMM_NR; j++)
                    for (int c = 0; c < 4; c++)
                        acc[j] += (uint32_t)((x[i + c] - 128) * ((w[j * 4 + c] & 15) - 8) +
                                             (x[i + 4 + c] - 128) * ((w[j * 4 + c] >> 4) - 8));
            }
            gemm_i8_finish(a, acc, r, p);
        }
    }
}
#endif

#ifndef KERNEL_OWN_DOTS
/* Channel i of column j of a panel. */
static inline float weight_of(const int8_t *panel, bool nibbles, int i, int j)
{
    if (!nibbles)
        return (float)panel[(size_t)i * GEMM_NR + (size_t)j];
    uint8_t two = ((const uint8_t *)panel)[((size_t)(i / 8) * GEMM_NR + (size_t)j) * 4 + (size_t)(i % 4)];
    return (float)((i % 8 < 4 ? two & 15 : two >> 4) - 8);
}

static inline void weights_a16(const struct gemm_w8a16_args *a, bool nibbles, int panel_begin, int panel_end)
{
    int groups = (a->k + a->group_size - 1) / a->group_size;
    size_t panel_bytes = nibbles ? (size_t)(a->k + 7) / 8 * 4 * GEMM_NR : (size_t)a->k * GEMM_NR;
    for (int p = panel_begin; p < panel_end; p++) {
        const int8_t *wp = a->w + (size_t)p * panel_bytes;
        const float *scale = a->scale + (size_t)p * (size_t)groups * GEMM_NR;
        const float *zero = a->zero ? a->zero + (size_t)p * (size_t)groups * GEMM_NR : NULL;
        int j0 = p * GEMM_NR, cols = a->n - j0 < GEMM_NR ? a->n - j0 : GEMM_NR;
        for (int r = 0; r < a->rows; r++) {
            const float *x = a->x + (size_t)r * a->ldx;
            float *y = a->y + (size_t)r * a->ldy + (size_t)j0, acc[GEMM_NR] = {0};
            for (int g = 0; g < groups; g++) {
                int end = (g + 1) * a->group_size < a->k ? (g + 1) * a->group_size : a->k;
                float part[GEMM_NR] = {0}, z[GEMM_NR] = {0};
                for (int j = 0; zero && j < GEMM_NR; j++)
                    z[j] = zero[g * GEMM_NR + j];
                for (int i = g * a->group_size; i < end; i++)
                    for (int j = 0; j < GEMM_NR; j++)
                        part[j] = fmaf(x[i], weight_of(wp, nibbles, i, j) - z[j], part[j]);
                for (int j = 0; j < GEMM_NR; j++)
                    acc[j] = fmaf(scale[g * GEMM_NR + j], part[j], acc[j]);
            }
            for (int j = 0; j < cols; j++)
                y[j] = a->bias ? a->bias[j0 + j] + acc[j] : acc[j];
        }
    }
}

void KFN(gemm_w8a16)(const struct gemm_w8a16_args *a, int panel_begin, int panel_end)
{
    weights_a16(a, false, panel_begin, panel_end);
}

void KFN(gemm_w4a16)(const struct gemm_w8a16_args *a, int panel_begin, int panel_end)
{
    weights_a16(a, true, panel_begin, panel_end);
}
#endif
