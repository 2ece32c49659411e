/* Keys of the prefix cache. A block's key is SHA-256 over its parent's key and its own tokens, so it names everything
 * from the first token on; two blocks with one key hold the same KV. Engine thread only. */
#ifndef OCTAVO_ENGINE_BLOCK_HASH_H
#define OCTAVO_ENGINE_BLOCK_HASH_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct block_hash {
    uint8_t bytes[32];
};

static inline bool block_hash_equal(const struct block_hash *a, const struct block_hash *b)
{
    return !memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

struct block_hasher;

/* cache_kind says what else decides the bytes of a block (the cache's number type): it goes into every chain. */
int block_hasher_new(const char *cache_kind, struct block_hasher **ret_hasher, struct octavo_error *err);
void block_hasher_free(struct block_hasher *h);
/* The parent of a first block; salt as in struct request. Neither function allocates. 0 or OCTAVO_EINTERNAL. */
int block_hasher_root(struct block_hasher *h, uint64_t salt, struct block_hash *ret_hash);
int block_hasher_block(struct block_hasher *h, const struct block_hash *parent, const int32_t *token_ids,
                       int num_tokens, struct block_hash *ret_hash);

#endif
