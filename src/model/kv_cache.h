/* The bytes of the paged KV cache: layout and addresses. Who owns which block is engine/kv_manager's business.
 *
 * One map, [layer][block][K, V][kv_head]; inside a head of a block, with tiles of ATTN_TILE tokens,
 *   K: (block_size / ATTN_TILE, head_dim, ATTN_TILE)   one vector load is one channel of many tokens
 *   V: (block_size, head_dim)                          one vector load is many channels of one token
 * A slot is block * block_size + offset. Written and read by the workers of a step, disjointly. */
#ifndef OCTAVO_MODEL_KV_CACHE_H
#define OCTAVO_MODEL_KV_CACHE_H

#include "base/err.h"
#include "ckpt/safetensors.h"

#include <stddef.h>
#include <stdint.h>

struct kv_cache {
    enum dtype dtype; /* BF16, F16 or F32 */
    int num_layers, num_kv_heads, head_dim;
    int block_size; /* tokens, a multiple of ATTN_TILE */
    int64_t num_blocks;
    size_t head_bytes;  /* of K or V of one head in one block */
    size_t block_bytes; /* of one layer's block: K and V of every head */
    uint8_t *data;
    size_t data_bytes;
};

/* Bytes of one block over all layers. */
size_t kv_cache_block_bytes(enum dtype dtype, int num_layers, int num_kv_heads, int head_dim, int block_size);
int kv_cache_init(struct kv_cache *kv, enum dtype dtype, int num_layers, int num_kv_heads, int head_dim, int block_size,
                  int64_t num_blocks, struct octavo_error *err);
void kv_cache_release(struct kv_cache *kv);

static inline uint8_t *kv_cache_k(const struct kv_cache *kv, int layer, int64_t block, int kv_head)
{
    return kv->data + ((size_t)layer * (size_t)kv->num_blocks + (size_t)block) * kv->block_bytes +
           (size_t)kv_head * kv->head_bytes;
}

static inline uint8_t *kv_cache_v(const struct kv_cache *kv, int layer, int64_t block, int kv_head)
{
    return kv_cache_k(kv, layer, block, kv->num_kv_heads + kv_head);
}

#endif
