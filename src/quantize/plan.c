/* What is written, and from what: see plan.h. */
#include "quantize/plan.h"

#include "base/mem.h"
#include "quantize/calibrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "lm_head.weight"
/* scale_bias of a linear that is split along its inputs comes in 16 parts, for as many devices. */
#define INPUT_SPLITS 16

static const char *const module_names[NUM_LAYER_LINEARS] = {
    [ERROR_Q] = "self_attn.q_proj", [ERROR_K] = "self_attn.k_proj", [ERROR_V] = "self_attn.v_proj",
    [ERROR_O] = "self_attn.o_proj", [ERROR_GATE] = "mlp.gate_proj", [ERROR_UP] = "mlp.up_proj",
    [ERROR_DOWN] = "mlp.down_proj",
};

static const struct {
    const char *name;
    enum input_set set;
} norm_names[] = {{"input_layernorm", INPUT_QKV}, {"post_attention_layernorm", INPUT_GATE_UP}};

const char *weights_type(enum quantize_weights w)
{
    static const char *const types[] = {
        [WEIGHTS_W8A8] = "W8A8_DYNAMIC",
        [WEIGHTS_W8A16] = "W8A16",
        [WEIGHTS_W4A8] = "W4A8_DYNAMIC",
        [WEIGHTS_FLOAT] = "FLOAT",
    };
    return types[w];
}

struct planner {
    const struct checkpoint *ckpt;
    const struct quantize_options *opts;
    struct writer *w;
    struct plan *plan;
};

/* The part of a layer's tensor name after "model.layers.N.", or NULL. */
static const char *split_layer(const char *name, int *ret_layer)
{
    int end = 0;
    *ret_layer = -1;
    if (sscanf(name, "model.layers.%d.%n", ret_layer, &end) != 1 || !end) {
        *ret_layer = -1;
        return NULL;
    }
    return name + end;
}

static bool begins(const char *name, const char *module)
{
    size_t len = strlen(module);
    return !strncmp(name, module, len) && name[len] == '.';
}

static int add_beside(const struct planner *p, const struct plan_item *item, const char *suffix, int columns,
                      const char *type)
{
    char name[128];
    snprintf(name, sizeof(name), "%.*s%s", (int)strlen(item->name) - (int)strlen("weight"), item->name, suffix);
    return writer_add(p->w, name, DTYPE_F32, 2, (int64_t[]){item->src->shape[0], columns}, type);
}

static void linear_add(const struct planner *p, struct plan_item *item)
{
    const struct tensor *t = item->src;
    const char *type = weights_type(item->weights);
    int64_t n = t->shape[0], k = t->shape[1];
    if (item->weights == WEIGHTS_FLOAT) {
        item->out = writer_add(p->w, item->name, t->dtype, 2, t->shape, type);
        return;
    }
    int64_t rows = item->weights == WEIGHTS_W4A8 ? n / 2 : n;
    item->out = writer_add(p->w, item->name, DTYPE_I8, 2, (int64_t[]){rows, k}, type);
    item->scale = add_beside(p, item, "weight_scale", 1, type);
    item->offset = add_beside(p, item, "weight_offset", 1, type);
    if (item->weights != WEIGHTS_W4A8)
        return;
    bool split = item->module == ERROR_O || item->module == ERROR_DOWN;
    item->chunks = split && k % INPUT_SPLITS == 0 ? INPUT_SPLITS : 1;
    item->scale_bias = add_beside(p, item, "scale_bias", item->chunks, type);
}

/* Four bits come in pairs of rows; an odd number of rows stays at eight. */
static enum quantize_weights weights_of(const struct planner *p, const struct plan_item *item)
{
    enum quantize_weights w = item->is_head ? p->opts->lm_head_w8a8 ? WEIGHTS_W8A8 : WEIGHTS_FLOAT : p->opts->weights;
    return w == WEIGHTS_W4A8 && item->src->shape[0] % 2 ? WEIGHTS_W8A8 : w;
}

