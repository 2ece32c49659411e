/* Keys of the prefix cache: see block_hash.h. */
#include "engine/block_hash.h"

#include "base/mem.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct block_hasher {
    EVP_MD *sha256;
    EVP_MD_CTX *ctx;
    char *cache_kind;
};

int block_hasher_new(const char *cache_kind, struct block_hasher **ret_hasher, struct octavo_error *err)
{
    struct block_hasher *h = mem_calloc(1, sizeof(*h));
    struct block_hash probe;
    h->sha256 =
        EVP_MD_fetch(NULL, "SHA256", NULL); /* once: finding it anew for each block would cost more than hashing */
    h->ctx = EVP_MD_CTX_new();
    h->cache_kind = mem_strdup(cache_kind);
    if (!h->sha256 || !h->ctx || block_hasher_root(h, 0, &probe) < 0) {
        block_hasher_free(h);
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "enable-prefix-caching",
                               "prefix caching needs SHA-256, which libcrypto does not provide here; check OpenSSL's "
                               "configuration or use --no-enable-prefix-caching");
    }
    *ret_hasher = h;
    return 0;
}

void block_hasher_free(struct block_hasher *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->ctx);
    EVP_MD_free(h->sha256);
    free(h->cache_kind);
    free(h);
}

static int sha256(struct block_hasher *h, const void *a, size_t a_len, const void *b, size_t b_len,
                  struct block_hash *ret_hash)
{
    bool ok = EVP_DigestInit_ex2(h->ctx, h->sha256, NULL) && EVP_DigestUpdate(h->ctx, a, a_len) &&
              EVP_DigestUpdate(h->ctx, b, b_len) && EVP_DigestFinal_ex(h->ctx, ret_hash->bytes, NULL);
    return ok ? 0 : OCTAVO_EINTERNAL;
}

int block_hasher_root(struct block_hasher *h, uint64_t salt, struct block_hash *ret_hash)
{
    return sha256(h, h->cache_kind, strlen(h->cache_kind) + 1, &salt, sizeof(salt), ret_hash);
}

int block_hasher_block(struct block_hasher *h, const struct block_hash *parent, const int32_t *token_ids,
                       int num_tokens, struct block_hash *ret_hash)
{
    return sha256(h, parent->bytes, sizeof(parent->bytes), token_ids, (size_t)num_tokens * sizeof(*token_ids),
                  ret_hash);
}
