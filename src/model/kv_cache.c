/* KV cache memory: see kv_cache.h. */
#include "model/kv_cache.h"

#include "base/mem.h"
#include "base/topology.h"

#include <stdlib.h>

static struct kv_layer layer_shape(enum dtype dtype, int num_kv_heads, int head_dim, int block_size)
{
    struct kv_layer l = {.dtype = dtype};
    size_t elem = (size_t)dtype_bits(dtype) / 8, tokens = (size_t)block_size;
    l.k_bytes = tokens * elem * (size_t)(dtype == DTYPE_I8 ? c8_padded_dim(head_dim) : head_dim);
    l.v_bytes = tokens * elem * (size_t)head_dim;
    l.block_bytes = l.k_bytes + l.v_bytes;
    l.run_bytes = l.block_bytes * (size_t)num_kv_heads * KV_RUN;
    return l;
}

size_t kv_cache_block_bytes(const enum dtype *dtypes, int num_layers, int num_kv_heads, int head_dim, int block_size)
{
    size_t bytes = 0;
    for (int i = 0; i < num_layers; i++)
        bytes += layer_shape(dtypes[i], num_kv_heads, head_dim, block_size).run_bytes / KV_RUN;
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
    size_t runs = ((size_t)num_blocks + KV_RUN - 1) / KV_RUN;
    if (!size_mul_ok(block_bytes * KV_RUN, runs, &kv->data_bytes) || !(kv->data = mem_map(kv->data_bytes)))
        return error_set(
            err, OCTAVO_ENOMEM,
            "cannot map %lld KV cache blocks of %zu bytes; lower --kv-cache-memory-bytes or --max-model-len",
            (long long)num_blocks, block_bytes);
    topology_place_spread(kv->data, kv->data_bytes); /* any worker may attend to any head */
    kv->layers = mem_calloc((size_t)num_layers, sizeof(*kv->layers));
    uint8_t *at = kv->data;
    for (int i = 0; i < num_layers; i++) {
        kv->layers[i] = layer_shape(dtypes[i], num_kv_heads, head_dim, block_size);
        kv->layers[i].data = at;
        at += kv->layers[i].run_bytes * runs;
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
