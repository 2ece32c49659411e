/* KV ownership: see kv_manager.h. */
#include "engine/kv_manager.h"

void kv_manager_init(struct kv_manager *kv, int64_t num_blocks, int block_size)
{
    block_pool_init(&kv->pool, num_blocks);
    kv->block_size = block_size;
}

void kv_manager_release(struct kv_manager *kv)
{
    block_pool_release(&kv->pool);
}

bool kv_manager_allocate_slots(struct kv_manager *kv, struct request *r, int64_t num_tokens)
{
    int64_t need = (num_tokens + kv->block_size - 1) / kv->block_size;
    if (need - r->num_blocks > kv->pool.num_free)
        return false;
    while (r->num_blocks < need)
        r->block_table[r->num_blocks++] = block_pool_take(&kv->pool);
    return true;
}

void kv_manager_free(struct kv_manager *kv, struct request *r)
{
    while (r->num_blocks > 0) /* from the end, so that the tail of a sequence is reused before its beginning */
        block_pool_put(&kv->pool, r->block_table[--r->num_blocks]);
}

double kv_manager_usage(const struct kv_manager *kv)
{
    return 1.0 - (double)kv->pool.num_free / (double)kv->pool.num_blocks;
}
