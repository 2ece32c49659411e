/* The bytes of the paged KV cache: layout and addresses. Who owns which block is engine/kv_manager's business.
 *
 * One map, [layer][run of KV_RUN blocks][kv_head][block of the run][K, V]: what a head reads of blocks that follow one
 * another lies together, so that it streams and does not meet in a few sets of a cache, while a short context touches
 * little memory. Each layer has its own type, so that INT8 layers may lie beside float ones.
 *
 * Inside a head of a block, with tiles of ATTN_TILE tokens, float caches hold
 *   - K (block_size / ATTN_TILE, head_dim, ATTN_TILE): one vector load is one channel of many tokens
 *   - V (block_size, head_dim): one vector load is many channels of one token
 *
 * and INT8 ("C8") ones, for dot products of four,
 *   - K (block_size / ATTN_TILE, ceil(head_dim / 4), ATTN_TILE, 4), u8 = q + 128
 *   - V (block_size / 4, head_dim, 4), s8
 *
 * A slot is block * block_size + offset. Written and read by the workers of a step, disjointly. */
#ifndef OCTAVO_MODEL_KV_CACHE_H
#define OCTAVO_MODEL_KV_CACHE_H

#include "base/err.h"
#include "ckpt/safetensors.h"
#include "kernel/ops.h"

#include <stddef.h>
#include <stdint.h>

struct kv_layer {
    enum dtype dtype;        /* BF16, F16, F32, or I8 for C8 */
    size_t k_bytes, v_bytes; /* of one head in one block */
    size_t block_bytes;      /* K and V of one head in one block: from one block of a run to the next */
    size_t run_bytes;        /* of KV_RUN blocks, all heads: from one run to the next */
    uint8_t *data;           /* (runs, num_kv_heads, KV_RUN, block_bytes) */
};

struct kv_cache {
    int num_layers, num_kv_heads, head_dim;
    int block_size; /* tokens, a multiple of ATTN_TILE */
    int64_t num_blocks;
    struct kv_layer *layers; /* (num_layers) */
    uint8_t *data;
    size_t data_bytes;
};

/* Bytes of one block over all layers, of the types dtypes (num_layers). */
size_t kv_cache_block_bytes(const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim, int block_size);
int kv_cache_init(struct kv_cache *kv, const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim,
                  int block_size, int64_t num_blocks, struct octavo_error *err);
void kv_cache_release(struct kv_cache *kv);

static inline uint8_t *kv_cache_k(const struct kv_cache *kv, int layer, int64_t block, int kv_head)
{
    const struct kv_layer *l = &kv->layers[layer];
    return l->data + (size_t)block / KV_RUN * l->run_bytes +
           ((size_t)kv_head * KV_RUN + (size_t)block % KV_RUN) * l->block_bytes;
}

static inline uint8_t *kv_cache_v(const struct kv_cache *kv, int layer, int64_t block, int kv_head)
{
    return kv_cache_k(kv, layer, block, kv_head) + kv->layers[layer].k_bytes;
}

#endif
