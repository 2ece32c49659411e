/* KV ownership: see kv_manager.h. */
#include "engine/kv_manager.h"

#include <assert.h>

void kv_manager_init(struct kv_manager *kv, int64_t num_blocks, int block_size)
{
    *kv = (struct kv_manager){.block_size = block_size};
    block_pool_init(&kv->pool, num_blocks);
}

int kv_manager_enable_caching(struct kv_manager *kv, const char *cache_kind, struct octavo_error *err)
{
    int r = block_pool_enable_caching(&kv->pool, err);
    return r < 0 ? r : block_hasher_new(cache_kind, &kv->hasher, err);
}

void kv_manager_release(struct kv_manager *kv)
{
    block_pool_release(&kv->pool);
    block_hasher_free(kv->hasher);
    kv->hasher = NULL;
}

/* Whether the key of r's i-th block is known; computes the next one when that is it. A key is computed once, when it is
 * first wanted: a long prompt pays for it step by step. */
static bool ensure_block_hash(struct kv_manager *kv, struct request *r, int64_t i)
{
    if (i < r->num_block_hashes)
        return true;
    assert(i == r->num_block_hashes && (i + 1) * kv->block_size <= r->num_tokens);
    struct block_hash root;
    if (i == 0 && block_hasher_root(kv->hasher, r->kv_salt, &root) < 0)
        return false;
    if (block_hasher_block(kv->hasher, i ? &r->block_hashes[i - 1] : &root, r->token_ids + i * kv->block_size,
                           kv->block_size, &r->block_hashes[i]) < 0)
        return false;
    r->num_block_hashes++;
    return true;
}

int64_t kv_manager_get_computed_blocks(struct kv_manager *kv, struct request *r)
{
    assert(r->num_blocks == 0);
    if (!request_reads_prefix_cache(r) || !kv->hasher)
        return 0;
    int64_t most = (r->num_tokens - 1) / kv->block_size, n = 0;
    while (n < most && ensure_block_hash(kv, r, n)) {
        int32_t b = block_pool_get_cached_block(&kv->pool, &r->block_hashes[n]);
        if (b < 0)
            break;
        r->block_table[n++] = b;
    }
    return n;
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
    while (r->num_blocks < need)
        r->block_table[r->num_blocks++] = block_pool_take(&kv->pool);
    return true;
}

void kv_manager_cache_blocks(struct kv_manager *kv, struct request *r, int64_t num_computed_tokens)
{
    int64_t num_full = num_computed_tokens / kv->block_size;
    assert(num_full <= r->num_blocks);
    if (!kv->hasher)
        return;
    for (; r->num_cached_blocks < num_full && ensure_block_hash(kv, r, r->num_cached_blocks); r->num_cached_blocks++)
        block_pool_cache_full_block(&kv->pool, r->block_table[r->num_cached_blocks],
                                    &r->block_hashes[r->num_cached_blocks]);
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
