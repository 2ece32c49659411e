/* Kernels for AVX-512 with VNNI: dot products of four u8 x s8 pairs without saturation (vpdpbusd). Everything else is
 * the AVX-512 tier's. Integer sums are exact, so the order of the dots is free; the float parts follow ref/. */
#define KFN(name) name##_avx512vnni
#define KERNEL_OWN_DOTS
#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/x86/avx512.h"
#include "kernel/x86/vector.h"

static inline __m512i broadcast4(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* ---- GEMM ---- */

#define I8_MR 12 /* rows at once: 24 accumulators, two weights and a broadcast in 32 registers */

/* The epilogue of 16 columns of one row, in the order of struct gemm_i8_args. */
static inline void i8_store(const struct gemm_i8_args *a, __m512i acc, int r, int j)
{
    __mmask16 m = a->n - j >= 16 ? 0xffff : (__mmask16)((1u << (a->n - j)) - 1);
    /* x was taken as q + 128 */
    acc = _mm512_sub_epi32(acc, _mm512_slli_epi32(_mm512_maskz_loadu_epi32(m, a->w_sum + j), 7));
    if (a->col_add)
        acc = _mm512_add_epi32(acc, _mm512_maskz_loadu_epi32(m, a->col_add + j));
    if (a->row_zero)
        acc = _mm512_sub_epi32(
            acc, _mm512_mullo_epi32(_mm512_set1_epi32(a->row_zero[r]), _mm512_maskz_loadu_epi32(m, a->col_sum + j)));
    if (a->col_zero)
        acc = _mm512_sub_epi32(
            acc, _mm512_mullo_epi32(_mm512_set1_epi32(a->row_sum[r]), _mm512_maskz_loadu_epi32(m, a->col_zero + j)));
    __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_maskz_loadu_ps(m, a->col_scale + j));
    if (a->row_scale)
        f = _mm512_mul_ps(f, _mm512_set1_ps(a->row_scale[r]));
    if (a->bias)
        f = _mm512_add_ps(f, _mm512_maskz_loadu_ps(m, a->bias + j));
    _mm512_mask_storeu_ps(a->y + (size_t)r * a->ldy + (size_t)j, m, f);
}

static inline __attribute__((always_inline)) void i8_rows(int mr, const struct gemm_i8_args *a, int r0, int p)
{
    const int8_t *w = a->w + (size_t)p * (size_t)a->k4 * GEMM_NR;
    const uint8_t *x = a->x + (size_t)r0 * a->ldx;
    __m512i acc[I8_MR][2];
    for (int r = 0; r < mr; r++)
        acc[r][0] = acc[r][1] = _mm512_setzero_si512();
    for (int i = 0; i < a->k4; i += 4, w += 4 * GEMM_NR) {
        __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
        for (int r = 0; r < mr; r++) {
            __m512i xv = broadcast4(x + (size_t)r * a->ldx + i);
            acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], xv, w0);
            acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], xv, w1);
        }
    }
    for (int r = 0; r < mr; r++) {
        i8_store(a, acc[r][0], r0 + r, p * GEMM_NR);
        if (a->n > p * GEMM_NR + 16)
            i8_store(a, acc[r][1], r0 + r, p * GEMM_NR + 16);
    }
}

#define I8_ROW_BLOCK 96 /* rows of x that stay in L2 while the panels go by */

void gemm_i8_avx512vnni(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    for (int r0 = 0; r0 < a->rows; r0 += I8_ROW_BLOCK) {
        int r1 = r0 + I8_ROW_BLOCK < a->rows ? r0 + I8_ROW_BLOCK : a->rows;
        for (int p = panel_begin; p < panel_end; p++) {
            int r = r0;
            for (; r + I8_MR <= r1; r += I8_MR)
                i8_rows(I8_MR, a, r, p);
            for (; r + 4 <= r1; r += 4)
                i8_rows(4, a, r, p);
            for (; r < r1; r++)
                i8_rows(1, a, r, p);
        }
    }
}

/* ---- attention ---- */

#define C8_HEADS 4 /* query heads that share each load of K */

/* One query head in two signed planes: q = 256 * hi + lo. */
struct c8_query {
    int8_t hi[C8_MAX_DIM], lo[C8_MAX_DIM];
    int32_t sum; /* of q: K is held as u8 = k + 128 */
    float unit;
    float max, total;
};

static void c8_query_init(struct c8_query *q, const struct attn_args *a, int g)
{
    int32_t q16[C8_MAX_DIM];
    q->unit = c8_quant_q(q16, a->q + (size_t)g * (size_t)a->d, a->c8->k_scale, a->d) * a->scale;
    q->sum = 0;
    for (int i = 0; i < c8_padded_dim(a->d); i++) {
        int32_t hi = (q16[i] + 128) >> 8;
        q->hi[i] = (int8_t)hi;
        q->lo[i] = (int8_t)(q16[i] - hi * 256);
        q->sum += q16[i];
    }
    q->max = -INFINITY;
    q->total = 0;
}