static void item_add(const struct planner *p, enum arch_role role, const char *name, const struct tensor *src)
{
    struct plan_item *item = &p->plan->items[p->plan->num_items++];
    *item = (struct plan_item){.src = src, .module = -1, .scale = -1, .offset = -1, .scale_bias = -1};
    snprintf(item->name, sizeof(item->name), "%s", name);
    item->is_head = !strcmp(name, HEAD);
    const char *rest = split_layer(name, &item->layer);
    for (int m = 0; rest && m < NUM_LAYER_LINEARS; m++)
        if (begins(rest, module_names[m]))
            item->module = m;
    for (size_t i = 0; rest && role == ARCH_NORM && i < ARRAY_LEN(norm_names); i++)
        if (begins(rest, norm_names[i].name))
            item->module = (int)norm_names[i].set;
    if (role == ARCH_LINEAR) {
        item->kind = ITEM_LINEAR;
        item->weights = weights_of(p, item);
        linear_add(p, item);
        return;
    }
    item->kind = role == ARCH_NORM ? ITEM_NORM : role == ARCH_BIAS ? ITEM_BIAS : ITEM_COPY;
    item->weights = role == ARCH_BIAS ? p->opts->weights : WEIGHTS_FLOAT;
    /* beside quantised weights, biases are float32 */
    bool wide = role == ARCH_BIAS && item->weights != WEIGHTS_FLOAT;
    item->out = writer_add(p->w, name, wide ? DTYPE_F32 : src->dtype, src->num_dims, src->shape, "FLOAT");
}

static void kv_add(const struct planner *p, int layers)
{
    static const char *const parts[4] = {"k_proj.kv_cache_scale", "k_proj.kv_cache_offset", "v_proj.kv_cache_scale",
                                         "v_proj.kv_cache_offset"};
    const struct model_config *c = checkpoint_config(p->ckpt);
    const int64_t n = (int64_t)c->num_key_value_heads * c->head_dim;
    p->plan->kv = mem_calloc((size_t)layers, sizeof(*p->plan->kv));
    for (int i = 0; i < layers; i++)
        for (int j = 0; j < 4; j++) {
            char name[128];
            snprintf(name, sizeof(name), "model.layers.%d.self_attn.%s", i, parts[j]);
            p->plan->kv[i].out[j] = writer_add(p->w, name, DTYPE_F32, 1, &n, "C8");
        }
}

void plan_make(const struct checkpoint *ckpt, const struct quantize_options *opts, struct writer *w, struct plan *ret)
{
    const struct model_config *c = checkpoint_config(ckpt);
    const struct planner p = {ckpt, opts, w, ret};
    size_t n = arch_num_tensors(c);
    *ret = (struct plan){.items = mem_calloc(2 * n, sizeof(*ret->items))};
    for (size_t i = 0; i < n; i++) {
        struct arch_tensor a;
        arch_tensor_at(c, i, &a);
        const struct tensor *t = checkpoint_find(ckpt, a.name);
        /* Readers of the format expect an output layer of its own, tied or not. */
        if (!t && !strcmp(a.name, HEAD))
            t = checkpoint_find(ckpt, "model.embed_tokens.weight");
        if (!t)
            continue;
        item_add(&p, a.role, a.name, t);
        if (a.role != ARCH_NORM)
            continue;
        char module[96];
        snprintf(module, sizeof(module), "%.*s", (int)strlen(a.name) - (int)strlen(".weight"), a.name);
        const struct tensor *bias = checkpoint_norm_bias(ckpt, module);
        if (bias)
            item_add(&p, ARCH_NORM, bias->name, bias);
    }
    if (opts->kv_c8)
        kv_add(&p, c->num_hidden_layers);
}

void plan_release(struct plan *p)
{
    free(p->items);
    free(p->kv);
    *p = (struct plan){0};
}
