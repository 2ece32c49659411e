/* ref/ against its definitions, in double precision or wide integers: what check_kernels then holds every tier to.
 * OCTAVO_TEST_SEED=N repeats a run. */
#include "base/detmath.h"
#include "base/mem.h"
#include "kernel/ops.h"
#include "kernel/ref/convert.h"
#include "kernel/ref/math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed;

static uint32_t rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

/* Mostly ordinary values, and what breaks things: zeros, huge, tiny, equal runs. */
static float rnd_float(void)
{
    switch (rnd() % 16) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return (float)((int)(rnd() % 2001) - 1000);
    case 3:
        return 1e-30f;
    default:
        return ((float)(rnd() % 20001) - 10000.0f) / 3000.0f;
    }
}

static float *floats(size_t n)
{
    float *x = mem_alloc(n * sizeof(*x));
    for (size_t i = 0; i < n; i++)
        x[i] = rnd_float();
    return x;
}

/* ---- integers ---- */

/* Sums in 64 bits; the epilogue's parts are the tiers' business. */
static void gemm_i8_sums(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 1, 1}, {1, 16, 31}, {2, 7, 32}, {3, 64, 33}, {13, 80, 97}, {5, 1000, 48}};
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (int extreme = 0; extreme < 2; extreme++) {
            int m = shapes[s][0], k = shapes[s][1], n = shapes[s][2], k4 = (k + 3) / 4 * 4;
            int panels = (n + GEMM_NR - 1) / GEMM_NR, cols = panels * GEMM_NR;
            uint8_t *x = mem_alloc((size_t)(m * k4));
            int8_t *w = mem_calloc((size_t)(cols * k4), 1), *rows = mem_alloc((size_t)(cols * k));
            int32_t *w_sum = mem_calloc((size_t)cols, sizeof(*w_sum));
            float *scale = floats((size_t)cols), *y = mem_alloc((size_t)(m * n) * sizeof(*y));
            for (int i = 0; i < m * k4; i++)
                x[i] = extreme ? 0 : (uint8_t)rnd();
            for (int j = 0; j < cols; j++)
                for (int i = 0; i < k; i++) {
                    int8_t q = extreme ? -128 : (int8_t)rnd();
                    rows[j * k + i] = q;
                    w[(j / GEMM_NR * k4 + i / 4 * 4) * GEMM_NR + j % GEMM_NR * 4 + i % 4] = q;
                    w_sum[j] += q;
                }
            gemm_i8_ref(&(struct gemm_i8_args){.y = y,
                                               .ldy = (size_t)n,
                                               .x = x,
                                               .ldx = (size_t)k4,
                                               .rows = m,
                                               .k4 = k4,
                                               .n = n,
                                               .w = w,
                                               .w_sum = w_sum,
                                               .col_scale = scale},
                        0, panels);
            for (int r = 0; r < m; r++)
                for (int j = 0; j < n; j++) {
                    int64_t sum = 0;
                    for (int i = 0; i < k; i++)
                        sum += (int64_t)(x[r * k4 + i] - 128) * rows[j * k + i];
                    assert_true(y[r * n + j] == (float)sum * scale[j]);
                }
            free(x), free(w), free(rows), free(w_sum), free(scale), free(y);
        }
}

static void quant_dynamic_is_right(void **state)
{
    (void)state;
    for (int n = 1; n < 140; n += 1 + n / 9) {
        float *x = floats((size_t)n), most = 0, scale;
        uint8_t *q = mem_alloc((size_t)n + 3);
        if (rnd() % 3 == 0)
            x[rnd() % (uint32_t)n] = (float)(1 + rnd() % 1000000); /* one hot channel */
        for (int i = 0; i < n && n == 5; i++)
            x[i] = 0; /* a row of zeros */
        for (int i = 0; i < n; i++)
            most = fmaxf(most, fabsf(x[i]));
        quant_dynamic_ref(q, &scale, x, n);
        assert_true(scale == (most > 0 ? most / 127.0f : 1.0f));
        for (int i = 0; i < n; i++)
            assert_int_equal(q[i] - 128, (int)rint((double)(x[i] / scale)));
        free(x), free(q);
    }
}

/* Attention over an INT8 cache against attention over explicitly dequantised K and V; kind chooses the shape of the
 * probabilities. */
