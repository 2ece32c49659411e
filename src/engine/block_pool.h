/* All KV blocks of the cache, by record: who is free, who is held and how often. Knows no tokens and no bytes. Engine
 * thread only. */
#ifndef OCTAVO_ENGINE_BLOCK_POOL_H
#define OCTAVO_ENGINE_BLOCK_POOL_H

#include <stdint.h>

struct kv_block {
    int32_t ref_cnt;
    int32_t prev, next; /* in the free queue, -1 at its ends */
};

/* The free queue is in the order of release: what was let go longest ago is taken first. */
struct block_pool {
    struct kv_block *blocks; /* (num_blocks) */
    int64_t num_blocks, num_free;
    int32_t free_head, free_tail;
};

void block_pool_init(struct block_pool *pool, int64_t num_blocks);
void block_pool_release(struct block_pool *pool);
/* Takes a free block, with one reference; -1 when there is none. */
int32_t block_pool_take(struct block_pool *pool);
/* Drops one reference; the last one frees the block. */
void block_pool_put(struct block_pool *pool, int32_t block);

#endif
