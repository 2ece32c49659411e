/* KV ownership: see kv_manager.h. */
#include "engine/kv_manager.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

void kv_manager_init(struct kv_manager *kv, int64_t num_blocks, int block_size)
{
    *kv = (struct kv_manager){.block_size = block_size};
    block_pool_init(&kv->pool, num_blocks);
}

int kv_manager_enable_caching(struct kv_manager *kv, const char *cache_kind, struct octavo_error *err)
{
    int r = block_pool_enable_caching(&kv->pool, err);
    if (r == 0)
        kv->cache_kind = mem_strdup(cache_kind);
    return r;
}

void kv_manager_release(struct kv_manager *kv)
{
    block_pool_release(&kv->pool);
    free(kv->cache_kind);
    kv->cache_kind = NULL;
}

/* The key of r's i-th block, a full one. Computed once, in order, when it is first wanted: a long prompt pays for it
 * step by step. */
static const struct block_hash *get_block_hash(const struct kv_manager *kv, struct request *r, int64_t i)
{
    if (i == r->num_block_hashes) {
        assert((i + 1) * kv->block_size <= r->num_tokens);
        struct block_hash root;
        if (i == 0)
            block_hash_root(kv->cache_kind, r->kv_salt, &root);
        block_hash_next(i ? &r->block_hashes[i - 1] : &root, r->token_ids + i * kv->block_size, kv->block_size,
                        &r->block_hashes[i]);
        r->num_block_hashes++;
    }
    assert(i < r->num_block_hashes);
    return &r->block_hashes[i];
}

int64_t kv_manager_get_computed_blocks(struct kv_manager *kv, struct request *r)
{
    assert(r->num_blocks == 0);
    if (!request_reads_prefix_cache(r) || !kv->cache_kind)
        return 0;
    int64_t most = (r->num_tokens - 1) / kv->block_size, n = 0;
    while (n < most) {
        int32_t b = block_pool_get_cached_block(&kv->pool, get_block_hash(kv, r, n));
        if (b < 0)
            break;
        r->block_table[n++] = b;
    }
    return n;
}

static int compare_blocks(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

bool kv_manager_allocate_slots(struct kv_manager *kv, struct request *r, int64_t num_new_computed_blocks,
                               int64_t num_tokens)
{
    assert(num_new_computed_blocks == 0 || r->num_blocks == 0);
    int64_t need = (num_tokens + kv->block_size - 1) / kv->block_size;
    int64_t num_free = kv->pool.num_free;
    for (int64_t i = 0; i < num_new_computed_blocks; i++) /* a free one is about to leave the free queue */
        num_free -= kv->pool.blocks[r->block_table[i]].ref_cnt == 0;
    if (need - r->num_blocks - num_new_computed_blocks > num_free)
        return false;
    for (int64_t i = 0; i < num_new_computed_blocks; i++)
        block_pool_touch(&kv->pool, r->block_table[r->num_blocks++]);
    if (num_new_computed_blocks)
        r->num_cached_blocks = num_new_computed_blocks;
    int32_t *table = r->block_table, last = r->num_blocks ? table[r->num_blocks - 1] : -1;
    int64_t i = r->num_blocks;
    while (r->num_blocks < need)
        table[r->num_blocks++] = last = block_pool_take(&kv->pool, last);
    /* In the order of memory, for attention to read along it: a cached sequence was freed from its end on. What goes on
     * from the last block stays there. */
    while (i > 0 && i < need && table[i] == table[i - 1] + 1)
        i++;
    if (need - i > 1)
        qsort(table + i, (size_t)(need - i), sizeof(*table), compare_blocks);
    return true;
}

void kv_manager_cache_blocks(struct kv_manager *kv, struct request *r, int64_t num_computed_tokens)
{
    int64_t num_full = num_computed_tokens / kv->block_size;
    assert(num_full <= r->num_blocks);
    if (!kv->cache_kind)
        return;
    for (int64_t i = r->num_cached_blocks; i < num_full; i++)
        block_pool_cache_full_block(&kv->pool, r->block_table[i], get_block_hash(kv, r, i));
    r->num_cached_blocks = num_full;
}

void kv_manager_free(struct kv_manager *kv, struct request *r)
{
    while (r->num_blocks > 0) /* from the end, so that the tail of a sequence is evicted before its beginning */
        block_pool_put(&kv->pool, r->block_table[--r->num_blocks]);
    r->num_cached_blocks = 0;
}

double kv_manager_usage(const struct kv_manager *kv)
{
    return 1.0 - (double)kv->pool.num_free / (double)kv->pool.num_blocks;
}
