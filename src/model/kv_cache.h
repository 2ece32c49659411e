/* The bytes of the paged KV cache: layout and addresses. Who owns which block is engine/kv_manager's business.
 *
 * One map, [layer][run of blocks][kv_head][tile of the run][K, V], with tiles of ATTN_TILE tokens: what a head reads of
 * blocks that follow one another is one line of addresses, in their order, which a CPU reads ahead of, and does not
 * meet in a few sets of a cache. A layer in one run would stream best, but then a short context would touch a page of
 * each head's. Each layer has its own type, so that INT8 layers may lie beside float ones.
 *
 * A tile of a head holds, in float caches,
 *   - K (head_dim, ATTN_TILE): one vector load is one channel of many tokens
 *   - V (ATTN_TILE, head_dim): one vector load is many channels of one token
 *
 * and in INT8 ("C8") ones, for dot products of four,
 *   - K (ceil(head_dim / 4), ATTN_TILE, 4), u8 = q + 128
 *   - V (ATTN_TILE / 4, head_dim, 4), s8
 *
 * A slot is block * block_size + offset. Written and read by the workers of a step, disjointly. */
#ifndef OCTAVO_MODEL_KV_CACHE_H
#define OCTAVO_MODEL_KV_CACHE_H

#include "base/err.h"
#include "ckpt/safetensors.h"
#include "kernel/ops.h"

#include <stddef.h>
#include <stdint.h>

#define KV_RUN_TOKENS 8192 /* of a run, at most, but for blocks that are longer */

struct kv_layer {
    enum dtype dtype;  /* BF16, F16, F32, or I8 for C8 */
    size_t half_bytes; /* K of one head in one tile, and V, which may be less: from one to the other */
    size_t run_bytes;  /* of a run, all heads: from one run to the next */
    uint8_t *data;     /* (runs, num_kv_heads, run_blocks * block_size / ATTN_TILE, 2, half_bytes) */
};

struct kv_cache {
    int num_layers, num_kv_heads, head_dim;
    int block_size; /* tokens, a multiple of ATTN_TILE */
    int64_t num_blocks;
    int run_blocks;          /* as many as leave the last run about as long as the others */
    struct kv_layer *layers; /* (num_layers) */
    uint8_t *data;
    size_t data_bytes;
};

/* Bytes of one block over all layers, of the types dtypes (num_layers). */
size_t kv_cache_block_bytes(const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim, int block_size);
int kv_cache_init(struct kv_cache *kv, const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim,
                  int block_size, int64_t num_blocks, struct octavo_error *err);
void kv_cache_release(struct kv_cache *kv);

/* K of a head in the tile that holds a slot. */
static inline uint8_t *kv_cache_k(const struct kv_cache *kv, int layer, int64_t slot, int kv_head)
{
    const struct kv_layer *l = &kv->layers[layer];
    size_t run = (size_t)kv->run_blocks * (size_t)kv->block_size, s = (size_t)slot;
    return l->data + s / run * l->run_bytes + ((size_t)kv_head * run + s % run) / ATTN_TILE * 2 * l->half_bytes;
}

static inline uint8_t *kv_cache_v(const struct kv_cache *kv, int layer, int64_t slot, int kv_head)
{
    return kv_cache_k(kv, layer, slot, kv_head) + kv->layers[layer].half_bytes;
}

#endif
