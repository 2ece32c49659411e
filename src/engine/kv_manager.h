/* Which request holds which KV blocks. Hides blocks from the scheduler: it asks for room for so many tokens and gets
 * it or not. Knows no bytes (model/kv_cache has them). Engine thread only. */
#ifndef OCTAVO_ENGINE_KV_MANAGER_H
#define OCTAVO_ENGINE_KV_MANAGER_H

#include "engine/block_pool.h"
#include "engine/request.h"

struct kv_manager {
    struct block_pool pool;
    int block_size; /* tokens */
};

void kv_manager_init(struct kv_manager *kv, int64_t num_blocks, int block_size);
void kv_manager_release(struct kv_manager *kv);
/* Grows r's block table to hold its first num_tokens tokens. All or nothing: false when too few blocks are free. */
bool kv_manager_allocate_slots(struct kv_manager *kv, struct request *r, int64_t num_tokens);
/* Gives back all of r's blocks. */
void kv_manager_free(struct kv_manager *kv, struct request *r);
double kv_manager_usage(const struct kv_manager *kv); /* 0..1 */

#endif
