/* Keys of the prefix cache: see block_hash.h. EVP allocates at every start of a digest (OpenSSL 3.0), and a decode step
 * that fills a block must not: so this is libcrypto's own SHA-256 underneath, which is older and needs no context. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "engine/block_hash.h"

#include <openssl/sha.h>

static void sha256(const void *a, size_t a_len, const void *b, size_t b_len, struct block_hash *ret_hash)
{
    SHA256_CTX ctx;
    SHA256_Init(&ctx); /* these three cannot fail */
    SHA256_Update(&ctx, a, a_len);
    SHA256_Update(&ctx, b, b_len);
    SHA256_Final(ret_hash->bytes, &ctx);
}

void block_hash_root(const char *cache_kind, uint64_t salt, struct block_hash *ret_hash)
{
    sha256(cache_kind, strlen(cache_kind) + 1, &salt, sizeof(salt), ret_hash);
}

void block_hash_next(const struct block_hash *parent, const int32_t *token_ids, int num_tokens,
                     struct block_hash *ret_hash)
{
    sha256(parent->bytes, sizeof(parent->bytes), token_ids, (size_t)num_tokens * sizeof(*token_ids), ret_hash);
}