static void c8_case(int d, int group, int64_t end, int64_t begin, bool asym, int kind)
{
    enum { BS = 64, BLOCKS = 80 };
    size_t kb = ATTN_TILE * (size_t)c8_padded_dim(d), stride = kb + ATTN_TILE * (size_t)d; /* K of a tile, and all */
    int32_t table[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        table[i] = (i * 37 + 11) % BLOCKS;
    int most = ATTN_MAX_ROWS / group, tokens = 1 + (int)(rnd() % (uint32_t)(end < most ? end : most));
    size_t width = (size_t)(group * d);
    int64_t window = begin ? end - begin : 0;
    float *qp = floats((size_t)tokens * width), *kp = floats((size_t)(end * d)), *vp = floats((size_t)(end * d));
    float *out = mem_alloc((size_t)tokens * width * sizeof(*out)), *s[6];
    uint8_t *cache = mem_alloc(BLOCKS * BS / ATTN_TILE * stride);
    for (size_t i = 0; i < (size_t)tokens * width; i++)
        qp[i] = ((float)(rnd() % 20001) - 10000) / 5000 * (kind == 0 ? 0.05f : kind == 1 ? 3 : kind == 3 ? 0.5f : 1);
    for (int64_t i = 0; i < end * d; i++) {
        float channel = i % d % 7 == 3 ? 8.0f : 1.0f; /* some channels are hotter, as in real K */
        kp[i] = ((float)(rnd() % 20001) - 10000) / 10000 * channel + (asym ? 0.7f : 0);
        vp[i] = ((float)(rnd() % 20001) - 10000) / 10000 + (asym ? 0.4f : 0);
    }
    if (kind == 2) /* a sink: the first key takes nearly everything, and its value is small */
        for (int i = 0; i < d; i++) {
            kp[i] = 9.0f * sqrtf((float)d) * qp[i] / 4.0f / (float)d * 4.0f;
            vp[i] *= 0.01f;
        }
    for (int i = 0; i < 6; i++)
        s[i] = mem_alloc((size_t)d * sizeof(float));
    for (int i = 0; i < d; i++)
        for (int kv = 0; kv < 2; kv++) {
            const float *x = kv ? vp : kp;
            float lo = 0, hi = 0;
            for (int64_t t = 0; t < end; t++) {
                lo = fminf(lo, x[t * d + i]);
                hi = fmaxf(hi, x[t * d + i]);
            }
            float scale = fmaxf(asym ? (hi - lo) / 255 : fmaxf(-lo, hi) / 127, 1e-6f);
            s[kv * 3][i] = scale;
            s[kv * 3 + 1][i] = 1.0f / scale;
            s[kv * 3 + 2][i] = asym ? rintf(-lo / scale) - 128 : 0;
        }
    struct c8_scales scales = {s[0], s[1], s[2], s[3], s[4], s[5]};
    memset(cache, 0x5a, BLOCKS * BS / ATTN_TILE * stride);
    for (int64_t t = 0; t < end; t++) {
        uint8_t *tile = cache + (size_t)(table[t / BS] * BS + t % BS) / ATTN_TILE * stride;
        kv_write_c8_ref(tile, tile + kb, (int)(t % ATTN_TILE), kp + t * d, vp + t * d, d, &scales);
    }
    attn_c8_ref(&(struct attn_args){.out = out,
                                    .ldout = width,
                                    .q = qp,
                                    .ldq = width,
                                    .group = group,
                                    .d = d,
                                    .tokens = tokens,
                                    .position = end - tokens,
                                    .window = window,
                                    .scale = 1.0f / sqrtf((float)d),
                                    .block_table = table,
                                    .block_size = BS,
                                    .k = cache,
                                    .v = cache + kb,
                                    .run_blocks = BLOCKS,
                                    .tile_stride = stride,
                                    .c8 = &scales});
    double *p = malloc((size_t)end * sizeof(*p));
    for (int g = 0; g < tokens * group; g++) {
        int64_t stop = end - tokens + g / group + 1, from = window && stop > window ? stop - window : 0;
        double max = -INFINITY, sum = 0, err = 0, norm = 0;
        for (int64_t t = from; t < stop; t++) {
            p[t] = 0;
            for (int i = 0; i < d; i++) {
                double kq = fmin(fmax(rint((double)(kp[t * d + i] * s[1][i] + s[2][i])), -128), 127);
                p[t] += (double)qp[g * d + i] * (kq - (double)s[2][i]) * (double)s[0][i];
            }
            p[t] /= sqrt(d);
            max = fmax(max, p[t]);
        }
        for (int64_t t = from; t < stop; t++)
            sum += p[t] = exp(p[t] - max);
        for (int i = 0; i < d; i++) {
            double o = 0;
            for (int64_t t = from; t < stop; t++) {
                double vq = fmin(fmax(rint((double)(vp[t * d + i] * s[4][i] + s[5][i])), -128), 127);
                o += p[t] * (vq - (double)s[5][i]) * (double)s[3][i];
            }
            o /= sum;
            err += (o - (double)out[g * d + i]) * (o - (double)out[g * d + i]);
            norm += o * o;
        }
        if (sqrt(err) > 5e-3 * sqrt(norm) + 1e-7)
            fail_msg("attn_c8 d=%d group=%d keys=%d..%d asym=%d kind=%d: relative error %.1e", d, group, (int)from,
                     (int)stop, asym, kind, sqrt(err / norm));
    }
    free(p);
    for (int i = 0; i < 6; i++)
        free(s[i]);
    free(qp), free(kp), free(vp), free(out), free(cache);
}

static void attention_c8(void **state)
{
    (void)state;
    static const int dims[] = {32, 48, 64, 80, 96, 128, 200, 256, 6}, groups[] = {1, 2, 3, 4, 5, 8};
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++)
        for (int kind = 0; kind < 3; kind++)
            for (int asym = 0; asym < 2; asym++) {
                int64_t end = 1 + rnd() % 40;
                c8_case(dims[i], groups[rnd() % 6], end, 0, asym, kind);
                end = 100 + rnd() % 300;
                c8_case(dims[i], groups[rnd() % 6], end, kind == 2 ? 0 : rnd() % 90, asym, kind);
            }
    c8_case(64, 1, 5000, 0, true, 0);   /* a flat row with a long tail */
    c8_case(128, 4, 3000, 0, false, 3); /* scores as of random vectors: many keys matter, few by much */
    c8_case(64, 8, 1000, 0, true, 3);
}

