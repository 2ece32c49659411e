/* What `octavo inspect` counts: see inspect_summary.h. */
#include "cli/inspect_summary.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static uint64_t tensor_elements(const struct tensor *t)
{
    return (uint64_t)t->bytes * 8 / (uint64_t)dtype_bits(t->dtype);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

/* ---- linears ---- */

static void count_kind(struct summary *s, const char *kind)
{
    size_t i = 0;
    while (i < s->num_kinds && strcmp(s->kinds[i].name, kind))
        i++;
    if (i == SUMMARY_MAX_KINDS)
        return;
    if (i == s->num_kinds)
        snprintf(s->kinds[s->num_kinds++].name, sizeof(s->kinds[i].name), "%s", kind);
    s->kinds[i].count++;
}

static uint64_t linear_bytes(const struct linear_spec *l)
{
    if (!l->quantised)
        return l->weight->bytes;
    uint64_t n = (uint64_t)l->n, k = (uint64_t)l->k, groups = k / (uint64_t)l->group_size;
    uint64_t each = l->folded ? sizeof(int32_t) + sizeof(float) : sizeof(float) * groups * (l->has_zero ? 2 : 1);
    return n * ((k * (uint64_t)l->bits + 7) / 8 + each);
}

static void count_linear(const struct checkpoint *c, const char *module, bool tied, struct summary *s)
{
    struct linear_spec l;
    checkpoint_linear(c, module, &l);
    s->packed_bytes += linear_bytes(&l);
    if (tied)
        return;
    count_kind(s, l.kind);
    s->num_params += (uint64_t)l.n * (uint64_t)l.k + (l.bias ? tensor_elements(l.bias) : 0);
}

static void count_linears(const struct checkpoint *c, struct summary *s)
{
    static const char *const modules[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                          "mlp.down_proj"};
    char name[96];
    for (int i = 0; i < checkpoint_config(c)->num_hidden_layers; i++)
        for (size_t j = 0; j < ARRAY_LEN(modules); j++) {
            snprintf(name, sizeof(name), "model.layers.%d.%s", i, modules[j]);
            count_linear(c, name, false, s);
        }
    struct linear_spec head;
    checkpoint_linear(c, "lm_head", &head);
    s->tied = head.weight == checkpoint_find(c, "model.embed_tokens.weight");
    count_linear(c, "lm_head", s->tied, s);
}

/* ---- the cache ---- */

bool summary_layer_int8(const struct checkpoint *c, int layer)
{
    return checkpoint_kv_scales(c, layer) != NULL;
}

bool summary_layer_asymmetric(const struct checkpoint *c, int layer)
{
    const struct kv_scales *kv = checkpoint_kv_scales(c, layer);
    const struct model_config *config = checkpoint_config(c);
    for (int i = 0; kv && i < config->num_key_value_heads * config->head_dim; i++)
        if (kv->k_offset[i] != 0 || kv->v_offset[i] != 0)
            return true;
    return false;
}

void summary_layers(const struct checkpoint *c, bool (*is)(const struct checkpoint *, int), bool every, struct buf *out)
{
    const char *sep = "";
    int n = checkpoint_config(c)->num_hidden_layers;
    for (int i = 0; i < n; i++) {
        int first = i;
        if (!is(c, i))
            continue;
        while (!every && i + 1 < n && is(c, i + 1))
            i++;
        buf_printf(out, "%s%d", sep, first);
        if (i > first)
            buf_printf(out, "-%d", i);
        sep = ", ";
    }
}

/* ---- the whole ---- */

void summary_count(const struct checkpoint *c, struct summary *s)
{
    for (size_t i = 0; i < checkpoint_num_tensors(c); i++) {
        const struct tensor *t = checkpoint_tensor(c, i);
        struct by_type *b = &s->types[t->dtype];
        b->count++;
        b->elements += tensor_elements(t);
        b->bytes += t->bytes;
        bool embedding = !strcmp(t->name, "model.embed_tokens.weight");
        if (embedding)
            s->embedding_bytes = t->bytes;
        if (embedding || ends_with(t->name, "norm.weight") || ends_with(t->name, "norm.bias"))
            s->num_params += tensor_elements(t);
    }
    for (size_t i = 0; i < checkpoint_num_unused(c); i++)
        s->unused_bytes += checkpoint_unused(c, i)->bytes;
    count_linears(c, s);
    for (int i = 0; i < checkpoint_config(c)->num_hidden_layers; i++) {
        s->num_int8_layers += summary_layer_int8(c, i);
        s->num_asymmetric_layers += summary_layer_asymmetric(c, i);
    }
}
