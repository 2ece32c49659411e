/* Block records: see block_pool.h. */
#include "engine/block_pool.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

static void push_free(struct block_pool *pool, int32_t b)
{
    pool->blocks[b].prev = pool->free_tail;
    pool->blocks[b].next = -1;
    if (pool->free_tail >= 0)
        pool->blocks[pool->free_tail].next = b;
    else
        pool->free_head = b;
    pool->free_tail = b;
    pool->num_free++;
}

void block_pool_init(struct block_pool *pool, int64_t num_blocks)
{
    *pool = (struct block_pool){.num_blocks = num_blocks, .free_head = -1, .free_tail = -1};
    pool->blocks = mem_calloc((size_t)num_blocks, sizeof(*pool->blocks));
    for (int64_t i = 0; i < num_blocks; i++)
        push_free(pool, (int32_t)i);
}

void block_pool_release(struct block_pool *pool)
{
    free(pool->blocks);
    pool->blocks = NULL;
}

int32_t block_pool_take(struct block_pool *pool)
{
    int32_t b = pool->free_head;
    if (b < 0)
        return -1;
    struct kv_block *block = &pool->blocks[b];
    assert(block->ref_cnt == 0);
    pool->free_head = block->next;
    if (block->next >= 0)
        pool->blocks[block->next].prev = -1;
    else
        pool->free_tail = -1;
    block->ref_cnt = 1;
    pool->num_free--;
    return b;
}

void block_pool_put(struct block_pool *pool, int32_t b)
{
    assert(b >= 0 && b < pool->num_blocks && pool->blocks[b].ref_cnt > 0);
    if (--pool->blocks[b].ref_cnt == 0)
        push_free(pool, b);
}
