/* A dense decoder (Qwen3, Qwen2, Llama): packed weights and the forward pass over a paged cache. Load once, then
 * model_forward from one thread at a time; the work spreads over the pool given at load. */
#ifndef OCTAVO_MODEL_MODEL_H
#define OCTAVO_MODEL_MODEL_H

#include "base/pool.h"
#include "ckpt/checkpoint.h"
#include "kernel/ops.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/rope.h"

/* y = x W^T + b, with W (n, k) packed for the GEMM of its type. Rows of several tensors may be fused. */
struct linear {
    enum dtype dtype; /* BF16, F16 or F32 */
    int n, k;
    void *weight; /* packed, weight_bytes from mem_map */
    size_t weight_bytes;
    float *bias; /* (n), or NULL */
};

struct model_layer {
    enum layer_type type;
    float *input_norm, *post_attention_norm; /* (hidden) */
    float *q_norm, *k_norm;                  /* (head_dim), or NULL */
    struct linear qkv;                       /* (heads + 2 * kv_heads) * head_dim rows */
    struct linear o;
    struct linear gate_up; /* gate's rows, then up's */
    struct linear down;
};

struct model {
    struct model_config config;
    struct pool *pool;            /* borrowed */
    const struct kernel_ops *ops; /* borrowed */
    const struct checkpoint *ckpt;
    const struct tensor *embed; /* (vocab, hidden), pinned: rows are read where they lie */
    const uint8_t *embed_data;
    struct model_layer *layers;
    float *norm; /* (hidden) */
    struct linear lm_head;
    struct rope rope[LAYER_TYPE_COUNT];
    size_t weights_bytes;   /* packed and pinned */
    int64_t num_parameters; /* tied embeddings counted once */
};

typedef void model_progress_fn(void *arg, const char *phase, uint64_t done, uint64_t total);

/* What model_load will take, in bytes; no memory is touched. */
size_t model_weights_bytes(const struct checkpoint *ckpt);
/* Packs the weights of ckpt, which must outlive the model. */
int model_load(const struct checkpoint *ckpt, struct pool *pool, enum cpu_isa isa, model_progress_fn *progress,
               void *progress_arg, struct model **ret_model, struct octavo_error *err);
void model_free(struct model *model);

/* Memory of a forward pass, for at most max_tokens tokens; one for each thread that calls model_forward. */
struct workspace;
struct workspace *workspace_new(const struct model *model, int max_tokens); /* NULL when memory is refused */
void workspace_free(struct workspace *ws);

/* Writes K and V of every token of the batch, and the final normed hidden state of each of batch->logits_rows to
 * hidden (num_logits, hidden_size). A row depends on its own request only. No allocation. */
void model_forward(const struct model *model, struct workspace *ws, const struct kv_cache *kv,
                   const struct batch *batch, float *hidden);
/* logits (rows, ld) of hidden rows (rows, hidden_size); ld >= vocab_size. */
void model_logits(const struct model *model, const float *hidden, int rows, float *logits, size_t ld);

#endif
