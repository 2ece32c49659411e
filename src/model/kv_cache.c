/* KV cache memory: see kv_cache.h. */
#include "model/kv_cache.h"

#include "base/mem.h"
#include "base/topology.h"

#include <stdlib.h>

static struct kv_layer layer_shape(enum dtype dtype, int num_kv_heads, int head_dim, int block_size, int run_blocks)
{
    struct kv_layer l = {.dtype = dtype};
    size_t elem = (size_t)dtype_bits(dtype) / 8;
    l.half_bytes = ATTN_TILE * elem * (size_t)(dtype == DTYPE_I8 ? c8_padded_dim(head_dim) : head_dim);
    l.run_bytes = l.half_bytes * 2 * (size_t)num_kv_heads * (size_t)(block_size / ATTN_TILE) * (size_t)run_blocks;
    return l;
}

size_t kv_cache_block_bytes(const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim, int block_size)
{
    size_t bytes = 0;
    for (int i = 0; i < num_layers; i++)
        bytes += layer_shape(dtypes[i], num_kv_heads, head_dim, block_size, 1).run_bytes;
    return bytes;
}

int kv_cache_init(struct kv_cache *kv, const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim,
                  int block_size, int64_t num_blocks, struct octavo_error *err)
{
    size_t block_bytes = kv_cache_block_bytes(dtypes, num_layers, num_kv_heads, head_dim, block_size);
    *kv = (struct kv_cache){.num_layers = num_layers,
                            .num_kv_heads = num_kv_heads,
                            .head_dim = head_dim,
                            .block_size = block_size,
                            .num_blocks = num_blocks};
    int64_t most = MAX(KV_RUN_TOKENS / block_size, 1), runs = MAX((num_blocks + most - 1) / most, 1);
    kv->run_blocks = (int)MAX((num_blocks + runs - 1) / runs, 1);
    if (!size_mul_ok(block_bytes * (size_t)kv->run_blocks, (size_t)runs, &kv->data_bytes) ||
        !(kv->data = mem_map(kv->data_bytes)))
        return error_set(
            err, OCTAVO_ENOMEM,
            "cannot map %lld KV cache blocks of %zu bytes; lower --kv-cache-memory-bytes or --max-model-len",
            (long long)num_blocks, block_bytes);
    topology_place_spread(kv->data, kv->data_bytes); /* any worker may attend to any head */
    kv->layers = mem_calloc((size_t)num_layers, sizeof(*kv->layers));
    uint8_t *at = kv->data;
    for (int i = 0; i < num_layers; i++) {
        kv->layers[i] = layer_shape(dtypes[i], num_kv_heads, head_dim, block_size, kv->run_blocks);
        kv->layers[i].data = at;
        at += kv->layers[i].run_bytes * (size_t)runs;
    }
    return 0;
}

void kv_cache_release(struct kv_cache *kv)
{
    mem_unmap(kv->data, kv->data_bytes);
    free(kv->layers);
    kv->data = NULL;
    kv->layers = NULL;
}
