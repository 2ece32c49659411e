/* Block records: see block_pool.h. */
#include "engine/block_pool.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

/* ---- free queue ---- */

static void push_free_tail(struct block_pool *pool, int32_t b)
{
    pool->blocks[b].prev = pool->free_tail;
    pool->blocks[b].next = -1;
    *(pool->free_tail >= 0 ? &pool->blocks[pool->free_tail].next : &pool->free_head) = b;
    pool->free_tail = b;
    pool->num_free++;
}

/* Of a loose block. */
static void push_free_head(struct block_pool *pool, int32_t b)
{
    pool->num_loose[b / BLOCK_POOL_EXTENT]++;
    pool->blocks[b].prev = -1;
    pool->blocks[b].next = pool->free_head;
    *(pool->free_head >= 0 ? &pool->blocks[pool->free_head].prev : &pool->free_tail) = b;
    pool->free_head = b;
    pool->num_free++;
}

static void remove_free(struct block_pool *pool, int32_t b)
{
    const struct kv_block *block = &pool->blocks[b];
    *(block->prev >= 0 ? &pool->blocks[block->prev].next : &pool->free_head) = block->next;
    *(block->next >= 0 ? &pool->blocks[block->next].prev : &pool->free_tail) = block->prev;
    pool->num_free--;
}

/* ---- map ---- */

/* A key's first choice of slot; SHA-256 needs no further mixing. */
static uint64_t map_home(const struct block_pool *pool, const struct block_hash *hash)
{
    uint64_t h;
    memcpy(&h, hash->bytes, sizeof(h));
    return h & pool->map_mask;
}

/* The slot that holds the key, or the empty one where it would go. */
static uint64_t map_find(const struct block_pool *pool, const struct block_hash *hash)
{
    uint64_t i = map_home(pool, hash);
    while (pool->map[i] >= 0 && !block_hash_equal(&pool->blocks[pool->map[i]].block_hash, hash))
        i = (i + 1) & pool->map_mask;
    return i;
}

/* Forgets a block's key. Those behind it in its run move up, so that the map never fills with tombstones. */
static void evict_cached_block(struct block_pool *pool, struct kv_block *block)
{
    uint64_t hole = map_find(pool, &block->block_hash), mask = pool->map_mask;
    assert(block->cached && pool->map[hole] == block - pool->blocks);
    for (uint64_t i = (hole + 1) & mask; pool->map[i] >= 0; i = (i + 1) & mask) {
        uint64_t home = map_home(pool, &pool->blocks[pool->map[i]].block_hash);
        if (((i - home) & mask) >= ((i - hole) & mask)) { /* its home is not behind the hole */
            pool->map[hole] = pool->map[i];
            hole = i;
        }
    }
    pool->map[hole] = -1;
    block->cached = false;
}

/* ---- place ---- */

static bool is_loose(const struct block_pool *pool, int64_t b)
{
    return b < pool->num_blocks && pool->blocks[b].ref_cnt == 0 && !pool->blocks[b].cached;
}

/* The beginning of the longest run of loose blocks in the first of the extents that have most of them; -1 if none. */
static int32_t find_room(const struct block_pool *pool)
{
    int64_t num_extents = (pool->num_blocks + BLOCK_POOL_EXTENT - 1) / BLOCK_POOL_EXTENT;
    uint8_t most = 0;
    for (int64_t i = 0; i < num_extents; i++)
        most = pool->num_loose[i] > most ? pool->num_loose[i] : most;
    if (most == 0)
        return -1;
    int64_t extent = (const uint8_t *)memchr(pool->num_loose, most, (size_t)num_extents) - pool->num_loose;
    int64_t longest = 0, room = -1, run = 0;
    for (int64_t b = extent * BLOCK_POOL_EXTENT; b < (extent + 1) * BLOCK_POOL_EXTENT; b++) {
        run = is_loose(pool, b) ? run + 1 : 0;
        if (run > longest) {
            longest = run;
            room = b + 1 - run;
        }
    }
    return (int32_t)room;
}

/* ---- pool ---- */

void block_pool_init(struct block_pool *pool, int64_t num_blocks)
{
    *pool = (struct block_pool){.num_blocks = num_blocks, .free_head = -1, .free_tail = -1};
    pool->blocks = mem_calloc((size_t)num_blocks, sizeof(*pool->blocks));
    pool->num_loose = mem_calloc((size_t)(num_blocks + BLOCK_POOL_EXTENT - 1) / BLOCK_POOL_EXTENT, 1);
    for (int64_t i = num_blocks - 1; i >= 0; i--)
        push_free_head(pool, (int32_t)i);
}

int block_pool_enable_caching(struct block_pool *pool, struct octavo_error *err)
{
    uint64_t slots = 2;
    while (slots < 2 * (uint64_t)pool->num_blocks)
        slots *= 2;
    pool->map = mem_try_array(slots, sizeof(*pool->map));
    if (!pool->map)
        return error_set(err, OCTAVO_ENOMEM, "no memory for the prefix cache's index of %lld blocks",
                         (long long)pool->num_blocks);
    pool->map_mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++)
        pool->map[i] = -1;
    return 0;
}

void block_pool_release(struct block_pool *pool)
{
    free(pool->blocks);
    free(pool->num_loose);
    free(pool->map);
    pool->blocks = NULL;
    pool->num_loose = NULL;
    pool->map = NULL;
}

int32_t block_pool_take(struct block_pool *pool, int32_t last)
{
    int32_t b = last >= 0 && is_loose(pool, last + 1) ? last + 1 : find_room(pool);
    if (b < 0)
        b = pool->free_head;
    if (b < 0)
        return -1;
    struct kv_block *block = &pool->blocks[b];
    assert(block->ref_cnt == 0);
    remove_free(pool, b);
    if (block->cached)
        evict_cached_block(pool, block);
    else
        pool->num_loose[b / BLOCK_POOL_EXTENT]--;
    block->ref_cnt = 1;
    return b;
}

void block_pool_put(struct block_pool *pool, int32_t b)
{
    assert(b >= 0 && b < pool->num_blocks && pool->blocks[b].ref_cnt > 0);
    if (--pool->blocks[b].ref_cnt > 0)
        return;
    if (pool->blocks[b].cached)
        push_free_tail(pool, b);
    else
        push_free_head(pool, b);
}

int32_t block_pool_get_cached_block(const struct block_pool *pool, const struct block_hash *hash)
{
    return pool->map ? pool->map[map_find(pool, hash)] : -1;
}

void block_pool_touch(struct block_pool *pool, int32_t b)
{
    assert(pool->blocks[b].cached);
    if (pool->blocks[b].ref_cnt++ == 0)
        remove_free(pool, b);
}

void block_pool_cache_full_block(struct block_pool *pool, int32_t b, const struct block_hash *hash)
{
    struct kv_block *block = &pool->blocks[b];
    assert(block->ref_cnt > 0 && !block->cached);
    int32_t other = block_pool_get_cached_block(pool, hash);
    if (other >= 0 && pool->blocks[other].ref_cnt > 0)
        return;
    if (other >= 0) { /* nobody holds it, and b is the younger: let the key live as long as it can */
        evict_cached_block(pool, &pool->blocks[other]);
        remove_free(pool, other);
        push_free_head(pool, other);
    }
    block->block_hash = *hash;
    block->cached = true;
    pool->map[map_find(pool, hash)] = b;
}
