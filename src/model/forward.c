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
    uint8_t *map;
    float *x;                                             /* (tokens, hidden) residual stream */
    float *h;                                             /* (tokens, hidden) normed input, then output of o and down */
    float *qkv;                                           /* (tokens, (heads + 2 kv_heads) * head_dim) */
    float *attn;                                          /* (tokens, heads * head_dim) */
    float *gate_up;                                       /* (tokens, 2 * intermediate) */
    float *cos[LAYER_TYPE_COUNT], *sin[LAYER_TYPE_COUNT]; /* (tokens, head_dim / 2) */
    struct linear_input in;                               /* quantised rows of whatever linears run now */
    _Atomic int *next;                                    /* (layers) attention tasks handed out */
};

struct pass {
    const struct model *m;
    struct workspace *ws;
    const struct kv_cache *kv;
    const struct batch *batch;
    float *hidden;
};

static size_t qkv_width(const struct model_config *c)
{
    return (size_t)(c->num_attention_heads + 2 * c->num_key_value_heads) * (size_t)c->head_dim;
}

/* Lays the parts out from base on, or measures them when base is NULL. Returns bytes. */
static size_t workspace_lay_out(struct workspace *ws, const struct model_config *c, uint8_t *base)
{
    size_t t = (size_t)ws->max_tokens, hidden = (size_t)c->hidden_size, half = (size_t)c->head_dim / 2, at = 0;
    size_t q = (size_t)c->num_attention_heads * (size_t)c->head_dim, inter = (size_t)c->intermediate_size;
    size_t k = MAX(MAX(hidden, q), inter);
    ws->in.ldxq = (k + 63) / 64 * 64;
    const struct {
        void **to;
        size_t bytes; /* of a token */
    } parts[] = {
        {(void **)&ws->x, hidden * sizeof(float)},          {(void **)&ws->h, hidden * sizeof(float)},
        {(void **)&ws->qkv, qkv_width(c) * sizeof(float)},  {(void **)&ws->attn, q * sizeof(float)},
        {(void **)&ws->gate_up, 2 * inter * sizeof(float)}, {(void **)&ws->cos[0], half * sizeof(float)},
        {(void **)&ws->sin[0], half * sizeof(float)},       {(void **)&ws->cos[1], half * sizeof(float)},
        {(void **)&ws->sin[1], half * sizeof(float)},
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        *parts[i].to = base ? base + at : NULL;
        at += (t * parts[i].bytes + 63) / 64 * 64;
    }
    for (int i = 0; i < LINEAR_MAX_SET; i++) {
        ws->in.xq[i] = base ? base + at : NULL;
        at += t * ws->in.ldxq;
        ws->in.row_scale[i] = base ? (float *)(base + at) : NULL;
        ws->in.row_zero[i] = base ? (int32_t *)(base + at) + t : NULL;
        ws->in.row_sum[i] = base ? (int32_t *)(base + at) + 2 * t : NULL;
        at += (3 * t * sizeof(float) + 63) / 64 * 64;
    }
    return at;
}

