/* The forward pass. All workers run forward_worker side by side with barriers between the phases of a layer; within a
 * phase each worker owns some rows or some output columns, and no output is ever summed across workers, so the number
 * of workers cannot show in a result. Called by engine/model_runner on the engine thread.
 *
 * Work on rows (norms, quantisation) is shared out when there are many. When there are few, every worker does all of it
 * for itself, on rows of its own: that takes less time than a barrier. */
#include "model/model.h"

#include "base/mem.h"
#include "kernel/ref/convert.h"
#include "model/profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REPLICATED_TOKENS 4 /* at most this many: each worker computes all rows */
#define MOST_PANELS 32      /* of a linear that a worker takes at a time */
#define BLOCK_TOKENS 528    /* rows that go through a layer together, to find each other in the caches, */
#define GEMM_TOKENS 264     /* and through its linears half of them at a time */
#define HEADS_ROWS 768      /* rows of heads of q, k and v that are finished while they are in L2 */

/* What row work reads and writes: the step's, or a worker's own. */
struct rows {
    float *x;               /* (tokens, hidden) residual stream */
    float *h;               /* (tokens, hidden) normed input */
    struct linear_input in; /* quantised rows of whatever linears run now */
};

/* Consecutive tokens of one request, as many as an attention call takes. */
struct chunk {
    int token, count;
};

/* Tokens [from, to), and their chunks. */
struct block {
    int from, to;
    struct chunk *chunks;
    int num_chunks;
};

struct workspace {
    int max_tokens, num_workers;
    size_t map_bytes;
    uint8_t *map;
    struct rows shared, *own; /* own: (workers), of REPLICATED_TOKENS */
    float *out;               /* (tokens, ld_out): hidden of o or down, not yet added to x */
    float *qkv;               /* (tokens of a block, with a tap of the step; ld_qkv): heads of q, k and v */
    float *attn;              /* (the same tokens, ld_attn) */
    float *gate_up;           /* (tokens of a GEMM, ...): gate and up, or both in one when they are fused */
    float *cos[LAYER_TYPE_COUNT], *sin[LAYER_TYPE_COUNT]; /* (tokens, head_dim / 2) */
    struct chunk *chunks;                                 /* (tokens) */
    struct block *blocks;
    int num_blocks;
    struct profile *profile;
};

struct pass {
    const struct model *m;
    struct workspace *ws;
    const struct kv_cache *kv;
    const struct batch *batch;
    float *hidden;
    bool replicated;
};

/* A worker's part of a pass. */
struct part {
    const struct pass *p;
    struct rows *rows;
    int worker, num_workers;
};

/* Floats from one row of n to the next: an odd number of cache lines, because a GEMM writes a column of rows at a time,
 * and with a power of two they all meet in a few sets. */
static size_t row_stride(size_t n)
{
    return ((n + 15) / 16 | 1) * 16;
}

static size_t ld_qkv(const struct model_config *c)
{
    return row_stride((size_t)(c->num_attention_heads + 2 * c->num_key_value_heads) * (size_t)c->head_dim);
}

static size_t ld_attn(const struct model_config *c)
{
    return row_stride((size_t)c->num_attention_heads * (size_t)c->head_dim);
}

static size_t ld_out(const struct model_config *c)
{
    return row_stride((size_t)c->hidden_size);
}

