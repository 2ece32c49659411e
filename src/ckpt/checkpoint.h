/* A checkpoint: a folder of config.json and safetensors, checked as a whole and given out as named tensors.
 * The engine and `octavo inspect` open it the same way, so what one accepts the other does. Single-threaded but for
 * checkpoint_tensor_pin, which may run on several threads for different tensors. */
#ifndef OCTAVO_CKPT_CHECKPOINT_H
#define OCTAVO_CKPT_CHECKPOINT_H

#include "base/err.h"
#include "ckpt/config.h"
#include "ckpt/safetensors.h"

#include <stdbool.h>

struct checkpoint;

enum load_format { LOAD_AUTO, LOAD_DUMMY };

/* Opens the folder: config, how it is quantised, index or single file, every shard; then checks that every tensor the
 * architecture needs is there with the right shape and type (BF16, F16 or F32 where it is not quantised), and that
 * optional ones (biases, lm_head) are right where they appear. What is quantised in a way that is not implemented is
 * refused by name. LOAD_DUMMY needs config.json only and describes the same tensors, not quantised, in config's dtype.
 */
int checkpoint_open(const char *dir, enum load_format format, uint64_t seed, struct checkpoint **ret_ckpt,
                    struct octavo_error *err);
void checkpoint_free(struct checkpoint *ckpt);

const char *checkpoint_dir(const struct checkpoint *ckpt);
const struct model_config *checkpoint_config(const struct checkpoint *ckpt);
const struct generation_config *checkpoint_generation_config(const struct checkpoint *ckpt);
size_t checkpoint_num_tensors(const struct checkpoint *ckpt);
const struct tensor *checkpoint_tensor(const struct checkpoint *ckpt, size_t i);
const struct tensor *checkpoint_find(const struct checkpoint *ckpt, const char *name); /* NULL when absent */

/* Tensors the architecture does not use (left over from other tools): named by inspect, a warning when serving. Those
 * of a quantised linear whose meaning is known and that are not needed (weight_offset of zeros, scale_bias) are neither
 * here nor there. */
size_t checkpoint_num_unused(const struct checkpoint *ckpt);
const struct tensor *checkpoint_unused(const struct checkpoint *ckpt, size_t i);

/* The bytes of t, until unpin. For a file they are the map's; for a dummy they are made here (deterministic in seed
 * and the tensor's name; linears and embeddings normal-like with standard deviation 0.02, norms 1, biases small). NULL
 * when memory is refused. unpin lets the system drop the pages. */
const uint8_t *checkpoint_tensor_pin(const struct checkpoint *ckpt, const struct tensor *t);
void checkpoint_tensor_unpin(const struct checkpoint *ckpt, const struct tensor *t, const uint8_t *data);

/* ---- linears and caches, quantised or not ----
 * ModelSlim's and compressed-tensors' layouts (facts: their format documents) come out of here in one form, so that
 * later layers know arithmetic and not file formats. Everything is checked by checkpoint_open: shapes, types, and that
 * every scale is finite and positive. */

enum activation_kind {
    ACTIVATION_FLOAT,             /* weights only are quantised, or nothing is */
    ACTIVATION_INT8_DYNAMIC,      /* per token: s = absmax/127, x_q = clamp(rint(x/s), -127, 127) */
    ACTIVATION_INT8_DYNAMIC_ASYM, /* per token: s = (max-min)/255 over min <= 0 <= max, zp = rint(-128 - min/s) */
    ACTIVATION_INT8_STATIC,       /* x_q = clamp(rint(x * (1/input_scale) + input_offset), -128, 127) */
};

/* One linear module, such as "model.layers.0.self_attn.q_proj" or "lm_head".
 * Not quantised: weight is the float tensor (n, k). Quantised, with q the integers of checkpoint_linear_rows:
 *   ACTIVATION_FLOAT:     W[n][k] = (q - zero[n][g]) * scale[n][g], g = k / group_size; y = x W^T + bias
 *   ACTIVATION_INT8_*:    y = scale_x * scale[n] * sum_k (x_q - zp_x) * (q - zero[n]) + bias, one group
 *   and ACTIVATION_INT8_STATIC with folded: y = (sum_k x_q * q + quant_bias[n]) * deq_scale[n]   (ModelSlim W8A8) */
struct linear_spec {
    char kind[32]; /* the file's own word: "FLOAT", "W8A8_DYNAMIC", "compressed-tensors W4A16" */
    int n, k;
    bool quantised;
    int bits;       /* that hold q as stored: 8, or 4 (int4 stored one a byte counts as 8) */
    int group_size; /* along k; k when there is one group */
    bool has_zero;  /* some zero[n][g] is not 0 */
    bool folded;    /* quant_bias and deq_scale say it all; bias is NULL */
    enum activation_kind activation;
    float input_scale, input_offset; /* ACTIVATION_INT8_STATIC */
    const struct tensor *weight;     /* float (n, k), or the packed integers */
    const struct tensor *bias;       /* (n), or NULL */
};

/* Fills *ret for a module the architecture has; lm_head falls back on the embedding when it is tied. */
void checkpoint_linear(const struct checkpoint *ckpt, const char *module, struct linear_spec *ret);
/* q of rows [row, row + rows) as int8 (rows, k), unpacked. May run on several threads for different rows. NULL-safe
 * errors do not exist here: all was checked. Dummies are made on the fly. 0, or OCTAVO_ENOMEM. */
int checkpoint_linear_rows(const struct checkpoint *ckpt, const struct linear_spec *spec, int row, int rows, int8_t *q);
/* The rows are not needed soon: gives their memory back to the page cache. */
void checkpoint_linear_done(const struct checkpoint *ckpt, const struct linear_spec *spec);
/* scale and zero, float32 (n, k / group_size); zero may be NULL when has_zero is false. Not for folded ones. */
void checkpoint_linear_scales(const struct checkpoint *ckpt, const struct linear_spec *spec, float *scale, float *zero);
/* quant_bias and deq_scale (n) of a folded one. */
void checkpoint_linear_folded(const struct checkpoint *ckpt, const struct linear_spec *spec, int32_t *quant_bias,
                              float *deq_scale);

/* Static per-channel scales of one layer's INT8 cache, (num_key_value_heads * head_dim), head-major, already broadcast
 * from whatever shape they had: q = clamp(rint(x * (1/scale) + offset), -128, 127), value (q - offset) * scale. */
struct kv_scales {
    float *k_scale, *k_offset, *v_scale, *v_offset;
};
/* NULL: this layer's cache is not INT8. */
const struct kv_scales *checkpoint_kv_scales(const struct checkpoint *ckpt, int layer);
/* The bias of a norm ("model.layers.0.input_layernorm"): some quantised checkpoints shift. NULL: none. Also for q_norm,
 * k_norm and "model.norm". */
const struct tensor *checkpoint_norm_bias(const struct checkpoint *ckpt, const char *module);
/* "float", "ModelSlim" or "compressed-tensors". */
const char *checkpoint_format(const struct checkpoint *ckpt);

#endif