struct workspace *workspace_new(const struct model *m, int max_tokens)
{
    struct workspace *ws = mem_calloc(1, sizeof(*ws));
    ws->max_tokens = max_tokens;
    ws->map_bytes = workspace_lay_out(ws, &m->config, NULL);
    ws->map = mem_map(ws->map_bytes); /* config.c bounds each width, the engine max_tokens: no overflow */
    if (!ws->map) {
        free(ws);
        return NULL;
    }
    workspace_lay_out(ws, &m->config, ws->map);
    ws->next = mem_calloc((size_t)m->config.num_hidden_layers, sizeof(*ws->next));
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

static void norm_row(const struct model *m, const struct norm *norm, float *y, const float *x, int n)
{
    m->ops->rmsnorm(y, x, norm->weight, n, m->config.rms_norm_eps);
    if (norm->bias)
        m->ops->add(y, norm->bias, n);
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
    float *q = p->ws->qkv + (size_t)t * qkv_width(c);
    float *k = q + (size_t)heads * (size_t)d, *v = k + (size_t)kv_heads * (size_t)d;
    for (int h = 0; h < heads + kv_heads; h++) {
        float *x = q + (size_t)h * (size_t)d;
        const struct norm *norm = h < heads ? &layer->q_norm : &layer->k_norm;
        if (norm->weight)
            norm_row(p->m, norm, x, x, d);
        ops->rope(x, cos, sin, d);
    }
    int64_t slot = p->batch->slot_mapping[t], block = slot / p->kv->block_size;
    int offset = (int)(slot % p->kv->block_size);
    enum dtype dtype = p->kv->layers[layer_idx].dtype;
    for (int h = 0; h < kv_heads; h++, k += d, v += d) {
        uint8_t *k_to = kv_cache_k(p->kv, layer_idx, block, h), *v_to = kv_cache_v(p->kv, layer_idx, block, h);
        if (dtype == DTYPE_I8)
            ops->kv_write_c8(k_to, v_to, offset, k, v, d, &layer->c8[h]);
        else
            (dtype == DTYPE_BF16  ? ops->kv_write_bf16
             : dtype == DTYPE_F16 ? ops->kv_write_f16
                                  : ops->kv_write_f32)(k_to, v_to, offset, k, v, d);
    }
}

/* Attention of token t for one KV head and the query heads that share it. */
static void attend(const struct pass *p, const struct model_layer *layer, int layer_idx, int t, int kv_head)
{
    const struct model_config *c = &p->m->config;
    const struct kernel_ops *ops = p->m->ops;
    enum dtype dtype = p->kv->layers[layer_idx].dtype;
    int group = c->num_attention_heads / c->num_key_value_heads, first = kv_head * group;
    struct attn_args a = {
        .d = c->head_dim,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .tokens = 1,
        .position = p->batch->positions[t],
        .window = layer->type == LAYER_SLIDING_ATTENTION ? c->sliding_window : 0,
        .block_table = p->batch->block_table[t],
        .block_size = p->kv->block_size,
        .k = kv_cache_k(p->kv, layer_idx, 0, kv_head),
        .v = kv_cache_v(p->kv, layer_idx, 0, kv_head),
        .block_stride = p->kv->layers[layer_idx].block_bytes,
        .c8 = dtype == DTYPE_I8 ? &layer->c8[kv_head] : NULL,
    };
    for (int g = 0; g < group; g += ATTN_MAX_ROWS) {
        size_t at = (size_t)(first + g) * (size_t)a.d;
        a.group = MIN(group - g, ATTN_MAX_ROWS);
        a.q = p->ws->qkv + (size_t)t * qkv_width(c) + at;
        a.out = p->ws->attn + (size_t)t * (size_t)layer->o.k + at;
        (dtype == DTYPE_I8     ? ops->attn_c8
         : dtype == DTYPE_BF16 ? ops->attn_bf16
         : dtype == DTYPE_F16  ? ops->attn_f16
                               : ops->attn_f32)(&a);
    }
}

/* SiLU(gate) * up of all tokens, in place of gate. Quantised, down wants whole rows: then rows are shared out, else
 * columns, which keeps all workers busy for one token as well. */
static void activate(const struct pass *p, const struct model_layer *layer, int begin, int end, int worker,
                     int num_workers)
{
    size_t inter = (size_t)p->m->config.intermediate_size;
    bool quantised = linear_set_is_quantised(&layer->down, 1);
    int col = 0, col_end = (int)inter;
    if (!quantised) {
        begin = 0;
        end = p->batch->num_tokens;
        pool_slice((int)inter, 64, worker, num_workers, &col, &col_end);
    }
    for (int t = begin; t < end; t++) {
        float *gate = p->ws->gate_up + (size_t)t * 2 * inter + (size_t)col;
        p->m->ops->silu_mul(gate, gate, gate + inter, col_end - col);
        if (quantised)
            linear_quantize_row(p->m->ops, &layer->down, 1, gate, t, &p->ws->in);
    }
}

static void tap_rows(const struct pass *p, int layer_idx, enum tap_point point, const float *x, size_t ldx, int worker,
                     int num_workers)
{
    const struct tap *tap = p->batch->tap;
    if (tap)
        tap->see(tap->arg, layer_idx, point, x, ldx, p->batch->num_tokens, worker, num_workers);
}

static void layer_forward(const struct pass *p, int layer_idx, int worker, int num_workers)
{
    const struct model *m = p->m;
    const struct model_config *c = &m->config;
    const struct model_layer *layer = &m->layers[layer_idx];
    const struct kernel_ops *ops = m->ops;
    struct workspace *ws = p->ws;
    struct linear_input *in = &ws->in;
    size_t hidden = (size_t)c->hidden_size, q = (size_t)layer->o.k, inter = (size_t)c->intermediate_size;
    int tokens = p->batch->num_tokens, begin, end;
    pool_slice(tokens, 1, worker, num_workers, &begin, &end); /* this worker's rows, in every row phase */

    for (int t = begin; t < end; t++) {
        float *h = ws->h + (size_t)t * hidden;
        norm_row(m, &layer->input_norm, h, ws->x + (size_t)t * hidden, (int)hidden);
        linear_quantize_row(ops, layer->qkv, NUM_QKV, h, t, in);
    }
    pool_barrier(m->pool);
    tap_rows(p, layer_idx, TAP_QKV_INPUT, ws->h, hidden, worker, num_workers);
    linear_forward(ops, layer->qkv, NUM_QKV, ws->qkv, qkv_width(c), ws->h, hidden, in, tokens, worker, num_workers);
    pool_barrier(m->pool);
    for (int t = begin; t < end; t++)
        qk_finish(p, layer, layer_idx, t);
    pool_barrier(m->pool);
    tap_rows(p, layer_idx, TAP_QKV, ws->qkv, qkv_width(c), worker, num_workers);
    /* Tasks differ in length, so they are handed out one by one, the late (long) positions first. */
    int kv_heads = c->num_key_value_heads, tasks = tokens * kv_heads, task;
    while ((task = atomic_fetch_add_explicit(&ws->next[layer_idx], 1, memory_order_relaxed)) < tasks)
        attend(p, layer, layer_idx, tokens - 1 - task / kv_heads, task % kv_heads);
    pool_barrier(m->pool);
    if (linear_set_is_quantised(&layer->o, 1)) {
        for (int t = begin; t < end; t++)
            linear_quantize_row(ops, &layer->o, 1, ws->attn + (size_t)t * q, t, in);
        pool_barrier(m->pool);
    }
    tap_rows(p, layer_idx, TAP_O_INPUT, ws->attn, q, worker, num_workers);
    linear_forward(ops, &layer->o, 1, ws->h, hidden, ws->attn, q, in, tokens, worker, num_workers);
    pool_barrier(m->pool);
    for (int t = begin; t < end; t++) {
        float *x = ws->x + (size_t)t * hidden, *h = ws->h + (size_t)t * hidden;
        ops->add(x, h, (int)hidden);
        norm_row(m, &layer->post_attention_norm, h, x, (int)hidden);
        linear_quantize_row(ops, layer->gate_up, NUM_GATE_UP, h, t, in);
    }
    pool_barrier(m->pool);
    tap_rows(p, layer_idx, TAP_GATE_UP_INPUT, ws->h, hidden, worker, num_workers);
    linear_forward(ops, layer->gate_up, NUM_GATE_UP, ws->gate_up, 2 * inter, ws->h, hidden, in, tokens, worker,
                   num_workers);
    pool_barrier(m->pool);
    activate(p, layer, begin, end, worker, num_workers);
    pool_barrier(m->pool);
    tap_rows(p, layer_idx, TAP_DOWN_INPUT, ws->gate_up, 2 * inter, worker, num_workers);
    linear_forward(ops, &layer->down, 1, ws->h, hidden, ws->gate_up, 2 * inter, in, tokens, worker, num_workers);
    pool_barrier(m->pool);
    for (int t = begin; t < end; t++)
        ops->add(ws->x + (size_t)t * hidden, ws->h + (size_t)t * hidden, (int)hidden);
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
        norm_row(m, &m->norm, p->hidden + (size_t)i * hidden, p->ws->x + (size_t)p->batch->logits_rows[i] * hidden,
                 (int)hidden);
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
    struct workspace *ws;
    const float *hidden;
    int rows;
    float *logits;
    size_t ld;
};

static void logits_worker(void *arg, int worker, int num_workers)
{
    const struct logits_job *j = arg;
    const struct linear *head = &j->m->lm_head;
    size_t hidden = (size_t)head->k;
    if (linear_set_is_quantised(head, 1)) {
        int begin, end;
        pool_slice(j->rows, 1, worker, num_workers, &begin, &end);
        for (int r = begin; r < end; r++)
            linear_quantize_row(j->m->ops, head, 1, j->hidden + (size_t)r * hidden, r, &j->ws->in);
        pool_barrier(j->m->pool);
    }
    linear_forward(j->m->ops, head, 1, j->logits, j->ld, j->hidden, hidden, &j->ws->in, j->rows, worker, num_workers);
}

void model_logits(const struct model *m, struct workspace *ws, const float *hidden, int rows, float *logits, size_t ld)
{
    struct logits_job job = {m, ws, hidden, rows, logits, ld};
    pool_run(m->pool, logits_worker, &job);
}
