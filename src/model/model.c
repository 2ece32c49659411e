/* Loading a model: every weight is packed once, in parallel, for its GEMM; norms and biases become float32.
 * model_load and model_free run on the thread that opens the engine. */
#include "model/model.h"

#include "base/mem.h"
#include "kernel/ref/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FUSED 3

struct loader {
    const struct checkpoint *ckpt;
    struct model *model;
    model_progress_fn *progress;
    void *progress_arg;
    uint64_t done, total;
};

/* ---- one linear ---- */

struct pack_job {
    struct linear *l;
    const struct tensor *t;
    const uint8_t *data;
    int row_begin;
};

static float elem_to_f32(const uint8_t *p, enum dtype dtype)
{
    uint16_t h;
    float f;
    if (dtype == DTYPE_F32) {
        memcpy(&f, p, 4);
        return f;
    }
    memcpy(&h, p, 2);
    return dtype == DTYPE_BF16 ? f32_from_bf16(h) : f32_from_f16(h);
}

/* A worker's share of the rows of one tensor; whole panels of the source, so that workers write apart. */
static void pack_worker(void *arg, int worker, int num_workers)
{
    struct pack_job *job = arg;
    int rows = (int)job->t->shape[0], k = job->l->k, begin, end;
    pool_slice(rows, GEMM_NR, worker, num_workers, &begin, &end);
    size_t elem = (size_t)dtype_bits(job->t->dtype) / 8;
    const uint8_t *src = job->data + (size_t)begin * (size_t)k * elem;
    if (job->t->dtype == job->l->dtype) {
        gemm_pack(job->l->weight, src, (int)elem, job->row_begin + begin, end - begin, k);
        return;
    }
    /* tensors of different types were fused: widen to float32, which is exact */
    float *row = mem_alloc((size_t)k * sizeof(float));
    for (int r = begin; r < end; r++, src += (size_t)k * elem) {
        for (int i = 0; i < k; i++)
            row[i] = elem_to_f32(src + (size_t)i * elem, job->t->dtype);
        gemm_pack(job->l->weight, row, 4, job->row_begin + r, 1, k);
    }
    free(row);
}

static enum dtype fused_dtype(const struct tensor *const *t, int count)
{
    for (int i = 1; i < count; i++)
        if (t[i]->dtype != t[0]->dtype)
            return DTYPE_F32;
    return t[0]->dtype;
}

static size_t fused_bytes(const struct tensor *const *t, int count)
{
    int n = 0;
    for (int i = 0; i < count; i++)
        n += (int)t[i]->shape[0];
    return gemm_packed_elems(n, (int)t[0]->shape[1]) * (size_t)(dtype_bits(fused_dtype(t, count)) / 8);
}

static int out_of_memory(const char *what, size_t bytes, struct octavo_error *err)
{
    return error_set(err, OCTAVO_ENOMEM, "no memory for %s (%zu bytes)", what, bytes);
}

static int vector_load(struct loader *ld, const struct tensor *t, float *dst, struct octavo_error *err)
{
    const uint8_t *data = checkpoint_tensor_pin(ld->ckpt, t);
    if (!data)
        return out_of_memory(t->name, t->bytes, err);
    size_t elem = (size_t)dtype_bits(t->dtype) / 8, n = t->bytes / elem;
    for (size_t i = 0; i < n; i++)
        dst[i] = elem_to_f32(data + i * elem, t->dtype);
    checkpoint_tensor_unpin(ld->ckpt, t, data);
    return 0;
}

