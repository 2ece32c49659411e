/* Paged attention over an INT8 cache: the specification. Nothing is dequantised. K's scales go into q once for a head;
 * q becomes a 16-bit integer with one scale; a K offset (and the 128 that K is held with) adds the same to every logit
 * of a row, so softmax cancels it. Probabilities of a tile become integers against the tile's own maximum: of 8 bits, a
 * high plane, and where one key stands out (c8_fine) of 16, a high and a low plane. V's scale and offset are applied
 * once at the end: the weights that are summed are the weights that are divided by, so they sum to 1 exactly as the
 * offset needs. All dot products are exact in int32, whatever instructions make them. Why these widths:
 * docs/KERNELS.md.
 *
 * Layout of a tile of ATTN_TILE tokens: K (padded_dim / 4, ATTN_TILE, 4) as u8 = q + 128, V (ATTN_TILE / 4, d, 4). */
#ifndef KFN
#define KFN(name) name##_ref
#endif

#include "kernel/ops.h"
#include "kernel/ref/math.h"

#define Q_MAX 32512  /* 127 * 256: two signed 8-bit planes */
#define P_FINE 65280 /* two unsigned 8-bit planes: 255 * 256, so that they have the unit of one of them */
#define FINE_MEAN 9  /* see c8_large */
#define FINE_KEYS 64
#define FINE_DIM 32 /* fewer channels: their sum may be near 0, and a key's error is not */
#define C8_MAX_DIM ATTN_MAX_DIM

