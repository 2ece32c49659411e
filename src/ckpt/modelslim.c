/* ModelSlim checkpoints: see modelslim.h. Formulas and layouts are those its savers write; the type is looked up for
 * each linear, because model_quant_type is only a summary. */
#include "ckpt/modelslim.h"

#include "base/log.h"
#include "base/mem.h"
#include "ckpt/values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the whole model ---- */

static int refuse(const char *what, const char *key, const char *found, struct octavo_error *err)
{
    return error_set_param(err, OCTAVO_EUNSUPPORTED, key, "%s: %s (%.100s) is not supported", what, key, found);
}

/* A string; absent, null, "" and FLOAT count as none. */
static int summary_string(const json_t *d, const char *what, const char *key, const char **ret,
                          struct octavo_error *err)
{
    *ret = NULL;
    int r = json_get_string(d, what, key, ret, err);
    if (r == 0 && *ret && (!**ret || !strcmp(*ret, "FLOAT")))
        *ret = NULL;
    return r;
}

/* metadata.quarot lists the layers whose inputs are rotated at run time. Empty lists rotate nothing. */
static int quarot_check(const json_t *d, const char *what, struct octavo_error *err)
{
    static const char *const keys[] = {"heads_rotation", "kronecker_rotation"};
    const json_t *quarot = json_object_get(json_object_get(d, "metadata"), "quarot");
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *v = json_object_get(quarot, keys[i]), *layers = json_object_get(v, "layers");
        if (v && !json_is_null(v) && !(json_is_array(layers) && !json_array_size(layers)))
            return error_set_param(err, OCTAVO_EUNSUPPORTED, keys[i],
                                   "%s: metadata.quarot.%s (online QuaRot: inputs rotated at run time) is not "
                                   "supported; quantise again with offline rotation only",
                                   what, keys[i]);
    }
    return 0;
}

static int cache_check(const json_t *d, const char *what, bool *ret_c8, struct octavo_error *err)
{
    const char *kv, *old;
    int r = summary_string(d, what, "kv_cache_type", &kv, err);
    if (r < 0 || (r = summary_string(d, what, "kv_quant_type", &old, err)) < 0)
        return r;
    if (kv && strcmp(kv, "C8"))
        return refuse(what, "kv_cache_type", kv, err);
    if (old && strcmp(old, "C8"))
        return refuse(what, "kv_quant_type", old, err);
    if (old && !kv)
        log_warning("%s: it has kv_quant_type but no kv_cache_type; the cache is taken to be C8", what);
    *ret_c8 = kv || old;
    return 0;
}

int modelslim_check(const json_t *d, const char *what, bool *ret_c8, struct octavo_error *err)
{
    static const char *const refused[] = {"fa_quant_type", "indexer_quant_type"};
    if (!json_is_object(d))
        return error_set(err, OCTAVO_EINVAL, "%s must hold a JSON object of tensor names and types", what);
    int r = cache_check(d, what, ret_c8, err);
    for (size_t i = 0; i < ARRAY_LEN(refused) && r == 0; i++) {
        const char *s;
        r = summary_string(d, what, refused[i], &s, err);
        if (r == 0 && s)
            r = refuse(what, refused[i], s, err);
    }
    return r < 0 ? r : quarot_check(d, what, err);
}

/* ---- parts of a linear ---- */

/* What resolving one module needs at hand. */
struct slim {
    struct tensor_source *src;
    const char *module, *kind;
    int n, k;
    struct linear_entry *l;
    struct octavo_error *err;
};

static void know(const struct slim *s, const char *suffix)
{
    source_know(s->src, source_find(s->src, s->module, suffix));
}

static bool weight_is(const struct slim *s, int64_t rows, int64_t columns)
{
    const struct tensor *t = s->l->spec.weight;
    return t->num_dims == 2 && t->shape[0] == rows && t->shape[1] == columns;
}

