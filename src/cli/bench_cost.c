/* Ideal costs: see bench_cost.h. */
#include "cli/bench_cost.h"

#include "base/mem.h"
#include "model/linear.h"

#include <stdio.h>

struct linear_cost {
    double macs, integer_macs, bytes;
};

static void add_linear(struct linear_cost *sum, const struct checkpoint *ckpt, const char *module, bool quantize)
{
    struct linear_spec s;
    checkpoint_linear(ckpt, module, &s);
    double macs = (double)s.n * (double)s.k;
    sum->macs += macs;
    sum->bytes += (double)linear_bytes(ckpt, module, quantize);
    if (s.quantised ? s.activation != ACTIVATION_FLOAT : quantize)
        sum->integer_macs += macs;
}

void bench_cost_init(struct bench_cost *cost, const struct checkpoint *ckpt, const enum dtype *dtypes, bool quantize)
{
    static const char *const modules[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                          "mlp.down_proj"};
    const struct model_config *c = checkpoint_config(ckpt);
    struct linear_cost layers = {0}, head = {0};
    *cost = (struct bench_cost){.window = c->sliding_window, .key_macs = 2.0 * c->num_attention_heads * c->head_dim};
    for (int i = 0; i < c->num_hidden_layers; i++) {
        for (size_t j = 0; j < ARRAY_LEN(modules); j++) {
            char name[96];
            snprintf(name, sizeof(name), "model.layers.%d.%s", i, modules[j]);
            add_linear(&layers, ckpt, name, quantize);
        }
        cost->num_layers[c->layer_types[i]]++;
        cost->kv_bytes[c->layer_types[i]] += 2.0 * c->num_key_value_heads * c->head_dim * dtype_bits(dtypes[i]) / 8;
    }
    add_linear(&head, ckpt, "lm_head", quantize);
    cost->linear_macs = layers.macs;
    cost->head_macs = head.macs;
    cost->weight_bytes = layers.bytes + head.bytes;
    cost->integer = layers.integer_macs > layers.macs / 2;
}

double bench_cost_prefill_macs(const struct bench_cost *cost, int64_t n)
{
    double t = (double)n, w = (double)cost->window;
    double all = t * (t + 1) / 2; /* keys seen by all tokens together */
    double sliding = w && w < t ? w * (w + 1) / 2 + (t - w) * w : all;
    return t * cost->linear_macs + cost->head_macs +
           cost->key_macs *
               (cost->num_layers[LAYER_FULL_ATTENTION] * all + cost->num_layers[LAYER_SLIDING_ATTENTION] * sliding);
}

double bench_cost_decode_macs(const struct bench_cost *cost, int64_t position)
{
    double keys = (double)position + 1, w = (double)cost->window;
    return cost->linear_macs + cost->head_macs +
           cost->key_macs * (cost->num_layers[LAYER_FULL_ATTENTION] * keys +
                             cost->num_layers[LAYER_SLIDING_ATTENTION] * (w && w < keys ? w : keys));
}

double bench_cost_kv_bytes(const struct bench_cost *cost, int64_t position)
{
    double keys = (double)position + 1, w = (double)cost->window;
    return cost->kv_bytes[LAYER_FULL_ATTENTION] * keys +
           cost->kv_bytes[LAYER_SLIDING_ATTENTION] * (w && w < keys ? w : keys);
}