static inline float c8_rint(float x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

static inline float c8_quant(float x, float inv, float offset)
{
    float q = x * inv + offset;
    q = q > -128.0f ? q : -128.0f;
    q = q < 127.0f ? q : 127.0f;
    return c8_rint(q);
}

#ifndef KERNEL_OWN_ROWS
void KFN(kv_write_c8)(void *k_tile, void *v_tile, int slot, const float *k, const float *v, int d,
                      const struct c8_scales *s)
{
    size_t pd = (size_t)c8_padded_dim(d), t = (size_t)slot;
    uint8_t *kt = k_tile;
    int8_t *vt = (int8_t *)v_tile + t / 4 * 4 * (size_t)d;
    for (size_t i = 0; v && i < (size_t)d; i++)
        vt[i * 4 + t % 4] = (int8_t)c8_quant(v[i], s->v_inv[i], s->v_offset[i]);
    for (size_t i = 0; k && i < (size_t)d; i++)
        kt[(i / 4 * ATTN_TILE + t) * 4 + i % 4] = (uint8_t)((int32_t)c8_quant(k[i], s->k_inv[i], s->k_offset[i]) + 128);
    for (size_t i = (size_t)d; k && i < pd; i++)
        kt[(i / 4 * ATTN_TILE + t) * 4 + i % 4] = 128;
}
#endif

/* q times K's scales as integers of at most q_max; returns what one unit of a dot is worth, in powers of two. */
static inline float c8_quant_q(int32_t *q16, const float *q, const float *k_scale, int d, float scale)
{
    float scaled[C8_MAX_DIM], lane[16] = {0};
    int most = (int)(INT32_MAX / (255 * d)), q_max = most < Q_MAX ? most : Q_MAX;
    for (int i = 0; i < d; i++)
        scaled[i] = q[i] * k_scale[i];
    for (int i = 0; i < d; i++)
        lane[i % 16] = fabsf(scaled[i]) > lane[i % 16] ? fabsf(scaled[i]) : lane[i % 16];
    float unit = lanes_max(lane) / (float)q_max;
    unit = unit > 0 ? unit : 1.0f;
    for (int i = 0; i < d; i++) {
        float x = scaled[i] / unit;
        x = x > (float)-q_max ? x : (float)-q_max;
        x = x < (float)q_max ? x : (float)q_max;
        q16[i] = (int32_t)c8_rint(x);
    }
    for (int i = d; i < c8_padded_dim(d); i++)
        q16[i] = 0;
    return unit * (scale * 0x1.715476p+0f);
}

/* Whether a tile's probabilities want 16 bits. They do when its largest key, of the given weight, takes more than
 * FINE_MEAN times what the others take on average: those that the row has seen, of the tile and before. others is
 * their mass, in units of P_FINE and relative to the same maximum as the weight, without each tile's largest key: else
 * a sink would make every other key a small one. */
static inline float c8_large(int64_t keys, int d)
{
    return d < FINE_DIM ? INFINITY : (float)(keys > FINE_KEYS ? keys : FINE_KEYS) * ((float)P_FINE / FINE_MEAN);
}

static inline bool c8_fine(float weight, float others, float large)
{
    return others < weight * large;
}

#ifndef KERNEL_OWN_DOTS
static inline void c8_row(const struct attn_args *a, int token, int g)
{
    size_t d = (size_t)a->d, pd = (size_t)c8_padded_dim(a->d);
    int32_t q16[C8_MAX_DIM], max = 0;
    const float *q = a->q + (size_t)token * a->ldq + (size_t)g * d;
    float *out = a->out + (size_t)token * a->ldout + (size_t)g * d;
    float unit = c8_quant_q(q16, q, a->c8->k_scale, a->d, a->scale), mass = 0, others = 0, low[C8_MAX_DIM] = {0};
    int64_t begin = attn_begin(a, token), end = attn_end(a, token);
    for (size_t i = 0; i < d; i++)
        out[i] = 0;
    for (int64_t t0 = begin / ATTN_TILE * ATTN_TILE; t0 < end; t0 += ATTN_TILE) {
        const uint8_t *k = a->k + attn_tile_at(a, t0);
        const int8_t *v = (const int8_t *)a->v + attn_tile_at(a, t0);
        int lo = begin > t0 ? (int)(begin - t0) : 0;
        int hi = end - t0 < ATTN_TILE ? (int)(end - t0) : ATTN_TILE;
        int32_t dot[ATTN_TILE] = {0}, p[ATTN_TILE] = {0}, p_sum = 0, tile_max = INT32_MIN;
        for (size_t i = 0; i < pd; i += 4) {
            const uint8_t *kc = k + i * ATTN_TILE;
            for (int t = 0; t < ATTN_TILE; t++)
                dot[t] += q16[i] * (kc[t * 4] - 128) + q16[i + 1] * (kc[t * 4 + 1] - 128) +
                          q16[i + 2] * (kc[t * 4 + 2] - 128) + q16[i + 3] * (kc[t * 4 + 3] - 128);
        }
        for (int t = lo; t < hi; t++)
            tile_max = dot[t] > tile_max ? dot[t] : tile_max;
        bool first = mass == 0; /* a tile has a key with p = P_FINE: only before the first is it 0 */
        int32_t new_max = first || tile_max > max ? tile_max : max;
        float weight = exp2_f32((float)(tile_max - new_max) * unit);
        float correction = first ? 0.0f : exp2_f32((float)(max - new_max) * unit);
        for (int t = lo; t < hi; t++) {
            p[t] = (int32_t)c8_rint(exp2_255_f32((float)(dot[t] - tile_max) * unit)) * 256;
            p_sum += p[t];
        }
        others = fmaf((float)(p_sum - P_FINE), weight, others * correction);
        bool fine = c8_fine(weight, others, c8_large(t0 + hi - begin - 1, a->d));
        for (int t = lo; fine && t < hi; t++) {
            int32_t both = (int32_t)c8_rint(exp2_f32((float)(dot[t] - tile_max) * unit) * (float)P_FINE);
            p_sum += both - p[t];
            p[t] = both;
        }
        for (size_t i = 0; i < d; i++) {
            int32_t high_sum = 0, low_sum = 0;
            for (size_t t = 0; t < ATTN_TILE; t++) {
                high_sum += (p[t] >> 8) * v[t / 4 * 4 * d + i * 4 + t % 4];
                low_sum += (p[t] & 255) * v[t / 4 * 4 * d + i * 4 + t % 4];
            }
            out[i] = fmaf((float)high_sum, weight * 256.0f, out[i] * correction);
            low[i] = fmaf((float)low_sum, weight, low[i] * correction);
        }
        mass = fmaf((float)p_sum, weight, mass * correction);
        max = new_max;
    }
    float inv = 1.0f / mass;
    for (size_t i = 0; i < d; i++) /* + 0: whether a tile that adds nothing is left out must not show in a 0's sign */
        out[i] = ((out[i] + low[i] + 0.0f) * inv - a->c8->v_offset[i]) * a->c8->v_scale[i];
}

void KFN(attn_c8)(const struct attn_args *a)
{
    for (int i = 0; i < a->tokens; i++)
        for (int g = 0; g < a->group; g++)
            c8_row(a, i, g);
}
#endif
