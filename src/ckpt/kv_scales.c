/* Static scales of the INT8 cache: see kv_scales.h. Whatever shape they have (one value, one a head, one a channel),
 * they are given out one a channel. */
#include "ckpt/kv_scales.h"

#include "base/log.h"
#include "base/mem.h"
#include "ckpt/compressed.h"
#include "ckpt/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kv_reader {
    struct tensor_source *src;
    const struct quant *q;
    int heads, head_dim;
    struct octavo_error *err;
};

enum kv_shape { KV_ONE = 1, KV_HEADS = 2, KV_CHANNELS = 4 };

/* The shapes that t may have, or 0. */
static unsigned shape_of(const struct kv_reader *rd, const struct tensor *t)
{
    int64_t h = rd->heads, d = rd->head_dim;
    return (shape_is(t, 1, 1) ? KV_ONE : 0) | (shape_is(t, h, 1) ? KV_HEADS : 0) |
           (shape_is(t, h, d) || shape_is(t, h * d, 1) ? KV_CHANNELS : 0);
}

static int expand(const struct kv_reader *rd, const struct tensor *t, unsigned allowed, bool scale, float *out)
{
    bool any;
    if (!(shape_of(rd, t) & allowed)) {
        char found[200], one[40] = "", heads[40] = "", channels[40] = "";
        shape_format(found, t->num_dims, t->shape);
        if (allowed & KV_ONE)
            snprintf(one, sizeof(one), " (1)");
        if (allowed & KV_HEADS)
            snprintf(heads, sizeof(heads), " (%d)", rd->heads);
        if (allowed & KV_CHANNELS)
            snprintf(channels, sizeof(channels), " (%d)", rd->heads * rd->head_dim);
        return error_set(rd->err, OCTAVO_EINVAL, "tensor %s in %s has the shape %s, but may be only%s%s%s", t->name,
                         t->file, found, one, heads, channels);
    }
    int r = scale ? scale_values_check(t, rd->err) : offset_values_check(t, &any, rd->err);
    if (r < 0)
        return r;
    size_t n = (size_t)rd->heads * (size_t)rd->head_dim, each = n / tensor_count(t);
    for (size_t i = 0; i < n; i++)
        out[i] = tensor_value(t, i / each);
    source_use(rd->src, t);
    return 0;
}

static int side_fill(const struct kv_reader *rd, const struct tensor *scale, const struct tensor *offset,
                     unsigned allowed, float **ret_scale, float **ret_offset)
{
    size_t n = (size_t)rd->heads * (size_t)rd->head_dim;
    *ret_scale = mem_calloc(n, sizeof(float));
    *ret_offset = mem_calloc(n, sizeof(float));
    int r = expand(rd, scale, allowed, true, *ret_scale);
    if (r == 0 && offset)
        r = expand(rd, offset, allowed, false, *ret_offset);
    return r;
}

static int missing(const struct kv_reader *rd, int layer, const char *name, const char *why)
{
    return error_set(rd->err, OCTAVO_EINVAL, "%s: tensor model.layers.%d.self_attn.%s is missing: %s", rd->src->dir,
                     layer, name, why);
}

static const struct tensor *find(const struct kv_reader *rd, int layer, const char *name)
{
    char module[96];
    snprintf(module, sizeof(module), "model.layers.%d.self_attn", layer);
    return source_find(rd->src, module, name);
}

/* ---- ModelSlim ---- */

static const json_t *described(const struct kv_reader *rd, int layer, const char *name)
{
    char key[128];
    snprintf(key, sizeof(key), "model.layers.%d.self_attn.%s", layer, name);
    return json_object_get(rd->q->description, key);
}

/* A layer has scales in the files, or the description says that it should. */
static int slim_layer(const struct kv_reader *rd, int layer, struct kv_scales *ret, bool *ret_old)
{
    static const char *const names[] = {"k_proj.kv_cache_scale", "v_proj.kv_cache_scale"};
    const struct tensor *t[2];
    const json_t *type[2];
    for (int i = 0; i < 2; i++) {
        t[i] = find(rd, layer, names[i]);
        type[i] = described(rd, layer, names[i]);
    }
    if (!t[0] && !t[1] && !type[0] && !type[1])
        return 0;
    for (int i = 0; i < 2; i++)
        if (!t[i])
            return missing(rd, layer, names[i], "the cache of this layer is C8, which needs scales for K and for V");
    if (json_is_string(type[0]) && strcmp(json_string_value(type[0]), "C8"))
        *ret_old = true;
    const unsigned any = KV_ONE | KV_HEADS | KV_CHANNELS;
    int r = side_fill(rd, t[0], find(rd, layer, "k_proj.kv_cache_offset"), any, &ret->k_scale, &ret->k_offset);
    return r < 0 ? r
                 : side_fill(rd, t[1], find(rd, layer, "v_proj.kv_cache_offset"), any, &ret->v_scale, &ret->v_offset);
}

