/* The forward pass. All workers run forward_worker side by side with barriers between the phases of a layer; within a
 * phase each worker owns some rows or some output columns, and no output is ever summed across workers, so the number
 * of workers cannot show in a result. Called by engine/model_runner on the engine thread. */
#include "model/model.h"

#include "base/mem.h"
#include "kernel/ref/convert.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct workspace {
    int max_tokens;
    size_t map_bytes;
    float *map;
    float *x;                                             /* (tokens, hidden) residual stream */
    float *h;                                             /* (tokens, hidden) normed input, then output of o and down */
    float *qkv;                                           /* (tokens, (heads + 2 kv_heads) * head_dim) */
    float *attn;                                          /* (tokens, heads * head_dim) */
    float *gate_up;                                       /* (tokens, 2 * intermediate) */
    float *cos[LAYER_TYPE_COUNT], *sin[LAYER_TYPE_COUNT]; /* (tokens, head_dim / 2) */
    _Atomic int *next;                                    /* (layers) attention tasks handed out */
};

struct pass {
    const struct model *m;
    struct workspace *ws;
    const struct kv_cache *kv;
    const struct batch *batch;
    float *hidden;
};

struct workspace *workspace_new(const struct model *m, int max_tokens)
{
    const struct model_config *c = &m->config;
    size_t t = (size_t)max_tokens, hidden = (size_t)c->hidden_size, half = (size_t)c->head_dim / 2;
    size_t q = (size_t)c->num_attention_heads * (size_t)c->head_dim, inter = 2 * (size_t)c->intermediate_size;
    size_t per_token = 2 * hidden + (size_t)m->layers[0].qkv.n + q + inter + 2 * LAYER_TYPE_COUNT * half;
    size_t bytes;
    if (!size_mul_ok(per_token * sizeof(float), t, &bytes))
        return NULL;
    float *map = mem_map(bytes);
    if (!map)
        return NULL;
    struct workspace *ws = mem_calloc(1, sizeof(*ws));
    ws->max_tokens = max_tokens;
    ws->map = map;
    ws->map_bytes = bytes;
    ws->next = mem_calloc((size_t)c->num_hidden_layers, sizeof(*ws->next));
    float **const parts[] = {&ws->x, &ws->h, &ws->qkv, &ws->attn, &ws->gate_up};
    const size_t sizes[] = {hidden, hidden, (size_t)m->layers[0].qkv.n, q, inter};
    for (size_t i = 0; i < ARRAY_LEN(parts); map += t * sizes[i], i++)
        *parts[i] = map;
    for (int i = 0; i < LAYER_TYPE_COUNT; i++, map += 2 * t * half) {
        ws->cos[i] = map;
        ws->sin[i] = map + t * half;
    }
    return ws;
}

void workspace_free(struct workspace *ws)
{
    if (!ws)
        return;
    mem_unmap(ws->map, ws->map_bytes);
    free(ws->next);
    free(ws);
}

/* ---- phases ---- */

/* y (rows, ldy) from x (rows, ldx): this worker's panels of the output columns. */
static void linear_forward(const struct kernel_ops *ops, const struct linear *l, float *y, size_t ldy, const float *x,
                           size_t ldx, int rows, int worker, int num_workers)
{
    int panels = (l->n + GEMM_NR - 1) / GEMM_NR, begin, end;
    pool_slice(panels, 1, worker, num_workers, &begin, &end);
    (l->dtype == DTYPE_BF16  ? ops->gemm_bf16
     : l->dtype == DTYPE_F16 ? ops->gemm_f16
                             : ops->gemm_f32)(y, ldy, x, ldx, rows, l->weight, l->k, l->n, begin, end, l->bias);
}

static void embed_row(const struct model *m, int32_t token, float *x)
{
    size_t n = (size_t)m->config.hidden_size;
    const uint8_t *row = m->embed_data + (size_t)token * n * (size_t)(dtype_bits(m->embed->dtype) / 8);
    if (m->embed->dtype == DTYPE_F32) {
        memcpy(x, row, n * 4);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, row + i * 2, 2);
        x[i] = m->embed->dtype == DTYPE_BF16 ? f32_from_bf16(h) : f32_from_f16(h);
    }
}