static inline __attribute__((always_inline)) void c8_dots(int heads, const struct c8_query *q, const uint8_t *k, int pd,
                                                          int32_t (*dot)[ATTN_TILE])
{
    __m512i hi[C8_HEADS][2], lo[C8_HEADS][2];
    for (int h = 0; h < heads; h++)
        hi[h][0] = hi[h][1] = lo[h][0] = lo[h][1] = _mm512_setzero_si512();
    for (int i = 0; i < pd; i += 4, k += 4 * ATTN_TILE) {
        __m512i k0 = _mm512_loadu_si512(k), k1 = _mm512_loadu_si512(k + 64);
        for (int h = 0; h < heads; h++) {
            __m512i qh = broadcast4(q[h].hi + i), ql = broadcast4(q[h].lo + i);
            hi[h][0] = _mm512_dpbusd_epi32(hi[h][0], k0, qh);
            hi[h][1] = _mm512_dpbusd_epi32(hi[h][1], k1, qh);
            lo[h][0] = _mm512_dpbusd_epi32(lo[h][0], k0, ql);
            lo[h][1] = _mm512_dpbusd_epi32(lo[h][1], k1, ql);
        }
    }
    for (int h = 0; h < heads; h++)
        for (int v = 0; v < 2; v++) {
            __m512i all = _mm512_add_epi32(_mm512_slli_epi32(hi[h][v], 8), lo[h][v]);
            all = _mm512_sub_epi32(all, _mm512_slli_epi32(_mm512_set1_epi32(q[h].sum), 7));
            _mm512_storeu_si512(dot[h] + v * 16, all);
        }
}

/* Dots of a tile to two planes of unsigned bytes, p = 256 * hi + lo, zero outside [lo, hi). */
static inline void c8_softmax(struct c8_query *q, const int32_t *dot, int lo, int hi, uint8_t *p_hi, uint8_t *p_lo,
                              float *weight, float *correction)
{
    float s[ATTN_TILE], tile_max = -INFINITY;
    int32_t p_sum = 0;
    for (int t = 0; t < ATTN_TILE; t++)
        s[t] = t >= lo && t < hi ? (float)dot[t] * q->unit : -INFINITY;
    for (int t = 0; t < ATTN_TILE; t++)
        tile_max = s[t] > tile_max ? s[t] : tile_max;
    for (int t = 0; t < ATTN_TILE; t++) {
        float e = c8_rint(exp_f32(s[t] - tile_max) * P_MAX);
        int32_t p = t >= lo && t < hi ? (int32_t)e : 0;
        p_sum += p;
        p_hi[t] = (uint8_t)(p >> 8);
        p_lo[t] = (uint8_t)p;
    }
    float new_max = tile_max > q->max ? tile_max : q->max;
    *weight = exp_f32(tile_max - new_max);
    *correction = exp_f32(q->max - new_max);
    q->total = fmaf((float)p_sum, *weight, q->total * *correction);
    q->max = new_max;
}

static inline void c8_value(float *out, const int8_t *v, size_t d, const uint8_t *p_hi, const uint8_t *p_lo,
                            float weight, float correction)
{
    __m512 w = _mm512_set1_ps(weight), c = _mm512_set1_ps(correction);
    for (size_t i = 0; i < d; i += 16) {
        size_t n = d - i < 16 ? d - i : 16;
        __mmask16 m = (__mmask16)((1u << n) - 1);
        __m512i hi = _mm512_setzero_si512(), lo = hi;
        for (size_t t = 0; t < ATTN_TILE; t += 4) {
            __m512i vv = _mm512_maskz_loadu_epi32(m, v + t * d + i * 4);
            hi = _mm512_dpbusd_epi32(hi, broadcast4(p_hi + t), vv);
            lo = _mm512_dpbusd_epi32(lo, broadcast4(p_lo + t), vv);
        }
        __m512 acc = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(hi, 8), lo));
        __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, out + i), c);
        _mm512_mask_storeu_ps(out + i, m, _mm512_fmadd_ps(acc, w, old));
    }
}

static void c8_heads(const struct attn_args *a, int g0, int heads)
{
    size_t d = (size_t)a->d;
    int pd = c8_padded_dim(a->d);
    struct c8_query q[C8_HEADS];
    for (int h = 0; h < heads; h++)
        c8_query_init(&q[h], a, g0 + h);
    memset(a->out + (size_t)g0 * d, 0, (size_t)heads * d * sizeof(float));
    for (int64_t t0 = a->begin / ATTN_TILE * ATTN_TILE; t0 < a->end; t0 += ATTN_TILE) {
        size_t block = (size_t)a->block_table[t0 / a->block_size] * a->block_stride;
        const uint8_t *k = a->k + block + (size_t)(t0 % a->block_size) * (size_t)pd;
        const int8_t *v = (const int8_t *)a->v + block + (size_t)(t0 % a->block_size) * d;
        int lo = a->begin > t0 ? (int)(a->begin - t0) : 0;
        int hi = a->end - t0 < ATTN_TILE ? (int)(a->end - t0) : ATTN_TILE;
        int32_t dot[C8_HEADS][ATTN_TILE];
        if (heads == 4)
            c8_dots(4, q, k, pd, dot);
        else if (heads == 3)
            c8_dots(3, q, k, pd, dot);
        else if (heads == 2)
            c8_dots(2, q, k, pd, dot);
        else
            c8_dots(1, q, k, pd, dot);
        for (int h = 0; h < heads; h++) {
            uint8_t p_hi[ATTN_TILE], p_lo[ATTN_TILE];
            float weight, correction;
            c8_softmax(&q[h], dot[h], lo, hi, p_hi, p_lo, &weight, &correction);
            c8_value(a->out + (size_t)(g0 + h) * d, v, d, p_hi, p_lo, weight, correction);
        }
    }
    for (int h = 0; h < heads; h++) {
        float inv = 1.0f / q[h].total, *out = a->out + (size_t)(g0 + h) * d;
        for (size_t i = 0; i < d; i++)
            out[i] = (out[i] * inv - a->c8->v_offset[i]) * a->c8->v_scale[i];
    }
}

void attn_c8_avx512vnni(const struct attn_args *a)
{
    for (int g = 0; g < a->group; g += C8_HEADS)
        c8_heads(a, g, a->group - g < C8_HEADS ? a->group - g : C8_HEADS);
}
