/* A flat batch: the tokens of one step, of all requests, one after another. There are no phases: a decode is a sequence
 * with one token, a prompt chunk one with many. Built by engine/model_runner, read by model_forward. */
#ifndef OCTAVO_MODEL_BATCH_H
#define OCTAVO_MODEL_BATCH_H

#include <stddef.h>
#include <stdint.h>

/* What a tap is shown: rows as the linears of a set read them, and q, k, v side by side after norm and rotation. */
enum tap_point { TAP_QKV_INPUT, TAP_QKV, TAP_O_INPUT, TAP_GATE_UP_INPUT, TAP_DOWN_INPUT };

/* Watches a pass, for calibration: every worker calls see with all rows x (num_tokens, ldx) of a layer at each point,
 * side by side, so that each may look after columns of its own. x must not be kept. */
struct tap {
    void (*see)(void *arg, int layer, enum tap_point point, const float *x, size_t ldx, int num_tokens, int worker,
                int num_workers);
    void *arg;
};

struct batch {
    int num_tokens;
    int32_t *token_ids;          /* (num_tokens) */
    const float *inputs_embeds;  /* (num_tokens, hidden) in place of token_ids, for a model that is a later stage */
    int64_t *positions;          /* (num_tokens) absolute, in the request */
    int64_t *rope_lens;          /* (num_tokens) see rope_angles */
    int64_t *slot_mapping;       /* (num_tokens) where its K and V go */
    const int32_t **block_table; /* (num_tokens) of its request */
    int num_logits;
    int32_t *logits_rows;  /* (num_logits) tokens whose hidden state is wanted, ascending */
    const struct tap *tap; /* or NULL */
};

#endif
