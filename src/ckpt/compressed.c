/* Linears of compressed-tensors checkpoints: see compressed.h. */
#include "ckpt/compressed.h"

#include "base/mem.h"
#include "ckpt/values.h"

#include <stdio.h>
#include <string.h>

/* What resolving one module needs at hand. */
struct ct {
    struct tensor_source *src;
    const struct ct_group *group;
    const char *module;
    int n, k;
    struct linear_entry *l;
    struct octavo_error *err;
};

static int refuse(const struct ct *s, const char *what)
{
    return error_set_param(
        s->err, OCTAVO_EUNSUPPORTED, "quantization_config",
        "quantization_config: the group \"%.60s\", which %s belongs to, has %s: that is not supported", s->group->name,
        s->module, what);
}

static const struct tensor *find(const struct ct *s, const char *suffix)
{
    return source_find(s->src, s->module, suffix);
}

static void know(const struct ct *s, const char *suffix)
{
    source_know(s->src, find(s, suffix));
}

/* ---- what the group asks for ---- */

static int activation_check(const struct ct *s)
{
    const struct ct_args *a = &s->group->input, *w = &s->group->weights;
    struct linear_spec *spec = &s->l->spec;
    if (!a->present)
        return 0;
    if (a->num_bits != 8)
        return refuse(s, "input_activations of other than 8 bits");
    if (w->strategy == CT_GROUP)
        return refuse(s, "weights in groups and quantised input_activations");
    if (a->dynamic) {
        if (a->has_strategy && a->strategy != CT_TOKEN)
            return refuse(s, "dynamic input_activations of a strategy other than token");
        spec->activation = a->symmetric ? ACTIVATION_INT8_DYNAMIC : ACTIVATION_INT8_DYNAMIC_ASYM;
        return 0;
    }
    if (a->strategy != CT_TENSOR)
        return refuse(s, "static input_activations of a strategy other than tensor");
    spec->activation = ACTIVATION_INT8_STATIC;
    return 0;
}

static int weights_check(const struct ct *s)
{
    const struct ct_args *w = &s->group->weights;
    if (s->group->output)
        return refuse(s, "output_activations");
    if (!w->present)
        return refuse(s, "input_activations without quantised weights");
    if (w->dynamic)
        return refuse(s, "dynamic weights");
    if (w->strategy != CT_TENSOR && w->strategy != CT_CHANNEL && w->strategy != CT_GROUP)
        return refuse(s, "weights of a strategy other than tensor, channel or group");
    if (w->strategy == CT_GROUP && w->group_size <= 0)
        return refuse(s, "weights in groups without a group_size");
    if (s->group->format == CT_DENSE)
        return refuse(s, "the format dense, in which weights are not stored quantised");
    return activation_check(s);
}

static void kind_format(const struct ct *s)
{
    const struct ct_args *w = &s->group->weights, *a = &s->group->input;
    snprintf(s->l->spec.kind, sizeof(s->l->spec.kind), "compressed-tensors W%cA%s", "012345678"[w->num_bits],
             !a->present  ? "16"
             : a->dynamic ? "8 dynamic"
                          : "8");
}

/* ---- integers ---- */

static int weight_shape_check(const struct ct *s)
{
    const struct tensor *t = find(s, "weight_shape");
    if (!t)
        return 0;
    source_know(s->src, t);
    if (!dtype_is_int(t->dtype) || tensor_count(t) != 2)
        return error_set(s->err, OCTAVO_EINVAL, "tensor %s in %s must hold two integers", t->name, t->file);
    if (tensor_integer(t, 0) != s->n || tensor_integer(t, 1) != s->k)
        return error_set(s->err, OCTAVO_EINVAL, "tensor %s in %s says (%lld, %lld), but config.json asks for (%d, %d)",
                         t->name, t->file, (long long)tensor_integer(t, 0), (long long)tensor_integer(t, 1), s->n,
                         s->k);
    return 0;
}

static int64_t words(int64_t count, int bits)
{
    return (count * bits + 31) / 32;
}

static int weight_packed(const struct ct *s, const struct tensor *t)
{
    int bits = s->group->weights.num_bits;
    struct linear_spec *spec = &s->l->spec;
    if (t->dtype != DTYPE_I32 || t->num_dims != 2 || t->shape[0] != s->n || t->shape[1] != words(s->k, bits))
        return linear_weight_error(t, spec->kind, s->n, s->k, s->err);
    s->l->packing = PACKED_STREAM;
    s->l->stream_bits = bits;
    spec->bits = bits <= 4 ? 4 : 8;
    return weight_shape_check(s);
}

/* The tensors tell whether it is packed: one format for the whole does not hold for every group of some writers. */
static int weight_find(const struct ct *s)
{
    const struct tensor *packed = find(s, "weight_packed"), *t = packed ? packed : find(s, "weight");
    struct linear_spec *spec = &s->l->spec;
    if (s->group->format == CT_PACKED && !packed && t->dtype != DTYPE_I8)
        return source_require(s->src, s->module, "weight_packed", spec->kind, &t, s->err);
    spec->weight = t;
    spec->quantised = true;
    source_use(s->src, t);
    if (packed)
        return weight_packed(s, t);
    if (t->dtype != DTYPE_I8 || t->num_dims != 2 || t->shape[0] != s->n || t->shape[1] != s->k)
        return linear_weight_error(t, spec->kind, s->n, s->k, s->err);
    s->l->packing = PACKED_INT8;
    spec->bits = 8;
    return 0;
}

/* ---- scales and zero points ---- */