static int linear_load(struct loader *ld, const struct tensor *const *t, const struct tensor *const *bias, int count,
                       struct linear *l, struct octavo_error *err)
{
    l->dtype = fused_dtype(t, count);
    l->k = (int)t[0]->shape[1];
    bool any_bias = false;
    for (int i = 0; i < count; i++) {
        l->n += (int)t[i]->shape[0];
        any_bias = any_bias || bias[i];
    }
    l->weight_bytes = fused_bytes(t, count);
    l->weight = mem_map(l->weight_bytes);
    if (!l->weight)
        return out_of_memory(t[0]->name, l->weight_bytes, err);
    if (any_bias)
        l->bias = mem_calloc((size_t)l->n, sizeof(float));
    int r = 0, row = 0;
    for (int i = 0; i < count && r == 0; i++) {
        bool tied = t[i] == ld->model->embed; /* pinned already, and for as long as the model lives */
        struct pack_job job = {l, t[i], tied ? ld->model->embed_data : checkpoint_tensor_pin(ld->ckpt, t[i]), row};
        if (!job.data)
            return out_of_memory(t[i]->name, t[i]->bytes, err);
        pool_run(ld->model->pool, pack_worker, &job);
        if (!tied)
            checkpoint_tensor_unpin(ld->ckpt, t[i], job.data);
        if (bias[i])
            r = vector_load(ld, bias[i], l->bias + row, err);
        row += (int)t[i]->shape[0];
        ld->done += t[i]->bytes;
    }
    ld->model->weights_bytes += l->weight_bytes;
    if (ld->progress)
        ld->progress(ld->progress_arg, "packing weights", ld->done, ld->total);
    return r;
}

static void linear_release(struct linear *l)
{
    mem_unmap(l->weight, l->weight_bytes);
    free(l->bias);
}

/* ---- names ---- */

static const struct tensor *find(const struct checkpoint *ckpt, int layer, const char *module, const char *suffix)
{
    char name[160];
    snprintf(name, sizeof(name), "model.layers.%d.%s.%s", layer, module, suffix);
    return checkpoint_find(ckpt, name);
}

struct fused {
    int count;
    const char *modules[MAX_FUSED];
};

