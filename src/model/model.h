/* A dense decoder (Qwen3, Qwen2, Llama): packed weights and the forward pass over a paged cache. Load once, then
 * model_forward from one thread at a time; the work spreads over the pool given at load. */
#ifndef OCTAVO_MODEL_MODEL_H
#define OCTAVO_MODEL_MODEL_H

#include "base/pool.h"
#include "ckpt/checkpoint.h"
#include "kernel/ops.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/linear.h"
#include "model/rope.h"

/* Scale of the norm, and the shift that some quantised checkpoints add: y = rmsnorm(x) * weight + bias. */
struct norm {
    float *weight, *bias; /* (channels), or NULL */
};

enum { Q, K, V, NUM_QKV };
enum { GATE, UP, NUM_GATE_UP };

struct model_layer {
    enum layer_type type;
    struct norm input_norm, post_attention_norm; /* (hidden) */
    struct norm q_norm, k_norm;                  /* (head_dim); weight NULL: the family has none */
    struct linear qkv[NUM_QKV], o, gate_up[NUM_GATE_UP], down;
    struct linear swiglu; /* gate and up in one, where they fit together: then gate_up is empty */
    struct c8_scales *c8; /* (kv_heads), for an INT8 cache; NULL when the checkpoint has no scales for this layer */
    float *c8_data;       /* what they point into */
};

struct model {
    struct model_config config;
    struct pool *pool;            /* borrowed */
    const struct kernel_ops *ops; /* borrowed */
    const struct checkpoint *ckpt;
    const struct tensor *embed; /* (vocab, hidden), pinned: rows are read where they lie; NULL in a later stage */
    const uint8_t *embed_data;
    struct model_layer *layers;
    struct norm norm; /* (hidden); weight NULL in an earlier stage */
    struct linear lm_head;
    struct rope rope[LAYER_TYPE_COUNT];
    size_t weights_bytes;   /* packed and pinned */
    int64_t num_parameters; /* tied embeddings counted once */
};

typedef void model_progress_fn(void *arg, const char *phase, uint64_t done, uint64_t total);

struct model_options {
    enum cpu_isa isa;
    bool quantize_w8a8; /* float linears and lm_head become W8A8_DYNAMIC while they are packed */
    bool dummy_c8;      /* layers without C8 scales get made-up ones: for dummy weights only */
    /* A stage, as in pipeline parallelism: num_layers layers from first_layer on, which the model counts from 0, and no
     * lm_head. The first stage has the embeddings, the others read batch->inputs_embeds; the last one has the final
     * norm, the others give the residual stream. num_layers 0: the whole model. */
    int first_layer, num_layers;
    model_progress_fn *progress; /* may be NULL */
    void *progress_arg;
};

/* What model_load will take, in bytes; no memory is touched. */
size_t model_weights_bytes(const struct checkpoint *ckpt, const struct model_options *opts);
/* Packs the weights of ckpt, which must outlive the model. */
int model_load(const struct checkpoint *ckpt, struct pool *pool, const struct model_options *opts,
               struct model **ret_model, struct octavo_error *err);
void model_free(struct model *model);

/* Memory of a forward pass, for at most max_tokens tokens; one for each thread that calls model_forward. */
struct workspace;
struct workspace *workspace_new(const struct model *model, int max_tokens); /* NULL when memory is refused */
void workspace_free(struct workspace *ws);
struct profile;
/* From now on passes add their times to it; NULL: no more. */
void workspace_set_profile(struct workspace *ws, struct profile *profile);

/* Writes K and V of every token of the batch, and the final normed hidden state of each of batch->logits_rows to
 * hidden (num_logits, hidden_size), which may be batch->inputs_embeds itself. A row depends on its own request only. No
 * allocation. */
void model_forward(const struct model *model, struct workspace *ws, const struct kv_cache *kv,
                   const struct batch *batch, float *hidden);
/* logits (rows, ld) of hidden rows (rows, hidden_size), at most the workspace's max_tokens; ld >= vocab_size. */
void model_logits(const struct model *model, struct workspace *ws, const float *hidden, int rows, float *logits,
                  size_t ld);

#endif
