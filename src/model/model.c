/* Loading a model: every weight is packed once, in parallel, for its kernel; norms and biases become float32.
 * model_load and model_free run on the thread that opens the engine. */
#include "model/model.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMBED "model.embed_tokens.weight"
#define DUMMY_C8_SCALE 0.05f

struct loader {
    const struct checkpoint *ckpt;
    const struct model_options *opts;
    struct model *model;
    int first;            /* layer of the checkpoint that is the model's layer 0 */
    uint64_t done, total; /* bytes packed */
};

static const char *const layer_linears[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                            "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                            "mlp.down_proj"};

static void layer_name(char out[160], int layer, const char *module)
{
    snprintf(out, 160, "model.layers.%d.%s", layer, module);
}

size_t model_weights_bytes(const struct checkpoint *ckpt, const struct model_options *opts)
{
    char name[160];
    size_t bytes = opts->first_layer ? 0 : checkpoint_find(ckpt, EMBED)->bytes;
    bytes += opts->num_layers ? 0 : linear_bytes(ckpt, "lm_head", opts->quantize_w8a8);
    int count = opts->num_layers ? opts->num_layers : checkpoint_config(ckpt)->num_hidden_layers;
    for (int i = opts->first_layer; i < opts->first_layer + count; i++)
        for (size_t j = 0; j < ARRAY_LEN(layer_linears); j++) {
            layer_name(name, i, layer_linears[j]);
            bytes += linear_bytes(ckpt, name, opts->quantize_w8a8);
        }
    return bytes;
}

/* ---- parts ---- */

static int vector_load(struct loader *ld, const struct tensor *t, float **ret, struct octavo_error *err)
{
    if (!t)
        return 0;
    const uint8_t *data = checkpoint_tensor_pin(ld->ckpt, t);
    if (!data)
        return error_set(err, OCTAVO_ENOMEM, "no memory for %s (%zu bytes)", t->name, t->bytes);
    size_t elem = (size_t)dtype_bits(t->dtype) / 8, n = t->bytes / elem;
    *ret = mem_alloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        (*ret)[i] = tensor_elem(data + i * elem, t->dtype);
    checkpoint_tensor_unpin(ld->ckpt, t, data);
    return 0;
}

static int norm_load(struct loader *ld, const char *module, struct norm *norm, struct octavo_error *err)
{
    char name[176];
    snprintf(name, sizeof(name), "%s.weight", module);
    int r = vector_load(ld, checkpoint_find(ld->ckpt, name), &norm->weight, err);
    return r < 0 ? r : vector_load(ld, checkpoint_norm_bias(ld->ckpt, module), &norm->bias, err);
}

static void loaded(struct loader *ld, const struct linear *l)
{
    ld->done += l->weight_bytes;
    ld->model->weights_bytes += l->weight_bytes;
    if (ld->opts->progress)
        ld->opts->progress(ld->opts->progress_arg, "packing weights", ld->done, ld->total);
}

/* q, k and v are computed together, head by head where a head is made of whole panels (forward.c). */
static struct linear_share qkv_share(const struct model_config *c, int which)
{
    int d = c->head_dim,
        widths[NUM_QKV] = {c->num_attention_heads * d, c->num_key_value_heads * d, c->num_key_value_heads * d};
    struct linear_share share = {.grain = d % GEMM_NR ? 1 : d / GEMM_NR};
    for (int i = 0; i < NUM_QKV; i++) {
        int panels = (widths[i] + GEMM_NR - 1) / GEMM_NR;
        share.first += i < which ? panels : 0;
        share.total += panels;
    }
    return share;
}

static int part_load(struct loader *ld, const char *module, struct linear *l, const struct linear_share *share,
                     struct octavo_error *err)
{
    struct linear_spec spec;
    checkpoint_linear(ld->ckpt, module, &spec);
    const uint8_t *pinned = spec.weight == ld->model->embed ? ld->model->embed_data : NULL; /* tied */
    int r = linear_load(l, ld->ckpt, ld->model->pool, module, ld->opts->quantize_w8a8, pinned, share, err);
    loaded(ld, l);
    return r;
}

/* gate and up of a layer in one, if they fit together. */
static int swiglu_load(struct loader *ld, int i, struct linear *l, struct octavo_error *err)
{
    char gate[160], up[160];
    layer_name(gate, ld->first + i, "mlp.gate_proj");
    layer_name(up, ld->first + i, "mlp.up_proj");
    int r = linear_load_swiglu(l, ld->ckpt, ld->model->pool, gate, up, ld->opts->quantize_w8a8, err);
    if (r == 0)
        loaded(ld, l);
    return r < 0 ? r : 0;
}

/* Scales as the kernels want them, with reciprocals: six rows of (kv_heads * head_dim). */
static void c8_load(struct loader *ld, int i)
{
    const struct model_config *c = &ld->model->config;
    const struct kv_scales *from = checkpoint_kv_scales(ld->ckpt, ld->first + i);
    struct model_layer *layer = &ld->model->layers[i];
    if (!from && !ld->opts->dummy_c8)
        return;
    size_t d = (size_t)c->head_dim, heads = (size_t)c->num_key_value_heads, n = heads * d;
    float *data = layer->c8_data = mem_calloc(6 * n, sizeof(*data));
    for (size_t j = 0; j < n; j++) {
        data[j] = from ? from->k_scale[j] : DUMMY_C8_SCALE;
        data[n + j] = 1.0f / data[j];
        data[2 * n + j] = from ? from->k_offset[j] : 0;
        data[3 * n + j] = from ? from->v_scale[j] : DUMMY_C8_SCALE;
        data[4 * n + j] = 1.0f / data[3 * n + j];
        data[5 * n + j] = from ? from->v_offset[j] : 0;
    }
    layer->c8 = mem_calloc(heads, sizeof(*layer->c8));
    for (size_t h = 0; h < heads; h++) {
        const float *at = data + h * d;
        layer->c8[h] = (struct c8_scales){at, at + n, at + 2 * n, at + 3 * n, at + 4 * n, at + 5 * n};
    }
}

static int layer_load(struct loader *ld, int i, struct octavo_error *err)
{
    struct model_layer *layer = &ld->model->layers[i];
    char name[160];
    layer->type = (enum layer_type)ld->model->config.layer_types[i];
    const struct {
        const char *module;
        struct norm *to;
    } norms[] = {
        {"input_layernorm", &layer->input_norm},
        {"post_attention_layernorm", &layer->post_attention_norm},
        {"self_attn.q_norm", &layer->q_norm},
        {"self_attn.k_norm", &layer->k_norm},
    };
    struct linear *const linears[ARRAY_LEN(layer_linears)] = {
        &layer->qkv[Q],        &layer->qkv[K],      &layer->qkv[V], &layer->o,
        &layer->gate_up[GATE], &layer->gate_up[UP], &layer->down};
    int r = 0;
    for (size_t j = 0; j < ARRAY_LEN(norms) && r == 0; j++) {
        layer_name(name, ld->first + i, norms[j].module);
        r = norm_load(ld, name, norms[j].to, err);
    }
    if (r == 0)
        r = swiglu_load(ld, i, &layer->swiglu, err);
    for (size_t j = 0; j < ARRAY_LEN(layer_linears) && r == 0; j++) {
        if (layer->swiglu.weight && (linears[j] == &layer->gate_up[GATE] || linears[j] == &layer->gate_up[UP]))
            continue;
        layer_name(name, ld->first + i, layer_linears[j]);
        struct linear_share share = {0};
        if (j < NUM_QKV)
            share = qkv_share(&ld->model->config, (int)j);
        r = part_load(ld, name, linears[j], &share, err);
    }
    linear_share_inputs(layer->qkv, NUM_QKV);
    linear_share_inputs(layer->gate_up, NUM_GATE_UP);
    c8_load(ld, i);
    return r;
}

/* ---- the model ---- */

static int64_t count_parameters(const struct checkpoint *ckpt)
{
    int64_t n = 0;
    for (size_t i = 0; i < checkpoint_num_tensors(ckpt); i++) {
        const struct tensor *t = checkpoint_tensor(ckpt, i);
        n += (int64_t)(t->bytes * 8 / (size_t)dtype_bits(t->dtype));
    }
    return n;
}

int model_load(const struct checkpoint *ckpt, struct pool *pool, const struct model_options *opts,
               struct model **ret_model, struct octavo_error *err)
{
    struct model *m = mem_calloc(1, sizeof(*m));
    m->config = *checkpoint_config(ckpt);
    bool whole = opts->num_layers == 0, last = whole;
    if (!whole) {
        last = opts->first_layer + opts->num_layers == m->config.num_hidden_layers;
        m->config.num_hidden_layers = opts->num_layers;
        memmove(m->config.layer_types, m->config.layer_types + opts->first_layer, (size_t)opts->num_layers);
    }
    m->pool = pool;
    m->ops = kernel_ops_get(opts->isa);
    m->ckpt = ckpt;
    m->layers = mem_calloc((size_t)m->config.num_hidden_layers, sizeof(*m->layers));
    m->num_parameters = count_parameters(ckpt);
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        rope_init(&m->rope[i], &m->config.rope[i], m->config.head_dim, m->config.max_position_embeddings);
    struct loader ld = {.ckpt = ckpt, .opts = opts, .model = m, .first = opts->first_layer};
    ld.total = model_weights_bytes(ckpt, opts);

    int r = 0;
    if (opts->first_layer == 0) {
        m->embed = checkpoint_find(ckpt, EMBED);
        m->embed_data = checkpoint_tensor_pin(ckpt, m->embed);
        if (!m->embed_data)
            r = error_set(err, OCTAVO_ENOMEM, "no memory for %s (%zu bytes)", m->embed->name, m->embed->bytes);
        m->weights_bytes = m->embed->bytes;
        ld.total -= m->embed->bytes;
    }
    for (int i = 0; i < m->config.num_hidden_layers && r == 0; i++)
        r = layer_load(&ld, i, err);
    if (r == 0 && last)
        r = norm_load(&ld, "model.norm", &m->norm, err);
    if (r == 0 && whole)
        r = part_load(&ld, "lm_head", &m->lm_head, &(struct linear_share){0}, err);
    if (r < 0) {
        model_free(m);
        return r;
    }
    *ret_model = m;
    return 0;
}

static void norm_release(struct norm *n)
{
    free(n->weight);
    free(n->bias);
}

void model_free(struct model *m)
{
    if (!m)
        return;
    if (m->embed_data)
        checkpoint_tensor_unpin(m->ckpt, m->embed, m->embed_data);
    for (int i = 0; i < m->config.num_hidden_layers; i++) {
        struct model_layer *l = &m->layers[i];
        struct norm *const norms[] = {&l->input_norm, &l->post_attention_norm, &l->q_norm, &l->k_norm};
        struct linear *const linears[] = {&l->qkv[Q],        &l->qkv[K],      &l->qkv[V], &l->o,
                                          &l->gate_up[GATE], &l->gate_up[UP], &l->down,   &l->swiglu};
        for (size_t j = 0; j < ARRAY_LEN(norms); j++)
            norm_release(norms[j]);
        for (size_t j = 0; j < ARRAY_LEN(linears); j++)
            linear_release(linears[j]);
        free(l->c8);
        free(l->c8_data);
    }
    free(m->layers);
    norm_release(&m->norm);
    linear_release(&m->lm_head);
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        rope_release(&m->rope[i]);
    free(m);
}