enum { QKV, O, GATE_UP, DOWN, NUM_LINEARS };
static const struct fused layer_linears[NUM_LINEARS] = {
    [QKV] = {3, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
    [O] = {1, {"self_attn.o_proj"}},
    [GATE_UP] = {2, {"mlp.gate_proj", "mlp.up_proj"}},
    [DOWN] = {1, {"mlp.down_proj"}},
};

static void fused_find(const struct checkpoint *ckpt, int layer, int which, const struct tensor **weight,
                       const struct tensor **bias)
{
    for (int i = 0; i < layer_linears[which].count; i++) {
        weight[i] = find(ckpt, layer, layer_linears[which].modules[i], "weight");
        bias[i] = find(ckpt, layer, layer_linears[which].modules[i], "bias");
    }
}

static const struct tensor *lm_head_tensor(const struct checkpoint *ckpt)
{
    const struct tensor *t = checkpoint_find(ckpt, "lm_head.weight");
    return t ? t : checkpoint_find(ckpt, "model.embed_tokens.weight");
}

size_t model_weights_bytes(const struct checkpoint *ckpt)
{
    const struct tensor *w[MAX_FUSED], *b[MAX_FUSED], *head = lm_head_tensor(ckpt);
    size_t bytes = checkpoint_find(ckpt, "model.embed_tokens.weight")->bytes + fused_bytes(&head, 1);
    for (int i = 0; i < checkpoint_config(ckpt)->num_hidden_layers; i++)
        for (int which = 0; which < NUM_LINEARS; which++) {
            fused_find(ckpt, i, which, w, b);
            bytes += fused_bytes(w, layer_linears[which].count);
        }
    return bytes;
}

/* ---- the model ---- */

static int norm_load(struct loader *ld, const struct tensor *t, float **ret, struct octavo_error *err)
{
    if (!t)
        return 0;
    *ret = mem_alloc((size_t)t->shape[0] * sizeof(float));
    return vector_load(ld, t, *ret, err);
}

static int layer_load(struct loader *ld, int i, struct octavo_error *err)
{
    struct model_layer *layer = &ld->model->layers[i];
    layer->type = (enum layer_type)ld->model->config.layer_types[i];
    const struct {
        const char *module;
        float **to;
    } norms[] = {
        {"input_layernorm", &layer->input_norm},
        {"post_attention_layernorm", &layer->post_attention_norm},
        {"self_attn.q_norm", &layer->q_norm},
        {"self_attn.k_norm", &layer->k_norm},
    };
    int r = 0;
    for (size_t j = 0; j < ARRAY_LEN(norms) && r == 0; j++)
        r = norm_load(ld, find(ld->ckpt, i, norms[j].module, "weight"), norms[j].to, err);
    struct linear *const linears[NUM_LINEARS] = {&layer->qkv, &layer->o, &layer->gate_up, &layer->down};
    const struct tensor *w[MAX_FUSED], *b[MAX_FUSED];
    for (int which = 0; which < NUM_LINEARS && r == 0; which++) {
        fused_find(ld->ckpt, i, which, w, b);
        r = linear_load(ld, w, b, layer_linears[which].count, linears[which], err);
    }
    return r;
}

int model_load(const struct checkpoint *ckpt, struct pool *pool, enum cpu_isa isa, model_progress_fn *progress,
               void *progress_arg, struct model **ret_model, struct octavo_error *err)
{
    struct model *m = mem_calloc(1, sizeof(*m));
    m->config = *checkpoint_config(ckpt);
    m->pool = pool;
    m->ops = kernel_ops_get(isa);
    m->ckpt = ckpt;
    m->layers = mem_calloc((size_t)m->config.num_hidden_layers, sizeof(*m->layers));
    struct loader ld = {.ckpt = ckpt, .model = m, .progress = progress, .progress_arg = progress_arg};
    for (size_t i = 0; i < checkpoint_num_tensors(ckpt); i++) {
        const struct tensor *t = checkpoint_tensor(ckpt, i);
        ld.total += t->bytes;
        m->num_parameters += (int64_t)(t->bytes * 8 / (size_t)dtype_bits(t->dtype));
    }
    for (size_t i = 0; i < checkpoint_num_unused(ckpt); i++) {
        const struct tensor *t = checkpoint_unused(ckpt, i);
        ld.total -= t->bytes;
        m->num_parameters -= (int64_t)(t->bytes * 8 / (size_t)dtype_bits(t->dtype));
    }
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        rope_init(&m->rope[i], &m->config.rope[i], m->config.head_dim, m->config.max_position_embeddings);

    int r = 0;
    m->embed = checkpoint_find(ckpt, "model.embed_tokens.weight");
    m->embed_data = checkpoint_tensor_pin(ckpt, m->embed);
    if (!m->embed_data)
        r = out_of_memory(m->embed->name, m->embed->bytes, err);
    m->weights_bytes = m->embed->bytes;
    for (int i = 0; i < m->config.num_hidden_layers && r == 0; i++)
        r = layer_load(&ld, i, err);
    if (r == 0)
        r = norm_load(&ld, checkpoint_find(ckpt, "model.norm.weight"), &m->norm, err);
    const struct tensor *head = lm_head_tensor(ckpt), *no_bias = NULL;
    if (r == 0)
        r = linear_load(&ld, &head, &no_bias, 1, &m->lm_head, err);
    if (r < 0) {
        model_free(m);
        return r;
    }
    if (progress)
        progress(progress_arg, "packing weights", ld.total, ld.total);
    *ret_model = m;
    return 0;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    if (m->embed_data)
        checkpoint_tensor_unpin(m->ckpt, m->embed, m->embed_data);
    for (int i = 0; i < m->config.num_hidden_layers; i++) {
        struct model_layer *l = &m->layers[i];
        float *const vectors[] = {l->input_norm, l->post_attention_norm, l->q_norm, l->k_norm};
        for (size_t j = 0; j < ARRAY_LEN(vectors); j++)
            free(vectors[j]);
        linear_release(&l->qkv);
        linear_release(&l->o);
        linear_release(&l->gate_up);
        linear_release(&l->down);
    }
    free(m->layers);
    free(m->norm);
    linear_release(&m->lm_head);
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        rope_release(&m->rope[i]);
    free(m);
}
