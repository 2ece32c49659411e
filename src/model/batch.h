/* A flat batch: the tokens of one step, of all requests, one after another. There are no phases: a decode is a sequence
 * with one token, a prompt chunk one with many. Built by engine/model_runner, read by model_forward. */
#ifndef OCTAVO_MODEL_BATCH_H
#define OCTAVO_MODEL_BATCH_H

#include <stdint.h>

struct batch {
    int num_tokens;
    int32_t *token_ids;          /* (num_tokens) */
    int64_t *positions;          /* (num_tokens) absolute, in the request */
    int64_t *rope_lens;          /* (num_tokens) see rope_angles */
    int64_t *slot_mapping;       /* (num_tokens) where its K and V go */
    const int32_t **block_table; /* (num_tokens) of its request */
    int num_logits;
    int32_t *logits_rows; /* (num_logits) tokens whose hidden state is wanted, ascending */
};

#endif
