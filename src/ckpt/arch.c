/* Tensors of Qwen3, Qwen2 and Llama: see arch.h. */
#include "ckpt/arch.h"

#include "base/mem.h"

#include <stdio.h>

enum dim { DIM_NONE, DIM_HIDDEN, DIM_VOCAB, DIM_Q, DIM_KV, DIM_FF, DIM_HEAD };
enum need { NEED_ALWAYS, NEED_UNTIED, NEED_QKV_BIAS, NEED_O_BIAS, NEED_MLP_BIAS, NEED_QK_NORM };

struct row {
    const char *name; /* after "model.layers.L." for a layer's */
    enum arch_role role;
    enum need need;
    enum dim dims[2];
};

static const struct row before[] = {
    {"model.embed_tokens.weight", ARCH_EMBEDDING, NEED_ALWAYS, {DIM_VOCAB, DIM_HIDDEN}},
};

static const struct row layer[] = {
    {"input_layernorm.weight", ARCH_NORM, NEED_ALWAYS, {DIM_HIDDEN}},
    {"self_attn.q_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_Q, DIM_HIDDEN}},
    {"self_attn.q_proj.bias", ARCH_BIAS, NEED_QKV_BIAS, {DIM_Q}},
    {"self_attn.k_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_KV, DIM_HIDDEN}},
    {"self_attn.k_proj.bias", ARCH_BIAS, NEED_QKV_BIAS, {DIM_KV}},
    {"self_attn.v_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_KV, DIM_HIDDEN}},
    {"self_attn.v_proj.bias", ARCH_BIAS, NEED_QKV_BIAS, {DIM_KV}},
    {"self_attn.q_norm.weight", ARCH_NORM, NEED_QK_NORM, {DIM_HEAD}},
    {"self_attn.k_norm.weight", ARCH_NORM, NEED_QK_NORM, {DIM_HEAD}},
    {"self_attn.o_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_HIDDEN, DIM_Q}},
    {"self_attn.o_proj.bias", ARCH_BIAS, NEED_O_BIAS, {DIM_HIDDEN}},
    {"post_attention_layernorm.weight", ARCH_NORM, NEED_ALWAYS, {DIM_HIDDEN}},
    {"mlp.gate_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_FF, DIM_HIDDEN}},
    {"mlp.gate_proj.bias", ARCH_BIAS, NEED_MLP_BIAS, {DIM_FF}},
    {"mlp.up_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_FF, DIM_HIDDEN}},
    {"mlp.up_proj.bias", ARCH_BIAS, NEED_MLP_BIAS, {DIM_FF}},
    {"mlp.down_proj.weight", ARCH_LINEAR, NEED_ALWAYS, {DIM_HIDDEN, DIM_FF}},
    {"mlp.down_proj.bias", ARCH_BIAS, NEED_MLP_BIAS, {DIM_HIDDEN}},
};

static const struct row after[] = {
    {"model.norm.weight", ARCH_NORM, NEED_ALWAYS, {DIM_HIDDEN}},
    {"lm_head.weight", ARCH_LINEAR, NEED_UNTIED, {DIM_VOCAB, DIM_HIDDEN}},
};

static int64_t dim_size(const struct model_config *c, enum dim dim)
{
    switch (dim) {
    case DIM_HIDDEN:
        return c->hidden_size;
    case DIM_VOCAB:
        return c->vocab_size;
    case DIM_Q:
        return (int64_t)c->num_attention_heads * c->head_dim;
    case DIM_KV:
        return (int64_t)c->num_key_value_heads * c->head_dim;
    case DIM_FF:
        return c->intermediate_size;
    case DIM_HEAD:
        return c->head_dim;
    default:
        return 0;
    }
}

/* Why the tensor must be there; NULL when it is optional. */
static const char *need_reason(const struct model_config *c, enum need need)
{
    switch (need) {
    case NEED_ALWAYS:
        return "every model of this architecture has it";
    case NEED_UNTIED:
        return c->tie_word_embeddings ? NULL
                                      : "tie_word_embeddings is false; if the output layer is the embedding, set "
                                        "\"tie_word_embeddings\": true in config.json";
    case NEED_QKV_BIAS:
        if (c->family == MODEL_QWEN2)
            return "Qwen2 models have biases on q, k and v";
        return c->attention_bias ? "attention_bias is true" : NULL;
    case NEED_O_BIAS:
        return c->attention_bias ? "attention_bias is true" : NULL;
    case NEED_MLP_BIAS:
        return c->mlp_bias ? "mlp_bias is true" : NULL;
    case NEED_QK_NORM:
        return c->family == MODEL_QWEN3 ? "Qwen3 models normalise q and k" : NULL;
    }
    return NULL;
}

size_t arch_num_tensors(const struct model_config *c)
{
    return ARRAY_LEN(before) + ARRAY_LEN(layer) * (size_t)c->num_hidden_layers + ARRAY_LEN(after);
}

void arch_tensor_at(const struct model_config *c, size_t i, struct arch_tensor *ret)
{
    const struct row *row;
    size_t in_layers = ARRAY_LEN(layer) * (size_t)c->num_hidden_layers;
    *ret = (struct arch_tensor){0};
    if (i < ARRAY_LEN(before)) {
        row = &before[i];
        snprintf(ret->name, sizeof(ret->name), "%s", row->name);
    } else if ((i -= ARRAY_LEN(before)) < in_layers) {
        row = &layer[i % ARRAY_LEN(layer)];
        snprintf(ret->name, sizeof(ret->name), "model.layers.%zu.%s", i / ARRAY_LEN(layer), row->name);
    } else {
        row = &after[i - in_layers];
        snprintf(ret->name, sizeof(ret->name), "%s", row->name);
    }
    ret->role = row->role;
    ret->reason = need_reason(c, row->need);
    ret->required = ret->reason != NULL;
    for (int d = 0; d < 2 && row->dims[d] != DIM_NONE; d++)
        ret->shape[ret->num_dims++] = dim_size(c, row->dims[d]);
}
