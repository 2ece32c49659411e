/* KV cache memory: see kv_cache.h. */
#include "model/kv_cache.h"

#include "base/mem.h"

size_t kv_cache_block_bytes(enum dtype dtype, int num_layers, int num_kv_heads, int head_dim, int block_size)
{
    return (size_t)num_layers * 2 * (size_t)num_kv_heads * (size_t)block_size * (size_t)head_dim *
           (size_t)(dtype_bits(dtype) / 8);
}

int kv_cache_init(struct kv_cache *kv, enum dtype dtype, int num_layers, int num_kv_heads, int head_dim, int block_size,
                  int64_t num_blocks, struct octavo_error *err)
{
    *kv = (struct kv_cache){.dtype = dtype,
                            .num_layers = num_layers,
                            .num_kv_heads = num_kv_heads,
                            .head_dim = head_dim,
                            .block_size = block_size,
                            .num_blocks = num_blocks};
    kv->head_bytes = (size_t)block_size * (size_t)head_dim * (size_t)(dtype_bits(dtype) / 8);
    kv->block_bytes = kv->head_bytes * 2 * (size_t)num_kv_heads;
    if (!size_mul_ok(kv->block_bytes * (size_t)num_layers, (size_t)num_blocks, &kv->data_bytes) ||
        !(kv->data = mem_map(kv->data_bytes)))
        return error_set(
            err, OCTAVO_ENOMEM,
            "cannot map %lld KV cache blocks of %zu bytes; lower --kv-cache-memory-bytes or --max-model-len",
            (long long)num_blocks, kv->block_bytes * (size_t)num_layers);
    return 0;
}

void kv_cache_release(struct kv_cache *kv)
{
    mem_unmap(kv->data, kv->data_bytes);
    kv->data = NULL;
}