static int weight_int8(const struct slim *s)
{
    if (!weight_is(s, s->n, s->k))
        return linear_weight_error(s->l->spec.weight, s->kind, s->n, s->k, s->err);
    s->l->packing = PACKED_INT8;
    s->l->spec.bits = 8;
    return 0;
}

/* Two integers a byte, along either side, or one a byte: the shape tells. */
static int weight_int4(const struct slim *s)
{
    s->l->spec.bits = 4;
    if (weight_is(s, s->n, s->k))
        return weight_int8(s);
    if (s->n % 2 == 0 && weight_is(s, s->n / 2, s->k))
        s->l->packing = PACKED_PAIR_ROWS;
    else if (s->k % 2 == 0 && weight_is(s, s->n, s->k / 2))
        s->l->packing = PACKED_PAIR_ALONG;
    else
        return linear_weight_error(s->l->spec.weight, s->kind, s->n, s->k, s->err);
    return 0;
}

static int weight_scale(const struct slim *s, int groups)
{
    int r = source_require(s->src, s->module, "weight_scale", s->kind, &s->l->scale, s->err);
    if (r < 0 || (!groups && (r = linear_groups_of(s->l->scale, s->n, s->k, &groups, s->err)) < 0))
        return r;
    s->l->spec.group_size = s->k / groups;
    source_use(s->src, s->l->scale);
    return scale_check(s->l->scale, s->n, groups, s->err);
}

/* Kinds that are symmetric by definition carry an offset of zeros. */
static int weight_offset_zero(const struct slim *s)
{
    const struct tensor *t = source_find(s->src, s->module, "weight_offset");
    bool any = false;
    int r = t ? offset_check(t, s->n, 1, &any, s->err) : 0;
    if (r == 0 && any)
        r = error_set(s->err, OCTAVO_EUNSUPPORTED,
                      "tensor %s in %s is not zero, but %s is symmetric: such weights are not supported", t->name,
                      t->file, s->kind);
    source_know(s->src, t);
    return r;
}

static int weight_offset(const struct slim *s)
{
    const struct tensor *t = source_find(s->src, s->module, "weight_offset");
    int r = t ? offset_check(t, s->n, s->k / s->l->spec.group_size, &s->l->spec.has_zero, s->err) : 0;
    if (s->l->spec.has_zero)
        source_use(s->src, s->l->zero = t);
    source_know(s->src, t);
    return r;
}

/* One value, whatever its shape. */
static int scalar(const struct slim *s, const char *suffix, bool scale, float *ret)
{
    const struct tensor *t;
    bool any;
    int r = source_require(s->src, s->module, suffix, s->kind, &t, s->err);
    if (r < 0 || (r = scale ? scale_check(t, 1, 1, s->err) : offset_check(t, 1, 1, &any, s->err)) < 0)
        return r;
    source_use(s->src, t);
    *ret = tensor_value(t, 0);
    return 0;
}

static int deq_scale_check(const struct slim *s)
{
    const struct tensor *t = s->l->deq_scale;
    int32_t *bias = mem_try_array((size_t)s->n, sizeof(*bias));
    float *deq = mem_try_array((size_t)s->n, sizeof(*deq));
    int r = 0;
    if (!bias || !deq)
        r = error_set(s->err, OCTAVO_ENOMEM, "no memory to check %s", t->name);
    else
        linear_folded(s->l, bias, deq);
    for (int i = 0; i < s->n && r == 0; i++)
        if (!(deq[i] > 0) || !isfinite(deq[i]))
            r = error_set(s->err, OCTAVO_EINVAL,
                          "tensor %s in %s: element %d is %g, but a scale must be positive and finite; the checkpoint "
                          "is damaged",
                          t->name, t->file, i, (double)deq[i]);
    free(bias);
    free(deq);
    return r;
}

