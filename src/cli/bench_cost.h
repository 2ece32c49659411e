/* What a model costs an ideal machine: multiply-adds and bytes, from the shapes in config.json. Pure functions. */
#ifndef OCTAVO_CLI_BENCH_COST_H
#define OCTAVO_CLI_BENCH_COST_H

#include "ckpt/checkpoint.h"

struct bench_cost {
    double linear_macs;  /* q, k, v, o, gate, up and down of all layers, for each token */
    double head_macs;    /* lm_head, for each sampled token */
    double key_macs;     /* q.k and p.v of all heads of a layer, for each token and key it sees */
    double weight_bytes; /* all of these linears, lm_head included, as they lie in memory */
    bool integer;        /* most of the linears' multiply-adds are INT8 x INT8 */
    /* Layers that see everything, and layers that see a sliding window. */
    int64_t window;
    int num_layers[LAYER_TYPE_COUNT];
    double kv_bytes[LAYER_TYPE_COUNT]; /* for each position, all layers of the type */
};

/* dtypes (num_hidden_layers): the layers' cache; quantize: float linears become INT8 while they load. */
void bench_cost_init(struct bench_cost *cost, const struct checkpoint *ckpt, const enum dtype *dtypes, bool quantize);
/* Of computing a prompt of n tokens and sampling one. */
double bench_cost_prefill_macs(const struct bench_cost *cost, int64_t n);
/* Of computing and sampling the token at position alone. */
double bench_cost_decode_macs(const struct bench_cost *cost, int64_t position);
/* Of the KV that the token at position sees, itself included. */
double bench_cost_kv_bytes(const struct bench_cost *cost, int64_t position);

#endif
