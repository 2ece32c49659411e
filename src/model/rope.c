/* Rotary embedding: see rope.h. */
#include "model/rope.h"

#include "base/detmath.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

static const double pi = 3.14159265358979323846;

/* theta^(-2i/d), rounded to float32 as transformers keeps it */
static float base_freq(double log_theta, int i, int d)
{
    return (float)det_exp(-2.0 * i / d * log_theta);
}

/* "Dynamic NTK": the base grows with the length beyond what the model was trained for. */
static double dynamic_log_theta(const struct rope *r, int64_t len)
{
    double l = (double)len, max = (double)r->max_position_embeddings, f = r->params.factor, d = r->head_dim;
    double stretch = f * l / max - (f - 1);
    return det_log(r->params.theta) + det_log(stretch) * (d / (d - 2));
}

static double llama3_freq(const struct rope_params *p, double inv)
{
    double wave = 2 * pi / inv, original = (double)p->original_max_position_embeddings;
    if (wave < original / p->high_freq_factor)
        return inv;
    if (wave > original / p->low_freq_factor)
        return inv / p->factor;
    double s = (original / wave - p->low_freq_factor) / (p->high_freq_factor - p->low_freq_factor);
    return inv * ((1 - s) / p->factor + s);
}

/* The (fractional) pair whose wave turns `rotations` times over the original context. */
static double yarn_dim(const struct rope *r, double rotations)
{
    double original = (double)r->params.original_max_position_embeddings;
    return r->head_dim * det_log(original / (rotations * 2 * pi)) / (2 * det_log(r->params.theta));
}

static void yarn_freqs(struct rope *r)
{
    const struct rope_params *p = &r->params;
    double low = yarn_dim(r, p->beta_fast), high = yarn_dim(r, p->beta_slow);
    if (p->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low < 0 ? 0 : low;
    high = high > r->head_dim - 1 ? r->head_dim - 1 : high;
    if (low == high)
        high += 0.001;
    for (int i = 0; i < r->head_dim / 2; i++) {
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        double inv = r->inv_freq[i];
        r->inv_freq[i] = (float)(inv / p->factor * ramp + inv * (1 - ramp));
    }
}

void rope_init(struct rope *rope, const struct rope_params *params, int head_dim, int64_t max_position_embeddings)
{
    rope->params = *params;
    rope->head_dim = head_dim;
    rope->max_position_embeddings = max_position_embeddings;
    rope->inv_freq = mem_alloc((size_t)head_dim / 2 * sizeof(float));
    double log_theta = det_log(params->theta);
    for (int i = 0; i < head_dim / 2; i++) {
        float inv = base_freq(log_theta, i, head_dim);
        if (params->type == ROPE_LINEAR)
            inv = inv / (float)params->factor;
        if (params->type == ROPE_LLAMA3)
            inv = (float)llama3_freq(params, inv);
        rope->inv_freq[i] = inv;
    }
    if (params->type == ROPE_YARN)
        yarn_freqs(rope);
}

void rope_release(struct rope *rope)
{
    free(rope->inv_freq);
    rope->inv_freq = NULL;
}

void rope_angles(const struct rope *rope, int64_t position, int64_t rope_len, float *cos, float *sin)
{
    bool stretched = rope->params.type == ROPE_DYNAMIC && rope_len > rope->max_position_embeddings;
    double log_theta = stretched ? dynamic_log_theta(rope, rope_len) : 0;
    float factor = (float)rope->params.attention_factor;
    for (int i = 0; i < rope->head_dim / 2; i++) {
        float inv = stretched ? base_freq(log_theta, i, rope->head_dim) : rope->inv_freq[i];
        double s, c;
        det_sincos((double)((float)position * inv), &s, &c);
        cos[i] = (float)c * factor;
        sin[i] = (float)s * factor;
    }
}