static int typed_check(const struct slim *s, const struct tensor *t, bool type_ok, const char *types)
{
    if (!type_ok)
        return error_set(s->err, OCTAVO_EUNSUPPORTED, "tensor %s in %s is %s, but must be %s", t->name, t->file,
                         dtype_name(t->dtype), types);
    char found[200];
    shape_format(found, t->num_dims, t->shape);
    return shape_is(t, s->n, 1) ? 0
                                : error_set(s->err, OCTAVO_EINVAL, "tensor %s in %s has the shape %s, but must be (%d)",
                                            t->name, t->file, found, s->n);
}

/* ---- kinds ---- */

/* The bias and the offset's share of the sum are within quant_bias. */
static int w8a8_static(const struct slim *s)
{
    struct linear_entry *l = s->l;
    int r = weight_int8(s);
    if (r < 0 || (r = scalar(s, "input_scale", true, &l->spec.input_scale)) < 0 ||
        (r = scalar(s, "input_offset", false, &l->spec.input_offset)) < 0 ||
        (r = source_require(s->src, s->module, "quant_bias", s->kind, &l->quant_bias, s->err)) < 0 ||
        (r = typed_check(s, l->quant_bias, l->quant_bias->dtype == DTYPE_I32, "I32")) < 0 ||
        (r = source_require(s->src, s->module, "deq_scale", s->kind, &l->deq_scale, s->err)) < 0 ||
        (r = typed_check(s, l->deq_scale, l->deq_scale->dtype == DTYPE_F32 || l->deq_scale->dtype == DTYPE_I64,
                         "F32, or I64 with the bits of a float32")) < 0)
        return r;
    if (!(fabsf(l->spec.input_offset) <= 128))
        return error_set(s->err, OCTAVO_EINVAL,
                         "tensor %s.input_offset is %g, but must be between -128 and 128; the checkpoint is damaged",
                         s->module, (double)l->spec.input_offset);
    source_use(s->src, l->quant_bias);
    source_use(s->src, l->deq_scale);
    know(s, "weight_scale");
    l->spec.folded = true;
    l->spec.activation = ACTIVATION_INT8_STATIC;
    if ((r = deq_scale_check(s)) < 0 || (r = weight_offset_zero(s)) < 0)
        return r;
    return linear_int8_check(l, l->spec.weight, s->err);
}

static int w8a8_dynamic(const struct slim *s)
{
    int r = weight_int8(s);
    s->l->spec.activation = ACTIVATION_INT8_DYNAMIC;
    if (r < 0 || (r = weight_scale(s, 1)) < 0 || (r = weight_offset_zero(s)) < 0)
        return r;
    return linear_int8_check(s->l, s->l->spec.weight, s->err);
}

/* Static for decoding instances, dynamic for the others: one that does both runs dynamic. */
static int w8a8_mix(const struct slim *s)
{
    static const char *const of_static[] = {"input_scale", "input_offset", "quant_bias", "deq_scale"};
    for (size_t i = 0; i < ARRAY_LEN(of_static); i++)
        know(s, of_static[i]);
    return w8a8_dynamic(s);
}

static int w8a16(const struct slim *s)
{
    int r = weight_int8(s);
    return r < 0 || (r = weight_scale(s, 0)) < 0 ? r : weight_offset(s);
}

static int w4a16(const struct slim *s)
{
    int r = weight_int4(s);
    return r < 0 || (r = weight_scale(s, 0)) < 0 ? r : weight_offset(s);
}

/* scale_bias serves hardware that splits activations into nibbles; a plain integer product must leave it out. */
static int w4a8_dynamic(const struct slim *s)
{
    static const char *const staged[] = {"weight_scale_second", "weight_offset_second"};
    for (size_t i = 0; i < ARRAY_LEN(staged); i++) {
        const struct tensor *t = source_find(s->src, s->module, staged[i]);
        if (t)
            return error_set(s->err, OCTAVO_EUNSUPPORTED,
                             "tensor %s in %s: W4A8_DYNAMIC with a second scale per group is not supported; quantise "
                             "per channel",
                             t->name, t->file);
    }
    int r = weight_int4(s);
    s->l->spec.activation = ACTIVATION_INT8_DYNAMIC;
    know(s, "scale_bias");
    if (r < 0 || (r = weight_scale(s, 1)) < 0 || (r = weight_offset_zero(s)) < 0)
        return r;
    return linear_int8_check(s->l, s->l->spec.weight, s->err);
}

