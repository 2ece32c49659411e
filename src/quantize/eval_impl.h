/* Inside of an evaluation: what eval_open.c opens and eval.c runs. */
#ifndef OCTAVO_QUANTIZE_EVAL_IMPL_H
#define OCTAVO_QUANTIZE_EVAL_IMPL_H

#include "model/model.h"
#include "quantize/eval.h"

#define EVAL_BLOCK_SIZE 32    /* tokens of a KV block */
#define EVAL_STEP_TOKENS 2048 /* of one forward pass, at most */

/* One side: weights, a cache of its own, and room for one pass. */
struct eval_side {
    struct checkpoint *ckpt; /* NULL, with model and ws: the first side's are used (shared) */
    struct model *model;
    struct workspace *ws;
    const struct model *use_model; /* own or shared */
    struct workspace *use_ws;
    enum dtype *kv_dtypes; /* (num_hidden_layers) */
    struct kv_cache kv;
    float *hidden; /* (step_tokens, hidden_size) */
    size_t hidden_bytes;
    float *logits; /* (EVAL_LOGITS_ROWS, vocab) */
    size_t logits_bytes;
    struct eval_side_info info;
    char weights[32];
};

struct eval {
    int window, stride, batch; /* resolved */
    int step_tokens;           /* of a pass */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
    struct pool *pool;
    int num_sides; /* 1 or 2 */
    struct eval_side sides[2];
};

#define EVAL_LOGITS_ROWS 32 /* rows of logits in memory at once */

static inline int64_t eval_blocks_per_window(const struct eval *e)
{
    return (e->window + EVAL_BLOCK_SIZE - 1) / EVAL_BLOCK_SIZE;
}

#endif
