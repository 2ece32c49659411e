/* Keys of the prefix cache. A block's key is SHA-256 over its parent's key and its own tokens, so it names everything
 * from the first token on; two blocks with one key hold the same KV. Any thread; no
 * allocation. */
#ifndef OCTAVO_ENGINE_BLOCK_HASH_H
#define OCTAVO_ENGINE_BLOCK_HASH_H

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

/* The parent of a first block. cache_kind says what else decides the bytes of every block (the cache's number type);
 * salt as in struct request. */
void block_hash_root(const char *cache_kind, uint64_t salt, struct block_hash *ret_hash);
void block_hash_next(const struct block_hash *parent, const int32_t *token_ids, int num_tokens,
                     struct block_hash *ret_hash);

#endif
