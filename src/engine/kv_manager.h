/* Which request holds which KV blocks, and which blocks a new one can share. Hides blocks from the scheduler: it asks
 * for room for so many tokens and gets it or not. Knows no bytes (model/kv_cache has them). Engine thread only. */
#ifndef OCTAVO_ENGINE_KV_MANAGER_H
#define OCTAVO_ENGINE_KV_MANAGER_H

#include "engine/block_pool.h"
#include "engine/request.h"

struct kv_manager {
    struct block_pool pool;
    int block_size;   /* tokens */
    char *cache_kind; /* see block_hash_root; NULL: no prefix caching */
};

void kv_manager_init(struct kv_manager *kv, int64_t num_blocks, int block_size);
/* Turns prefix caching on; cache_kind as in block_hash_root, copied. Before the first request. */
int kv_manager_enable_caching(struct kv_manager *kv, const char *cache_kind, struct octavo_error *err);
void kv_manager_release(struct kv_manager *kv);
/* Finds the longest run of r's full blocks that are cached, and returns its length in blocks. The last token is never
 * among them: it must be computed, to have something to sample from. r holds no blocks yet; those found stand at the
 * start of its block table, without a reference, until kv_manager_allocate_slots takes them. */
int64_t kv_manager_get_computed_blocks(struct kv_manager *kv, struct request *r);
/* Grows r's block table to hold its first num_tokens tokens, with the num_new_computed_blocks found just before (0 for
 * a request that has blocks) as its beginning. All or nothing: false when too few blocks are free. */
bool kv_manager_allocate_slots(struct kv_manager *kv, struct request *r, int64_t num_new_computed_blocks,
                               int64_t num_tokens);
/* The KV of r's first num_computed_tokens tokens is written: makes the full blocks among them findable. */
void kv_manager_cache_blocks(struct kv_manager *kv, struct request *r, int64_t num_computed_tokens);
/* Gives back all of r's blocks. */
void kv_manager_free(struct kv_manager *kv, struct request *r);
double kv_manager_usage(const struct kv_manager *kv); /* 0..1 */

#endif