static const struct {
    const char *name;
    int (*resolve)(const struct slim *s);
} kinds[] = {
    {"W8A8", w8a8_static}, {"W8A8_DYNAMIC", w8a8_dynamic}, {"W8A8_MIX", w8a8_mix}, {"W8A16", w8a16},
    {"W4A16", w4a16},      {"W4A8_DYNAMIC", w4a8_dynamic},
};

static int kind_find(const json_t *d, const char *what, const char *module, const struct tensor *weight,
                     const char **ret, struct octavo_error *err)
{
    char key[160];
    snprintf(key, sizeof(key), "%s.weight", module);
    const json_t *v = json_object_get(d, key);
    bool is_float = dtype_is_float(weight->dtype);
    if (!v && !is_float)
        return error_set(err, OCTAVO_EINVAL, "%s has no entry for %s, which is %s in %s; quantise the model again",
                         what, key, dtype_name(weight->dtype), weight->file);
    if (v && !json_is_string(v))
        return error_set(err, OCTAVO_EINVAL, "%s: the type of %s must be a string", what, key);
    *ret = v ? json_string_value(v) : "FLOAT";
    bool says_float = !strcmp(*ret, "FLOAT");
    if (says_float == is_float)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        says_float |= !strcmp(*ret, kinds[i].name);
    if (!says_float)
        return 0; /* an unknown word is refused as such */
    return error_set(err, OCTAVO_EINVAL, "%s says that %s is %s, but it is %s in %s; the two do not belong together",
                     what, key, *ret, dtype_name(weight->dtype), weight->file);
}

int modelslim_linear(struct tensor_source *src, const json_t *d, const char *what, const char *module, int n, int k,
                     struct linear_entry *ret, struct octavo_error *err)
{
    const struct tensor *weight;
    const char *kind = NULL;
    int r = source_require(src, module, "weight", "any ModelSlim type", &weight, err);
    if (r < 0 || (r = kind_find(d, what, module, weight, &kind, err)) < 0)
        return r;
    linear_entry_init(ret, kind, n, k);
    if (!strcmp(kind, "FLOAT"))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kind, kinds[i].name))
            continue;
        if (weight->dtype != DTYPE_I8)
            return linear_weight_error(weight, kind, n, k, err);
        ret->spec.weight = weight;
        ret->spec.quantised = true;
        source_use(src, weight);
        return kinds[i].resolve(&(struct slim){src, module, kind, n, k, ret, err});
    }
    return error_set_param(err, OCTAVO_EUNSUPPORTED, "quantization",
                           "%s: %s.weight has the type %.60s, which is not supported; supported: FLOAT, W8A8, "
                           "W8A8_DYNAMIC, W8A8_MIX, W8A16, W4A16, W4A8_DYNAMIC",
                           what, module, kind);
}

/* ---- what must not be passed over ---- */

static bool kind_known(const char *kind)
{
    bool known = !strcmp(kind, "FLOAT") || !strcmp(kind, "C8");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        known |= !strcmp(kind, kinds[i].name);
    return known;
}

int modelslim_layers_check(const struct tensor_source *src, const json_t *d, const char *what, struct octavo_error *err)
{
    char key[96];
    for (int i = 0; i < src->config->num_hidden_layers; i++) {
        snprintf(key, sizeof(key), "model.layers.%d.self_attn.quant_type", i);
        const char *kind = json_string_value(json_object_get(d, key));
        if (kind && !kind_known(kind))
            return refuse(what, key, kind, err);
    }
    return 0;
}
