/* Paged attention over a float cache: the specification. Keys are walked in tiles of ATTN_TILE that begin at multiples
 * of it, whatever the batch, the chunk or the block table looks like; online softmax between tiles. */
#include "kernel/ops.h"
#include "kernel/ref/convert.h"
#include "kernel/ref/math.h"

#define F32_SAME(x) (x)

#define ATTN(name, type, convert)                                                                                      \
    static void name##_row(const struct attn_args *a, int token, int g)                                                \
    {                                                                                                                  \
        size_t d = (size_t)a->d;                                                                                       \
        const float *q = a->q + (size_t)token * a->ldq + (size_t)g * d;                                                \
        float *out = a->out + (size_t)token * a->ldout + (size_t)g * d;                                                \
        int64_t begin = attn_begin(a, token), end = attn_end(a, token);                                                \
        float max = -INFINITY, sum = 0;                                                                                \
        for (size_t i = 0; i < d; i++)                                                                                 \
            out[i] = 0;                                                                                                \
        for (int64_t t0 = begin / ATTN_TILE * ATTN_TILE; t0 < end; t0 += ATTN_TILE) {                                  \
            const type *k = (const type *)(a->k + attn_tile_at(a, t0));                                                \
            const type *v = (const type *)(a->v + attn_tile_at(a, t0));                                                \
            int lo = begin > t0 ? (int)(begin - t0) : 0;                                                               \
            int hi = end - t0 < ATTN_TILE ? (int)(end - t0) : ATTN_TILE;                                               \
            float p[ATTN_TILE] = {0}, lane[16], new_max = max;                                                         \
            for (int t = lo; t < hi; t++) {                                                                            \
                float dot = 0;                                                                                         \
                for (size_t i = 0; i < d; i++)                                                                         \
                    dot = fmaf(q[i], convert(k[i * ATTN_TILE + (size_t)t]), dot);                                      \
                p[t] = dot * a->scale;                                                                                 \
                new_max = p[t] > new_max ? p[t] : new_max;                                                             \
            }                                                                                                          \
            for (int t = lo; t < hi; t++)                                                                              \
                p[t] = exp_f32(p[t] - new_max);                                                                        \
            for (int t = 0; t < 16; t++)                                                                               \
                lane[t] = p[t] + p[t + 16];                                                                            \
            float correction = exp_f32(max - new_max);                                                                 \
            sum = fmaf(sum, correction, lanes_sum(lane));                                                              \
            max = new_max;                                                                                             \
            for (size_t i = 0; i < d; i++)                                                                             \
                out[i] *= correction;                                                                                  \
            for (int t = lo; t < hi; t++)                                                                              \
                for (size_t i = 0; i < d; i++)                                                                         \
                    out[i] = fmaf(p[t], convert(v[(size_t)t * d + i]), out[i]);                                        \
        }                                                                                                              \
        float inv = 1.0f / sum;                                                                                        \
        for (size_t i = 0; i < d; i++)                                                                                 \
            out[i] *= inv;                                                                                             \
    }                                                                                                                  \
    void name(const struct attn_args *a)                                                                               \
    {                                                                                                                  \
        for (int i = 0; i < a->tokens; i++)                                                                            \
            for (int g = 0; g < a->group; g++)                                                                         \
                name##_row(a, i, g);                                                                                   \
    }

ATTN(attn_bf16_ref, uint16_t, f32_from_bf16)
ATTN(attn_f16_ref, uint16_t, f32_from_f16)
ATTN(attn_f32_ref, float, F32_SAME)