/* Norms and rotates the heads of q and k of token t, and writes k and v to the cache. */
static void qk_finish(const struct pass *p, const struct model_layer *layer, int layer_idx, int t)
{
    const struct model_config *c = &p->m->config;
    const struct kernel_ops *ops = p->m->ops;
    int d = c->head_dim, heads = c->num_attention_heads, kv_heads = c->num_key_value_heads;
    const float *cos = p->ws->cos[layer->type] + (size_t)t * (size_t)d / 2;
    const float *sin = p->ws->sin[layer->type] + (size_t)t * (size_t)d / 2;
    float *q = p->ws->qkv + (size_t)t * (size_t)layer->qkv.n;
    float *k = q + (size_t)heads * (size_t)d, *v = k + (size_t)kv_heads * (size_t)d;
    for (int h = 0; h < heads + kv_heads; h++) {
        float *x = q + (size_t)h * (size_t)d;
        const float *norm = h < heads ? layer->q_norm : layer->k_norm;
        if (norm)
            ops->rmsnorm(x, x, norm, d, c->rms_norm_eps);
        ops->rope(x, cos, sin, d);
    }
    int64_t slot = p->batch->slot_mapping[t], block = slot / p->kv->block_size;
    int offset = (int)(slot % p->kv->block_size);
    for (int h = 0; h < kv_heads; h++)
        (p->kv->dtype == DTYPE_BF16  ? ops->kv_write_bf16
         : p->kv->dtype == DTYPE_F16 ? ops->kv_write_f16
                                     : ops->kv_write_f32)(kv_cache_k(p->kv, layer_idx, block, h),
                                                          kv_cache_v(p->kv, layer_idx, block, h), offset,
                                                          k + (size_t)h * (size_t)d, v + (size_t)h * (size_t)d, d);
}

/* Attention of token t for one KV head and the query heads that share it. */
static void attend(const struct pass *p, const struct model_layer *layer, int layer_idx, int t, int kv_head)
{
    const struct model_config *c = &p->m->config;
    const struct kernel_ops *ops = p->m->ops;
    int64_t position = p->batch->positions[t], window = c->sliding_window;
    int group = c->num_attention_heads / c->num_key_value_heads, first = kv_head * group;
    struct attn_args a = {
        .d = c->head_dim,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .begin = layer->type == LAYER_SLIDING_ATTENTION && position >= window ? position - window + 1 : 0,
        .end = position + 1,
        .block_table = p->batch->block_table[t],
        .block_size = p->kv->block_size,
        .k = kv_cache_k(p->kv, layer_idx, 0, kv_head),
        .v = kv_cache_v(p->kv, layer_idx, 0, kv_head),
        .block_stride = p->kv->block_bytes,
    };
    for (int g = 0; g < group; g += ATTN_MAX_GROUP) {
        size_t at = (size_t)(first + g) * (size_t)a.d;
        a.group = MIN(group - g, ATTN_MAX_GROUP);
        a.q = p->ws->qkv + (size_t)t * (size_t)layer->qkv.n + at;
        a.out = p->ws->attn + (size_t)t * (size_t)layer->o.k + at;
        (p->kv->dtype == DTYPE_BF16 ? ops->attn_bf16 : p->kv->dtype == DTYPE_F16 ? ops->attn_f16 : ops->attn_f32)(&a);
    }
}

