/* All KV blocks of the cache, by record: who is free, who is held and how often, and which full blocks can be found by
 * their key. Knows no tokens and no bytes. Engine thread only. */
#ifndef OCTAVO_ENGINE_BLOCK_POOL_H
#define OCTAVO_ENGINE_BLOCK_POOL_H

#include "base/err.h"
#include "engine/block_hash.h"

#include <stdint.h>

struct kv_block {
    int32_t ref_cnt;
    int32_t prev, next; /* in the free queue, -1 at its ends */
    bool cached;        /* in the map, under block_hash: full, and its KV is written */
    struct block_hash block_hash;
};

#define BLOCK_POOL_EXTENT 16 /* blocks */

/* The free queue is the order of eviction. A cached block stays findable while it is free, until it is taken for
 * something else: those let go longest ago are taken first. Blocks without a key are loose: they have nothing to lose
 * and come before them.
 *
 * Attention reads a sequence faster when its blocks follow one another in memory, so that which of the loose blocks is
 * taken is a matter of place: where the sequence goes on, or else where there is most room to grow, in extents. */
struct block_pool {
    struct kv_block *blocks; /* (num_blocks) */
    uint8_t *num_loose;      /* of each extent */
    int64_t num_blocks, num_free;
    int32_t free_head, free_tail;
    int32_t *map;      /* (map_mask + 1) block_hash to block, linear probing, -1: empty; NULL: nothing is cached */
    uint64_t map_mask; /* at most half full */
};

void block_pool_init(struct block_pool *pool, int64_t num_blocks);
/* Makes room for the keys of all blocks, so that nothing allocates later. */
int block_pool_enable_caching(struct block_pool *pool, struct octavo_error *err);
void block_pool_release(struct block_pool *pool);
/* Takes a free block for a sequence whose last one is `last`, -1 for one that begins: a loose one, or the first of the
 * free queue, whose key it forgets. It has one reference; -1 when there is none. */
int32_t block_pool_take(struct block_pool *pool, int32_t last);
/* Drops one reference; the last one frees the block. */
void block_pool_put(struct block_pool *pool, int32_t block);
/* The block with that key, free or held, or -1. Takes no reference. */
int32_t block_pool_get_cached_block(const struct block_pool *pool, const struct block_hash *hash);
/* Adds a reference to a cached block; a free one leaves the free queue. */
void block_pool_touch(struct block_pool *pool, int32_t block);
/* Makes a held block findable, whose KV must be written. When another holder's block has that key already, this one
 * stays without: block tables are append-only, so duplicates are not merged. */
void block_pool_cache_full_block(struct block_pool *pool, int32_t block, const struct block_hash *hash);

#endif
