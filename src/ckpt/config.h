/* config.json and generation_config.json of Hugging Face decoders: Qwen3, Qwen2/2.5, Llama 2/3.
 * Everything is range-checked here, so that later layers may multiply without fear. */
#ifndef OCTAVO_CKPT_CONFIG_H
#define OCTAVO_CKPT_CONFIG_H

#include "base/err.h"
#include "ckpt/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

enum model_family { MODEL_QWEN3, MODEL_QWEN2, MODEL_LLAMA };
enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN };
enum layer_type { LAYER_FULL_ATTENTION, LAYER_SLIDING_ATTENTION, LAYER_TYPE_COUNT };

/* Names and meanings are those of transformers' modeling_rope_utils. */
struct rope_params {
    enum rope_type type;
    double theta;
    double factor;                            /* linear, dynamic, llama3, yarn; else 1 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    int64_t original_max_position_embeddings; /* llama3, yarn (and dynamic, where transformers uses it) */
    double beta_fast, beta_slow;              /* yarn */
    bool truncate;                            /* yarn */
    double attention_factor;                  /* yarn, resolved: what cos and sin are multiplied by; else 1 */
    double partial_rotary_factor;             /* refused unless 1 */
};

#define CONFIG_MAX_LAYERS 1024
#define CONFIG_MAX_EOS 64

struct model_config {
    enum model_family family;
    char architecture[64]; /* architectures[0] */
    enum dtype dtype;      /* torch_dtype / dtype: BF16, F16 or F32 (default BF16) */
    int hidden_size, intermediate_size, num_hidden_layers;
    int num_attention_heads, num_key_value_heads, head_dim;
    int vocab_size;
    float rms_norm_eps;
    int64_t max_position_embeddings; /* as written */
    int64_t max_model_len;           /* tokens: with RoPE scaling counted as vLLM derives it */
    bool tie_word_embeddings;
    bool attention_bias, mlp_bias;          /* what the flags say; tensors decide (checkpoint.h) */
    int64_t sliding_window;                 /* tokens a sliding layer sees, itself included; 0: no layer slides */
    uint8_t layer_types[CONFIG_MAX_LAYERS]; /* enum layer_type, (num_hidden_layers) */
    struct rope_params rope[LAYER_TYPE_COUNT];
    int32_t bos_token_id;                  /* -1: none */
    int32_t eos_token_ids[CONFIG_MAX_EOS]; /* union of both files, in order of appearance, no duplicates */
    int num_eos_token_ids;
};

/* Defaults that generation_config.json asks for; a field that is absent has has_* false. */
struct generation_config {
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_repetition_penalty, has_max_new_tokens;
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k, max_new_tokens;
};

/* Reads dir/config.json, and dir/generation_config.json when there is one (its eos ids join config->eos_token_ids). */
int model_config_load(const char *dir, struct model_config *ret_config, struct generation_config *ret_generation,
                      struct octavo_error *err);
/* The same from texts, for tests and fuzzing; generation may be NULL. */
int model_config_parse(const char *config, size_t config_len, const char *generation, size_t generation_len,
                       struct model_config *ret_config, struct generation_config *ret_generation,
                       struct octavo_error *err);

#endif