static uint8_t *take(uint8_t *base, size_t *at, size_t bytes)
{
    uint8_t *p = base ? base + *at : NULL;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

static void rows_lay_out(struct rows *r, const struct model_config *c, size_t tokens, uint8_t *base, size_t *at)
{
    size_t hidden = (size_t)c->hidden_size, q = (size_t)c->num_attention_heads * (size_t)c->head_dim;
    size_t lines = (MAX(MAX(hidden, q), (size_t)c->intermediate_size) + 63) / 64;
    r->x = (float *)take(base, at, tokens * hidden * sizeof(float));
    r->h = (float *)take(base, at, tokens * hidden * sizeof(float));
    r->in.ldxq = (lines | 1) * 64; /* odd, or a GEMM's rows would meet in a few sets of the L1 cache */
    for (int i = 0; i < LINEAR_MAX_SET; i++) {
        r->in.xq[i] = take(base, at, tokens * r->in.ldxq);
        r->in.row_scale[i] = (float *)take(base, at, tokens * sizeof(float));
        r->in.row_zero[i] = (int32_t *)take(base, at, tokens * sizeof(int32_t));
        r->in.row_sum[i] = (int32_t *)take(base, at, tokens * sizeof(int32_t));
    }
}

/* Lays the parts out from base on, or measures them when base is NULL. Returns bytes. */
static size_t workspace_lay_out(struct workspace *ws, const struct model_config *c, uint8_t *base)
{
    size_t t = (size_t)ws->max_tokens, half = t * (size_t)c->head_dim / 2 * sizeof(float), at = 0;
    rows_lay_out(&ws->shared, c, t, base, &at);
    for (int i = 0; i < ws->num_workers; i++)
        rows_lay_out(&ws->own[i], c, REPLICATED_TOKENS, base, &at);
    ws->out = (float *)take(base, &at, t * ld_out(c) * sizeof(float));
    ws->qkv = (float *)take(base, &at, t * ld_qkv(c) * sizeof(float));
    ws->attn = (float *)take(base, &at, t * ld_attn(c) * sizeof(float));
    ws->gate_up = (float *)take(base, &at, t * row_stride(2 * (size_t)c->intermediate_size) * sizeof(float));
    for (int i = 0; i < LAYER_TYPE_COUNT; i++) {
        ws->cos[i] = (float *)take(base, &at, half);
        ws->sin[i] = (float *)take(base, &at, half);
    }
    ws->chunks = (struct chunk *)take(base, &at, t * sizeof(*ws->chunks));
    ws->blocks = (struct block *)take(base, &at, (t / BLOCK_TOKENS + 1) * sizeof(*ws->blocks));
    return at;
}

struct workspace *workspace_new(const struct model *m, int max_tokens)
{
    struct workspace *ws = mem_calloc(1, sizeof(*ws));
    ws->max_tokens = max_tokens;
    ws->num_workers = pool_num_workers(m->pool);
    ws->own = mem_calloc((size_t)ws->num_workers, sizeof(*ws->own));
    ws->map_bytes = workspace_lay_out(ws, &m->config, NULL);
    ws->map = mem_map(ws->map_bytes); /* config.c bounds each width, the engine max_tokens: no overflow */
    if (!ws->map) {
        free(ws->own);
        free(ws);
        return NULL;
    }
    workspace_lay_out(ws, &m->config, ws->map);
    return ws;
}

void workspace_set_profile(struct workspace *ws, struct profile *profile)
{
    ws->profile = profile;
}

void workspace_free(struct workspace *ws)
{
    if (!ws)
        return;
    mem_unmap(ws->map, ws->map_bytes);
    free(ws->own);
    free(ws);
}

/* ---- phases ---- */

static void mark(const struct part *w, enum profile_phase phase)
{
    if (w->worker == 0 && w->p->ws->profile)
        profile_mark(w->p->ws->profile, phase);
}

static void barrier(const struct part *w, enum profile_phase phase)
{
    mark(w, phase);
    pool_barrier(w->p->m->pool);
    mark(w, PROFILE_WAIT);
}

/* After row work: others read these rows, unless each has its own. */
static void rows_done(const struct part *w)
{
    if (w->p->replicated)
        mark(w, PROFILE_ROWS);
    else
        barrier(w, PROFILE_ROWS);
}

/* Rows of [from, to) that this worker does. */
static void rows_mine(const struct part *w, int from, int to, int *ret_begin, int *ret_end)
{
    *ret_begin = from;
    *ret_end = to;
    if (w->p->replicated)
        return;
    pool_slice(to - from, 1, w->worker, w->num_workers, ret_begin, ret_end);
    *ret_begin += from;
    *ret_end += from;
}

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

/* What follows q, k, v for heads [begin, end) of tokens [from, to), counted over the heads of q, then k, then v: q and
 * k are normed and rotated, and k and v written to the cache. qkv: where the row of token from is. */
static void heads_finish(const struct pass *p, int layer_idx, int begin, int end, int from, int to, float *qkv)
{
    const struct model_config *c = &p->m->config;
    const struct kernel_ops *ops = p->m->ops;
    const struct model_layer *layer = &p->m->layers[layer_idx];
    int d = c->head_dim, q_heads = c->num_attention_heads, kv_heads = c->num_key_value_heads;
    enum dtype dtype = p->kv->layers[layer_idx].dtype;
    for (int t = from; t < to; t++) {
        const float *cos = p->ws->cos[layer->type] + (size_t)t * (size_t)d / 2;
        const float *sin = p->ws->sin[layer->type] + (size_t)t * (size_t)d / 2;
        int64_t slot = p->batch->slot_mapping[t];
        int in_tile = (int)(slot % ATTN_TILE);
        for (int i = begin; i < end; i++) {
            float *x = qkv + (size_t)(t - from) * ld_qkv(c) + (size_t)i * (size_t)d;
            bool is_v = i >= q_heads + kv_heads;
            int h = (i - q_heads) % kv_heads; /* of k and v */
            const struct norm *norm = i < q_heads ? &layer->q_norm : &layer->k_norm;
            if (!is_v && norm->weight)
                norm_row(p->m, norm, x, x, d);
            if (!is_v)
                ops->rope(x, cos, sin, d);
            if (i < q_heads)
                continue;
            uint8_t *k_to = kv_cache_k(p->kv, layer_idx, slot, h), *v_to = kv_cache_v(p->kv, layer_idx, slot, h);
            const float *k = is_v ? NULL : x, *v = is_v ? x : NULL;
            if (dtype == DTYPE_I8)
                ops->kv_write_c8(k_to, v_to, in_tile, k, v, d, &layer->c8[h]);
            else
                (dtype == DTYPE_BF16  ? ops->kv_write_bf16
                 : dtype == DTYPE_F16 ? ops->kv_write_f16
                                      : ops->kv_write_f32)(k_to, v_to, in_tile, k, v, d);
        }
    }
}

/* Task i of a block's attention: a chunk's tokens for one KV head and the query heads that share it. Head by head,
 * because the chunks of a request share what a head has in the caches. */
static struct attn_args attn_task(const struct pass *p, const struct block *b, int layer_idx, int i)
{
    const struct model_config *c = &p->m->config;
    const struct model_layer *layer = &p->m->layers[layer_idx];
    const struct workspace *ws = p->ws;
    const struct chunk *chunk = &b->chunks[i % b->num_chunks];
    int kv_head = i / b->num_chunks, t = chunk->token, group = c->num_attention_heads / c->num_key_value_heads;
    size_t at = (size_t)kv_head * (size_t)group * (size_t)c->head_dim;
    return (struct attn_args){
        .q = ws->qkv + (size_t)(t - b->from) * ld_qkv(c) + at,
        .out = ws->attn + (size_t)(t - b->from) * ld_attn(c) + at,
        .group = group,
        .d = c->head_dim,
        .ldq = ld_qkv(c),
        .ldout = ld_attn(c),
        .tokens = chunk->count,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .position = p->batch->positions[t],
        .window = layer->type == LAYER_SLIDING_ATTENTION ? c->sliding_window : 0,
        .block_table = p->batch->block_table[t],
        .block_size = p->kv->block_size,
        .k = kv_cache_k(p->kv, layer_idx, 0, kv_head),
        .v = kv_cache_v(p->kv, layer_idx, 0, kv_head),
        .run_blocks = p->kv->run_blocks,
        .tile_stride = 2 * p->kv->layers[layer_idx].half_bytes,
        .run_stride = p->kv->layers[layer_idx].run_bytes,
        .c8 = layer->c8 ? &layer->c8[kv_head] : NULL,
    };
}

static void attend(const struct pass *p, int layer_idx, struct attn_args a)
{
    const struct kernel_ops *ops = p->m->ops;
    enum dtype dtype = p->kv->layers[layer_idx].dtype;
    int group = a.group;
    for (int g = 0; g < group; g += a.group, a.q += a.group * a.d, a.out += a.group * a.d) {
        a.group = MIN(group - g, ATTN_MAX_ROWS);
        (dtype == DTYPE_I8     ? ops->attn_c8
         : dtype == DTYPE_BF16 ? ops->attn_bf16
         : dtype == DTYPE_F16  ? ops->attn_f16
                               : ops->attn_f32)(&a);
    }
}

/* Chunks of a block: consecutive positions of one request, their query rows at most what a call takes. Requests as they
 * come, which is about how they lie in memory; of each the late (long) positions first. */
static void chunks_find(const struct pass *p, struct block *block)
{
    const struct batch *b = p->batch;
    const struct model_config *c = &p->m->config;
    int group = c->num_attention_heads / c->num_key_value_heads, most = MAX(p->m->ops->attn_rows / group, 1);
    block->chunks = p->ws->chunks + block->from;
    block->num_chunks = 0;
    for (int t = block->from, end; t < block->to; t = end) {
        for (end = t + 1; end < block->to && b->block_table[end] == b->block_table[t] &&
                          b->positions[end] == b->positions[end - 1] + 1;)
            end++;
        for (int count, left = end - t; left > 0; left -= count) {
            count = (left - 1) % most + 1;
            block->chunks[block->num_chunks++] = (struct chunk){t + left - count, count};
        }
    }
}

/* The blocks of a step. A tap sees a layer's rows all at once. */
static void blocks_find(struct pass *p)
{
    struct workspace *ws = p->ws;
    int tokens = p->batch->num_tokens;
    ws->num_blocks = p->batch->tap ? 1 : (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    for (int i = 0; i < ws->num_blocks; i++) {
        struct block *b = &ws->blocks[i];
        pool_slice(tokens, 12, i, ws->num_blocks, &b->from, &b->to);
        chunks_find(p, b);
    }
}

static void tap_rows(const struct part *w, int layer_idx, enum tap_point point, const float *x, size_t ldx)
{
    const struct tap *tap = w->p->batch->tap;
    if (tap)
        tap->see(tap->arg, layer_idx, point, x, ldx, w->p->batch->num_tokens, w->worker, w->num_workers);
}

/* Rows [from, to) of x, with what the last linear gave added, normed and quantised for a set of linears. */
static void norm_rows(const struct part *w, bool add, const struct norm *norm, const struct linear *set, int count,
                      int from, int to)
{
    const struct model *m = w->p->m;
    size_t hidden = (size_t)m->config.hidden_size;
    int begin, end;
    rows_mine(w, from, to, &begin, &end);
    for (int t = begin; t < end; t++) {
        float *x = w->rows->x + (size_t)t * hidden, *h = w->rows->h + (size_t)t * hidden;
        if (add)
            m->ops->add(x, w->p->ws->out + (size_t)t * ld_out(&m->config), (int)hidden);
        norm_row(m, norm, h, x, (int)hidden);
        linear_quantize_row(m->ops, set, count, h, t, &w->rows->in);
    }
    rows_done(w);
}

/* Rows [from, to), which begin at x, quantised for one linear. */
static void quantize_rows(const struct part *w, const struct linear *l, const float *x, size_t ldx, int from, int to)
{
    if (!linear_set_is_quantised(l, 1))
        return;
    int begin, end;
    rows_mine(w, from, to, &begin, &end);
    for (int t = begin; t < end; t++)
        linear_quantize_row(w->p->m->ops, l, 1, x + (size_t)(t - from) * ldx, t, &w->rows->in);
    rows_done(w);
}

/* The rows of [from, to) that go through a linear together from `from` on: equal parts. */
static int gemm_rows(int from, int to)
{
    int parts = (to - from + GEMM_TOKENS - 1) / GEMM_TOKENS;
    return (to - from + parts - 1) / parts;
}

/* Columns of a set of linears, shared out, for rows [from, to), which begin at x and y. */
static void columns(const struct part *w, const struct linear *set, int count, float *y, size_t ldy, const float *x,
                    size_t ldx, int from, int to, enum profile_phase phase)
{
    struct linear_input in = linear_input_from(&w->rows->in, from);
    struct pool_turn turn;
    int begin, end;
    pool_turn_begin(&turn, w->p->m->pool, w->worker, linear_set_panels(set, count), MOST_PANELS);
    while (pool_turn_next(&turn, &begin, &end))
        linear_forward(w->p->m->ops, set, count, y, ldy, x, ldx, &in, to - from, begin, end);
    barrier(w, phase);
}

/* Heads [begin, end) of q, k and v of a block's tokens, a few heads at a time finished while they are in this worker's
 * cache. */
static void qkv_heads(const struct part *w, const struct block *b, int layer_idx, int begin, int end)
{
    const struct pass *p = w->p;
    const struct model_config *c = &p->m->config;
    size_t hidden = (size_t)c->hidden_size, ld = ld_qkv(c);
    int per_head = c->head_dim / GEMM_NR;
    for (int from = b->from, rows; from < b->to; from += rows) {
        rows = gemm_rows(from, b->to);
        float *y = p->ws->qkv + (size_t)(from - b->from) * ld;
        struct linear_input in = linear_input_from(&w->rows->in, from);
        for (int head = begin, last; head < end; head = last) {
            last = MIN(end, head + MAX(HEADS_ROWS / rows, 1));
            linear_forward(p->m->ops, p->m->layers[layer_idx].qkv, NUM_QKV, y, ld, w->rows->h + (size_t)from * hidden,
                           hidden, &in, rows, head * per_head, last * per_head);
            mark(w, PROFILE_QKV);
            heads_finish(p, layer_idx, head, last, from, from + rows, y);
            mark(w, PROFILE_HEADS);
        }
    }
}

/* q, k and v of a block, finished. Heads that are not made of whole panels are finished by whoever has the token. */
static void qkv(const struct part *w, const struct block *b, int layer_idx)
{
    const struct pass *p = w->p;
    const struct model_config *c = &p->m->config;
    const struct model_layer *layer = &p->m->layers[layer_idx];
    size_t hidden = (size_t)c->hidden_size, ld = ld_qkv(c);
    int heads = c->num_attention_heads + 2 * c->num_key_value_heads, begin, end;
    if (c->head_dim % GEMM_NR) {
        columns(w, layer->qkv, NUM_QKV, p->ws->qkv, ld, w->rows->h + (size_t)b->from * hidden, hidden, b->from, b->to,
                PROFILE_QKV);
        pool_slice(b->to - b->from, 1, w->worker, w->num_workers, &begin, &end);
        heads_finish(p, layer_idx, 0, heads, b->from + begin, b->from + end, p->ws->qkv + (size_t)begin * ld);
        barrier(w, PROFILE_HEADS);
        return;
    }
    struct pool_turn turn;
    pool_turn_begin(&turn, p->m->pool, w->worker, heads, MOST_PANELS);
    while (pool_turn_next(&turn, &begin, &end))
        qkv_heads(w, b, layer_idx, begin, end);
    barrier(w, PROFILE_HEADS);
}

static void attention(const struct part *w, const struct block *b, int layer_idx)
{
    const struct pass *p = w->p;
    int tasks = b->num_chunks * p->m->config.num_key_value_heads, begin, end;
    struct pool_turn turn;
    pool_turn_begin(&turn, p->m->pool, w->worker, tasks, 1); /* one by one: they differ in length */
    while (pool_turn_next(&turn, &begin, &end)) {
        struct attn_args a = attn_task(p, b, layer_idx, begin), next;
        if (end < tasks) { /* most likely */
            next = attn_task(p, b, layer_idx, end);
            a.next = &next;
        }
        attend(p, layer_idx, a);
    }
    barrier(w, PROFILE_ATTENTION);
}

/* gate and up of rows [from, to), activated, into ws->gate_up from its beginning on; returns its row stride. */
static size_t gate_up(const struct part *w, int layer_idx, int from, int to)
{
    const struct pass *p = w->p;
    const struct model_layer *layer = &p->m->layers[layer_idx];
    size_t inter = (size_t)p->m->config.intermediate_size, hidden = (size_t)p->m->config.hidden_size;
    size_t ld = row_stride(2 * inter);
    const float *h = w->rows->h + (size_t)from * hidden;
    float *to_rows = p->ws->gate_up;
    if (layer->swiglu.weight) {
        ld = row_stride(inter);
        columns(w, &layer->swiglu, 1, to_rows, ld, h, hidden, from, to, PROFILE_GATE_UP);
        return ld;
    }
    columns(w, layer->gate_up, NUM_GATE_UP, to_rows, ld, h, hidden, from, to, PROFILE_GATE_UP);
    int col, col_end;
    pool_slice((int)inter, 64, w->worker, w->num_workers, &col, &col_end);
    for (int t = 0; t < to - from && col < col_end; t++) {
        float *gate = to_rows + (size_t)t * ld + (size_t)col;
        p->m->ops->silu_mul(gate, gate, gate + inter, col_end - col);
    }
    barrier(w, PROFILE_ROWS);
    return ld;
}

static void layer_block(const struct part *w, const struct block *b, int layer_idx)
{
    const struct pass *p = w->p;
    const struct model_layer *layer = &p->m->layers[layer_idx];
    struct workspace *ws = p->ws;
    const struct linear *gate_up_set = layer->swiglu.weight ? &layer->swiglu : layer->gate_up;
    int gate_up_count = layer->swiglu.weight ? 1 : NUM_GATE_UP;
    size_t hidden = (size_t)p->m->config.hidden_size, lda = ld_attn(&p->m->config), ldo = ld_out(&p->m->config);

    norm_rows(w, layer_idx > 0, &layer->input_norm, layer->qkv, NUM_QKV, b->from, b->to);
    tap_rows(w, layer_idx, TAP_QKV_INPUT, w->rows->h, hidden);
    qkv(w, b, layer_idx);
    tap_rows(w, layer_idx, TAP_QKV, ws->qkv, ld_qkv(&p->m->config));
    attention(w, b, layer_idx);
    tap_rows(w, layer_idx, TAP_O_INPUT, ws->attn, lda);
    for (int from = b->from, to; from < b->to; from = to) {
        to = p->batch->tap ? b->to : from + gemm_rows(from, b->to);
        float *out = ws->out + (size_t)from * ldo;
        const float *attn = ws->attn + (size_t)(from - b->from) * lda;
        quantize_rows(w, &layer->o, attn, lda, from, to);
        columns(w, &layer->o, 1, out, ldo, attn, lda, from, to, PROFILE_O);
        norm_rows(w, true, &layer->post_attention_norm, gate_up_set, gate_up_count, from, to);
        tap_rows(w, layer_idx, TAP_GATE_UP_INPUT, w->rows->h, hidden);
        size_t ld = gate_up(w, layer_idx, from, to);
        quantize_rows(w, &layer->down, ws->gate_up, ld, from, to);
        tap_rows(w, layer_idx, TAP_DOWN_INPUT, ws->gate_up, ld);
        columns(w, &layer->down, 1, out, ldo, ws->gate_up, ld, from, to, PROFILE_DOWN);
    }
}

static void forward_worker(void *arg, int worker, int num_workers)
{
    const struct pass *p = arg;
    const struct model *m = p->m;
    struct workspace *ws = p->ws;
    struct part w = {p, p->replicated ? &ws->own[worker] : &ws->shared, worker, num_workers};
    size_t hidden = (size_t)m->config.hidden_size, half = (size_t)m->config.head_dim / 2;
    int begin, end;
    rows_mine(&w, 0, p->batch->num_tokens, &begin, &end);
    for (int t = begin; t < end; t++)
        if (m->embed)
            embed_row(m, p->batch->token_ids[t], w.rows->x + (size_t)t * hidden);
        else
            memcpy(w.rows->x + (size_t)t * hidden, p->batch->inputs_embeds + (size_t)t * hidden,
                   hidden * sizeof(float));
    pool_slice(p->batch->num_tokens, 1, worker, num_workers, &begin, &end);
    for (int t = begin; t < end; t++)
        for (int i = 0; i < (m->config.sliding_window ? LAYER_TYPE_COUNT : 1); i++)
            rope_angles(&m->rope[i], p->batch->positions[t], p->batch->rope_lens[t], ws->cos[i] + (size_t)t * half,
                        ws->sin[i] + (size_t)t * half);
    barrier(&w, PROFILE_ROWS);
    for (int i = 0; i < m->config.num_hidden_layers; i++)
        for (int b = 0; b < ws->num_blocks; b++)
            layer_block(&w, &ws->blocks[b], i);
    pool_slice(p->batch->num_logits, 1, worker, num_workers, &begin, &end);
    for (int i = begin; i < end; i++) {
        size_t row = (size_t)p->batch->logits_rows[i];
        float *to = p->hidden + (size_t)i * hidden;
        memcpy(to, w.rows->x + row * hidden, hidden * sizeof(float));
        m->ops->add(to, ws->out + row * ld_out(&m->config), (int)hidden);
        if (m->norm.weight)
            norm_row(m, &m->norm, to, to, (int)hidden);
    }
    mark(&w, PROFILE_ROWS);
}

static void count_linear(struct profile *pr, enum profile_phase phase, const struct linear *l, int tokens, int passes)
{
    pr->macs[phase] += (double)tokens * (double)l->n * (double)l->k * (l->swiglu ? 2 : 1);
    pr->bytes[phase] += (double)l->weight_bytes * passes;
}

static void count_attention(const struct pass *p, int layer_idx, const struct chunk *chunk)
{
    const struct model_config *c = &p->m->config;
    struct profile *pr = p->ws->profile;
    double first = (double)p->batch->positions[chunk->token] + 1, last = first + chunk->count - 1, window = INFINITY;
    if (p->m->layers[layer_idx].type == LAYER_SLIDING_ATTENTION)
        window = (double)c->sliding_window;
    double pairs = chunk->count * (fmin(first, window) + fmin(last, window)) / 2;
    pr->macs[PROFILE_ATTENTION] += pairs * 2 * c->head_dim * c->num_attention_heads;
    pr->bytes[PROFILE_ATTENTION] += fmin(last, window + chunk->count - 1) * 2 *
                                    (double)p->kv->layers[layer_idx].half_bytes * c->num_key_value_heads / ATTN_TILE;
}

/* What a pass has to compute and to read, for the profile. */
static void count_work(const struct pass *p)
{
    struct profile *pr = p->ws->profile;
    int tokens = p->batch->num_tokens, passes = 0; /* of linears over their weights */
    for (int i = 0; i < p->ws->num_blocks; i++) {
        const struct block *b = &p->ws->blocks[i];
        passes += p->batch->tap ? 1 : (b->to - b->from + GEMM_TOKENS - 1) / GEMM_TOKENS;
        for (int j = 0; j < b->num_chunks; j++)
            for (int layer = 0; layer < p->m->config.num_hidden_layers; layer++)
                count_attention(p, layer, &b->chunks[j]);
    }
    for (int i = 0; i < p->m->config.num_hidden_layers; i++) {
        const struct model_layer *l = &p->m->layers[i];
        for (int j = 0; j < NUM_QKV; j++)
            count_linear(pr, PROFILE_QKV, &l->qkv[j], tokens, passes);
        for (int j = 0; j < NUM_GATE_UP; j++)
            count_linear(pr, PROFILE_GATE_UP, &l->gate_up[j], tokens, passes);
        count_linear(pr, PROFILE_GATE_UP, &l->swiglu, tokens, passes);
        count_linear(pr, PROFILE_O, &l->o, tokens, passes);
        count_linear(pr, PROFILE_DOWN, &l->down, tokens, passes);
    }
}

void model_forward(const struct model *m, struct workspace *ws, const struct kv_cache *kv, const struct batch *batch,
                   float *hidden)
{
    struct pass p = {.m = m, .ws = ws, .kv = kv, .batch = batch, .hidden = hidden};
    p.replicated = batch->num_tokens <= REPLICATED_TOKENS && !batch->tap;
    blocks_find(&p);
    if (ws->profile) {
        profile_begin(ws->profile);
        count_work(&p);
    }
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
    const struct pass p = {.m = j->m, .ws = j->ws, .replicated = j->rows <= REPLICATED_TOKENS};
    const struct part w = {&p, p.replicated ? &j->ws->own[worker] : &j->ws->shared, worker, num_workers};
    size_t hidden = (size_t)j->m->lm_head.k;
    quantize_rows(&w, &j->m->lm_head, j->hidden, hidden, 0, j->rows);
    struct pool_turn turn;
    int begin, end;
    pool_turn_begin(&turn, j->m->pool, worker, linear_set_panels(&j->m->lm_head, 1), MOST_PANELS);
    while (pool_turn_next(&turn, &begin, &end))
        linear_forward(j->m->ops, &j->m->lm_head, 1, j->logits, j->ld, j->hidden, hidden, &w.rows->in, j->rows, begin,
                       end);
    mark(&w, PROFILE_LM_HEAD);
}

void model_logits(const struct model *m, struct workspace *ws, const float *hidden, int rows, float *logits, size_t ld)
{
    struct logits_job job = {m, ws, hidden, rows, logits, ld};
    if (ws->profile) {
        profile_begin(ws->profile);
        count_linear(ws->profile, PROFILE_LM_HEAD, &m->lm_head, rows, 1);
    }
    pool_run(m->pool, logits_worker, &job);
}