/* The reference itself against plain double arithmetic. */
static void ref_is_right(void **state)
{
    (void)state;
    for (float x = -90; x < 88.5f; x += 0.0137f) {
        double want = exp((double)x), got = (double)exp_f32(x);
        assert_true(fabs(got - want) <= 2e-7 * want + 2e-38);
    }
    assert_true(exp_f32(0) == 1.0f);
    assert_true(isnan(exp_f32(NAN)));
    for (double x = 1e-5; x < 1e6; x *= 1.01) {
        double s, c;
        det_sincos(x, &s, &c);
        assert_true(fabs(s - sin(x)) < 2e-15 && fabs(c - cos(x)) < 2e-15);
        assert_true(fabs(det_log(x) - log(x)) <= 4e-16 * fabs(log(x)) + 4e-16);
    }
    for (double x = -300; x < 300; x += 0.37)
        assert_true(fabs(det_exp(x) / exp(x) - 1) < 1e-15 * (1 + fabs(x)));
    for (uint32_t h = 0; h < 65536; h++) { /* every 16-bit value survives; halfway cases round to even */
        float f = f32_from_f16((uint16_t)h), b = f32_from_bf16((uint16_t)h);
        if (!isnan(f))
            assert_int_equal(f16_from_f32(f), h);
        if (!isnan(b))
            assert_int_equal(bf16_from_f32(b), h);
    }
    assert_int_equal(bf16_from_f32(f32_from_bits(0x3f808000)), 0x3f80);
    assert_int_equal(bf16_from_f32(f32_from_bits(0x3f818000)), 0x3f82);
    assert_int_equal(f16_from_f32(2049.0f), 0x6800);
    assert_int_equal(f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(f16_from_f32(0x1p-25f), 0);
    assert_int_equal(f16_from_f32(0x1.8p-25f), 1);
    /* one attention row in double */
    enum { D = 24, T = 70 };
    float q[D], k[T][D], v[T][D], out[D];
    static float tile[3][2][32 * D];
    for (int i = 0; i < D; i++)
        q[i] = rnd_float();
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < D; i++)
            k[t][i] = ((float)(rnd() % 2000) - 1000) / 500, v[t][i] = ((float)(rnd() % 2000) - 1000) / 500;
        kv_write_f32_ref(tile[t / 32][0], tile[t / 32][1], t % 32, k[t], v[t], D);
    }
    int32_t table[3] = {0, 1, 2};
    attn_f32_ref(&(struct attn_args){.out = out,
                                     .q = q,
                                     .group = 1,
                                     .d = D,
                                     .scale = 0.2f,
                                     .tokens = 1,
                                     .position = T - 1,
                                     .window = T - 5,
                                     .block_table = table,
                                     .block_size = 32,
                                     .k = (uint8_t *)tile[0][0],
                                     .v = (uint8_t *)tile[0][1],
                                     .run_blocks = 3,
                                     .tile_stride = sizeof(tile[0])});
    double want[D] = {0}, sum = 0;
    for (int t = 5; t < T; t++) {
        double s = 0;
        for (int i = 0; i < D; i++)
            s += (double)q[i] * (double)k[t][i];
        s = exp(s * (double)0.2f);
        sum += s;
        for (int i = 0; i < D; i++)
            want[i] += s * (double)v[t][i];
    }
    for (int i = 0; i < D; i++)
        assert_true(fabs(want[i] / sum - (double)out[i]) < 1e-5);
}

static void packing(void **state)
{
    (void)state;
    uint16_t w[37 * 5];
    for (int i = 0; i < 37 * 5; i++)
        w[i] = (uint16_t)i;
    uint16_t packed[64 * 5] = {0};
    gemm_pack(packed, w, 2, 0, 20, 5); /* in two parts, as fused projections are */
    gemm_pack(packed, w + 20 * 5, 2, 20, 17, 5);
    for (int j = 0; j < 64; j++)
        for (int i = 0; i < 5; i++)
            assert_int_equal(packed[(j / 32 * 5 + i) * 32 + j % 32], j < 37 ? w[j * 5 + i] : 0);
}

int main(void)
{
    const char *s = getenv("OCTAVO_TEST_SEED");
    seed = s ? strtoull(s, NULL, 0) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_is_right),           cmocka_unit_test(packing),      cmocka_unit_test(gemm_i8_sums),
        cmocka_unit_test(quant_dynamic_is_right), cmocka_unit_test(attention_c8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