static void layer_forward(const struct pass *p, int layer_idx, int worker, int num_workers)
{
    const struct model *m = p->m;
    const struct model_config *c = &m->config;
    const struct model_layer *layer = &m->layers[layer_idx];
    const struct kernel_ops *ops = m->ops;
    struct workspace *ws = p->ws;
    int tokens = p->batch->num_tokens, hidden = c->hidden_size, inter = c->intermediate_size, begin, end;
    pool_slice(tokens, 1, worker, num_workers, &begin, &end); /* this worker's rows, in every row phase */

    for (int t = begin; t < end; t++)
        ops->rmsnorm(ws->h + (size_t)t * (size_t)hidden, ws->x + (size_t)t * (size_t)hidden, layer->input_norm, hidden,
                     c->rms_norm_eps);
    pool_barrier(m->pool);
    linear_forward(ops, &layer->qkv, ws->qkv, (size_t)layer->qkv.n, ws->h, (size_t)hidden, tokens, worker, num_workers);
    pool_barrier(m->pool);
    for (int t = begin; t < end; t++)
        qk_finish(p, layer, layer_idx, t);
    pool_barrier(m->pool);
    /* Tasks differ in length, so they are handed out one by one, the late (long) positions first. */
    int kv_heads = c->num_key_value_heads, tasks = tokens * kv_heads, task;
    while ((task = atomic_fetch_add_explicit(&ws->next[layer_idx], 1, memory_order_relaxed)) < tasks)
        attend(p, layer, layer_idx, tokens - 1 - task / kv_heads, task % kv_heads);
    pool_barrier(m->pool);
    linear_forward(ops, &layer->o, ws->h, (size_t)hidden, ws->attn, (size_t)layer->o.k, tokens, worker, num_workers);
    pool_barrier(m->pool);
    for (int t = begin; t < end; t++) {
        float *x = ws->x + (size_t)t * (size_t)hidden, *h = ws->h + (size_t)t * (size_t)hidden;
        ops->add(x, h, hidden);
        ops->rmsnorm(h, x, layer->post_attention_norm, hidden, c->rms_norm_eps);
    }
    pool_barrier(m->pool);
    linear_forward(ops, &layer->gate_up, ws->gate_up, 2 * (size_t)inter, ws->h, (size_t)hidden, tokens, worker,
                   num_workers);
    pool_barrier(m->pool);
    int col, col_end;
    pool_slice(inter, 64, worker, num_workers, &col, &col_end);
    for (int t = 0; t < tokens; t++) {
        float *gate = ws->gate_up + (size_t)t * 2 * (size_t)inter + (size_t)col;
        ops->silu_mul(gate, gate, gate + inter, col_end - col);
    }
    pool_barrier(m->pool);
    linear_forward(ops, &layer->down, ws->h, (size_t)hidden, ws->gate_up, 2 * (size_t)inter, tokens, worker,
                   num_workers);
    pool_barrier(m->pool);
    for (int t = begin; t < end; t++)
        ops->add(ws->x + (size_t)t * (size_t)hidden, ws->h + (size_t)t * (size_t)hidden, hidden);
}

static void forward_worker(void *arg, int worker, int num_workers)
{
    const struct pass *p = arg;
    const struct model *m = p->m;
    size_t hidden = (size_t)m->config.hidden_size, half = (size_t)m->config.head_dim / 2;
    int begin, end;
    pool_slice(p->batch->num_tokens, 1, worker, num_workers, &begin, &end);
    for (int t = begin; t < end; t++) {
        embed_row(m, p->batch->token_ids[t], p->ws->x + (size_t)t * hidden);
        for (int i = 0; i < (m->config.sliding_window ? LAYER_TYPE_COUNT : 1); i++)
            rope_angles(&m->rope[i], p->batch->positions[t], p->batch->rope_lens[t], p->ws->cos[i] + (size_t)t * half,
                        p->ws->sin[i] + (size_t)t * half);
    }
    for (int i = 0; i < m->config.num_hidden_layers; i++)
        layer_forward(p, i, worker, num_workers);
    pool_barrier(m->pool);
    pool_slice(p->batch->num_logits, 1, worker, num_workers, &begin, &end);
    for (int i = begin; i < end; i++)
        m->ops->rmsnorm(p->hidden + (size_t)i * hidden, p->ws->x + (size_t)p->batch->logits_rows[i] * hidden, m->norm,
                        (int)hidden, m->config.rms_norm_eps);
}

void model_forward(const struct model *m, struct workspace *ws, const struct kv_cache *kv, const struct batch *batch,
                   float *hidden)
{
    for (int i = 0; i < m->config.num_hidden_layers; i++)
        atomic_store_explicit(&ws->next[i], 0, memory_order_relaxed);
    struct pass p = {m, ws, kv, batch, hidden};
    pool_run(m->pool, forward_worker, &p);
}

struct logits_job {
    const struct model *m;
    const float *hidden;
    int rows;
    float *logits;
    size_t ld;
};

static void logits_worker(void *arg, int worker, int num_workers)
{
    const struct logits_job *j = arg;
    linear_forward(j->m->ops, &j->m->lm_head, j->logits, j->ld, j->hidden, (size_t)j->m->lm_head.k, j->rows, worker,
                   num_workers);
}

void model_logits(const struct model *m, const float *hidden, int rows, float *logits, size_t ld)
{
    struct logits_job job = {m, hidden, rows, logits, ld};
    pool_run(m->pool, logits_worker, &job);
}