static int slim_load(const struct kv_reader *rd, struct kv_scales *ret)
{
    int num_layers = rd->src->config->num_hidden_layers, found = 0;
    bool old = false;
    for (int i = 0; i < num_layers; i++) {
        int r = slim_layer(rd, i, &ret[i], &old);
        if (r < 0)
            return r;
        found += ret[i].k_scale != NULL;
    }
    if (!found)
        return error_set(rd->err, OCTAVO_EINVAL,
                         "%s says that the cache is C8, but no layer has k_proj.kv_cache_scale; quantise the model "
                         "again, or take kv_cache_type out",
                         rd->q->path);
    if (old)
        log_warning(
            "%s: an old tool wrote these cache scales; such tools measured K before the rotary embedding, which "
            "clips. Quantise again if the answers are poor",
            rd->q->path);
    return 0;
}

/* Scales that the description does not turn on. */
static void slim_warn(const struct kv_reader *rd)
{
    for (int i = 0; i < rd->src->config->num_hidden_layers; i++) {
        if (find(rd, i, "k_proj.kv_cache_scale")) {
            log_warning("%s has no kv_cache_type: the cache scales of the checkpoint are left aside", rd->q->path);
            return;
        }
    }
}

/* ---- compressed-tensors ---- */

/* Names that writers have used, newest first; kv_scale serves both sides. */
static const struct {
    const char *k_scale, *v_scale, *k_zero, *v_zero;
} ct_names[] = {
    {"k_scale", "v_scale", "k_zero_point", "v_zero_point"},
    {"k_proj.output_scale", "v_proj.output_scale", "k_proj.output_zero_point", "v_proj.output_zero_point"},
    {"k_proj.k_scale", "v_proj.v_scale", "k_proj.k_zero_point", "v_proj.v_zero_point"},
    {"k_proj.kv_cache_scale", "v_proj.kv_cache_scale", "k_proj.kv_cache_offset", "v_proj.kv_cache_offset"},
    {"kv_scale", "kv_scale", "kv_zero_point", "kv_zero_point"},
};

static int ct_layer_ignored(const struct kv_reader *rd, int layer, bool *ret)
{
    char module[96];
    snprintf(module, sizeof(module), "model.layers.%d.self_attn", layer);
    return ct_config_ignores(rd->q->compressed, module, ct_attention_class(rd->src->config->family), ret, rd->err);
}

static int ct_layer(const struct kv_reader *rd, int layer, struct kv_scales *ret)
{
    const struct ct_args *a = &rd->q->compressed->kv_cache;
    unsigned allowed = a->strategy == CT_TENSOR ? KV_ONE : a->strategy == CT_ATTN_HEAD ? KV_HEADS : KV_CHANNELS;
    for (size_t i = 0; i < ARRAY_LEN(ct_names); i++) {
        const struct tensor *k = find(rd, layer, ct_names[i].k_scale), *v = find(rd, layer, ct_names[i].v_scale);
        const struct tensor *kz = find(rd, layer, ct_names[i].k_zero), *vz = find(rd, layer, ct_names[i].v_zero);
        static const char why[] = "kv_cache_scheme needs scales for K and for V";
        static const char why_zero[] = "kv_cache_scheme is not symmetric";
        if (!k && !v)
            continue;
        if (!k || !v)
            return missing(rd, layer, k ? ct_names[i].v_scale : ct_names[i].k_scale, why);
        if (!a->symmetric && (!kz || !vz))
            return missing(rd, layer, kz ? ct_names[i].v_zero : ct_names[i].k_zero, why_zero);
        int r = side_fill(rd, k, kz, allowed, &ret->k_scale, &ret->k_offset);
        return r < 0 ? r : side_fill(rd, v, vz, allowed, &ret->v_scale, &ret->v_offset);
    }
    bool ignored;
    int r = ct_layer_ignored(rd, layer, &ignored);
    if (r < 0 || ignored)
        return r;
    return missing(rd, layer, ct_names[0].k_scale, "kv_cache_scheme needs scales for K and for V");
}

int kv_scales_load(struct tensor_source *src, const struct quant *q, struct kv_scales *ret, struct octavo_error *err)
{
    const struct kv_reader rd = {src, q, src->config->num_key_value_heads, src->config->head_dim, err};
    int r = 0;
    if (q->format == QUANT_MODELSLIM) {
        if (q->c8)
            return slim_load(&rd, ret);
        slim_warn(&rd);
    } else if (q->format == QUANT_COMPRESSED && q->compressed->kv_cache.present) {
        for (int i = 0; i < src->config->num_hidden_layers && r == 0; i++)
            r = ct_layer(&rd, i, &ret[i]);
    }
    return r;
}

void kv_scales_release(struct kv_scales *s)
{
    free(s->k_scale);
    free(s->k_offset);
    free(s->v_scale);
    free(s->v_offset);
    *s = (struct kv_scales){0};
}