static int scale_find(const struct ct *s)
{
    const struct ct_args *w = &s->group->weights;
    int groups = 1;
    int r = source_require(s->src, s->module, "weight_scale", s->l->spec.kind, &s->l->scale, s->err);
    if (r < 0)
        return r;
    source_use(s->src, s->l->scale);
    if (w->strategy == CT_GROUP) {
        if (s->k % w->group_size)
            return error_set(s->err, OCTAVO_EUNSUPPORTED,
                             "tensor %s in %s: %d input channels in groups of %d leave a rest, which is not supported",
                             s->l->spec.weight->name, s->l->spec.weight->file, s->k, w->group_size);
        groups = s->k / w->group_size;
    }
    s->l->spec.group_size = s->k / groups;
    return scale_check(s->l->scale, w->strategy == CT_TENSOR ? 1 : s->n, groups, s->err);
}

static int zero_packed_check(const struct ct *s, const struct tensor *t, bool *ret_any)
{
    int groups = s->k / s->l->spec.group_size;
    if (t->num_dims != 2 || t->shape[0] != words(s->n, s->l->stream_bits) || t->shape[1] != groups)
        return linear_weight_error(t, "packed zero points", s->n, groups, s->err);
    for (int n = 0; n < s->n; n++)
        for (int g = 0; g < groups; g++)
            *ret_any |= linear_packed_zero(s->l, t, n, g) != 0;
    return 0;
}

static int zero_find(const struct ct *s)
{
    const struct ct_args *w = &s->group->weights;
    const struct tensor *t = find(s, "weight_zero_point");
    bool any = false;
    int r = 0, groups = s->k / s->l->spec.group_size;
    if (!t)
        return w->symmetric ? 0 : source_require(s->src, s->module, "weight_zero_point", s->l->spec.kind, &t, s->err);
    bool packed = s->l->packing == PACKED_STREAM && t->dtype == DTYPE_I32;
    if (packed)
        r = zero_packed_check(s, t, &any);
    else
        r = offset_check(t, w->strategy == CT_TENSOR ? 1 : s->n, groups, &any, s->err);
    if (r == 0 && any && w->symmetric)
        r = error_set(s->err, OCTAVO_EINVAL, "tensor %s in %s is not zero, but its group's weights are symmetric",
                      t->name, t->file);
    source_know(s->src, t);
    if (r < 0 || !any)
        return r;
    source_use(s->src, t);
    s->l->zero = t;
    s->l->zero_packed = packed;
    s->l->spec.has_zero = true;
    return 0;
}

/* Columns sorted by their activations: fine as long as the order is the natural one, or was never set (-1). */
static int order_check(const struct ct *s)
{
    const struct tensor *t = find(s, "weight_g_idx");
    if (!t)
        return 0;
    source_know(s->src, t);
    if (!dtype_is_int(t->dtype) || tensor_count(t) != (size_t)s->k)
        return error_set(s->err, OCTAVO_EINVAL, "tensor %s in %s must hold %d integers", t->name, t->file, s->k);
    for (int i = 0; i < s->k; i++) {
        int64_t g = tensor_integer(t, (size_t)i);
        if (g != -1 && g != i / s->l->spec.group_size)
            return error_set(s->err, OCTAVO_EUNSUPPORTED,
                             "tensor %s in %s: columns in the order of their activations (actorder group) are not "
                             "supported; quantise with actorder static",
                             t->name, t->file);
    }
    return 0;
}

static int input_find(const struct ct *s)
{
    struct linear_spec *spec = &s->l->spec;
    const struct tensor *scale, *zero = find(s, "input_zero_point");
    bool any = false;
    if (spec->activation != ACTIVATION_INT8_STATIC) {
        know(s, "input_scale");
        know(s, "input_zero_point");
        return 0;
    }
    int r = source_require(s->src, s->module, "input_scale", spec->kind, &scale, s->err);
    if (r < 0 || (r = scale_check(scale, 1, 1, s->err)) < 0 ||
        (!zero && !s->group->input.symmetric &&
         (r = source_require(s->src, s->module, "input_zero_point", spec->kind, &zero, s->err)) < 0) ||
        (zero && (r = offset_check(zero, 1, 1, &any, s->err)) < 0))
        return r;
    source_use(s->src, scale);
    source_use(s->src, zero);
    spec->input_scale = tensor_value(scale, 0);
    spec->input_offset = zero ? tensor_value(zero, 0) : 0;
    if (!(spec->input_offset >= -128 && spec->input_offset <= 127))
        return error_set(s->err, OCTAVO_EINVAL, "tensor %s in %s is %g, but must be between -128 and 127", zero->name,
                         zero->file, (double)spec->input_offset);
    return 0;
}

int ct_linear(struct tensor_source *src, const struct ct_config *c, const char *module, int n, int k,
              struct linear_entry *ret, struct octavo_error *err)
{
    const struct ct_group *group;
    linear_entry_init(ret, "FLOAT", n, k);
    int r = ct_config_match(c, module, "Linear", &group, err);
    if (r < 0 || !group || (!group->weights.present && !group->input.present && !group->output))
        return r;
    const struct ct s = {src, group, module, n, k, ret, err};
    kind_format(&s);
    if ((r = weights_check(&s)) < 0 || (r = weight_find(&s)) < 0 || (r = scale_find(&s)) < 0 ||
        (r = zero_find(&s)) < 0 || (r = order_check(&s)) < 0 || (r = input_find(&s)) < 0)
        return r;
    return ret->spec.activation == ACTIVATION_FLOAT ? 0 : linear_int8_check(ret, ret->spec.weight, err);
}
