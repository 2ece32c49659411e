/* Rotary embedding: frequencies of one layer type, and the cos and sin of a position. The formulas are those of
 * transformers' modeling_rope_utils; frequencies and angles are float32 there, and so here. Immutable after init. */
#ifndef OCTAVO_MODEL_ROPE_H
#define OCTAVO_MODEL_ROPE_H

#include "ckpt/config.h"

struct rope {
    struct rope_params params;
    int head_dim;
    int64_t max_position_embeddings;
    float *inv_freq; /* (head_dim / 2) */
};

void rope_init(struct rope *rope, const struct rope_params *params, int head_dim, int64_t max_position_embeddings);
void rope_release(struct rope *rope);
/* cos and sin (head_dim / 2) of position. rope_len matters to ROPE_DYNAMIC only: the length that its base is stretched
 * for, max(prompt length, position + 1), which makes a token's rotation a function of its request alone. */
void rope_angles(const struct rope *rope, int64_t position, int64_t rope_len, float *cos, float *sin);

#endif
