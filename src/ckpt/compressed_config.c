/* The quantization_config of compressed-tensors: see compressed.h. Defaults are those of its QuantizationArgs. */
#include "base/mem.h"
#include "ckpt/compressed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 4096

static const char *const strategies[] = {
    [CT_TENSOR] = "tensor", [CT_CHANNEL] = "channel",           [CT_GROUP] = "group",         [CT_BLOCK] = "block",
    [CT_TOKEN] = "token",   [CT_TENSOR_GROUP] = "tensor_group", [CT_ATTN_HEAD] = "attn_head",
};

static int refuse(const char *what, const char *key, const char *found, struct octavo_error *err)
{
    return error_set_param(err, OCTAVO_EUNSUPPORTED, key, "%s: quantization_config: %s \"%.100s\" is not supported",
                           what, key, found);
}

/* ---- arguments ---- */

static int strategy_parse(const json_t *obj, const char *where, struct ct_args *a, struct octavo_error *err)
{
    const char *s = NULL;
    int64_t group = 0;
    int r = json_get_string(obj, where, "strategy", &s, err);
    if (r < 0 || (r = json_get_int(obj, where, "group_size", -1, 1 << 30, &group, err)) < 0)
        return r;
    a->group_size = (int)group;
    a->has_strategy = s || group;
    a->strategy = group > 0 ? CT_GROUP : group < 0 ? CT_CHANNEL : CT_TENSOR;
    if (!s)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(strategies); i++) {
        if (!strcmp(s, strategies[i])) {
            a->strategy = (enum ct_strategy)i;
            return 0;
        }
    }
    return refuse(where, "strategy", s, err);
}

/* dynamic is a boolean, or "local". */
static int dynamic_parse(const json_t *obj, const char *where, struct ct_args *a, struct octavo_error *err)
{
    const json_t *v = json_object_get(obj, "dynamic");
    if (json_is_string(v))
        return refuse(where, "dynamic", json_string_value(v), err);
    return json_get_bool(obj, where, "dynamic", &a->dynamic, err);
}

static int args_parse(const json_t *obj, const char *where, struct ct_args *a, struct octavo_error *err)
{
    *a = (struct ct_args){.num_bits = 8, .symmetric = true};
    if (!obj || json_is_null(obj))
        return 0;
    if (!json_is_object(obj))
        return error_set(err, OCTAVO_EINVAL, "%s must be an object or null", where);
    const char *type = "int";
    int64_t bits = 8;
    a->present = true;
    int r = json_get_string(obj, where, "type", &type, err);
    if (r < 0 || (r = json_get_int(obj, where, "num_bits", 1, 64, &bits, err)) < 0 ||
        (r = json_get_bool(obj, where, "symmetric", &a->symmetric, err)) < 0 ||
        (r = dynamic_parse(obj, where, a, err)) < 0 || (r = strategy_parse(obj, where, a, err)) < 0)
        return r;
    if (strcmp(type, "int"))
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "type",
                               "%s: %d-bit values of type \"%.40s\" are not supported; supported: int", where,
                               (int)bits, type);
    if (bits < 2 || bits > 8)
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "num_bits",
                               "%s: num_bits %d is not supported; supported: 2 to 8", where, (int)bits);
    a->num_bits = (int)bits;
    return 0;
}

static int format_parse(const json_t *obj, const char *where, enum ct_format *ret, struct octavo_error *err)
{
    static const struct {
        const char *name;
        enum ct_format format;
    } formats[] = {
        {"dense", CT_DENSE},           {"int-quantized", CT_INT},           {"naive-quantized", CT_INT},
        {"pack-quantized", CT_PACKED}, {"mixed-precision", CT_FORMAT_NONE},
    };
    const char *s = NULL;
    int r = json_get_string(obj, where, "format", &s, err);
    if (r < 0 || !s)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        if (!strcmp(s, formats[i].name)) {
            *ret = formats[i].format;
            return 0;
        }
    }
    return error_set_param(err, OCTAVO_EUNSUPPORTED, "format",
                           "%s: the format \"%.60s\" is not supported; supported: int-quantized, naive-quantized, "
                           "pack-quantized, mixed-precision, dense",
                           where, s);
}

/* ---- groups ---- */

/* A group that is a bare list of targets is named after a preset. */
static const struct {
    const char *name;
    struct ct_args weights, input;
} presets[] = {
    {"W8A8", {true, 8, true, false, true, CT_CHANNEL, 0}, {true, 8, true, true, true, CT_TOKEN, 0}},
    {"INT8", {true, 8, true, false, true, CT_CHANNEL, 0}, {true, 8, true, true, true, CT_TOKEN, 0}},
    {"W8A16", {true, 8, true, false, true, CT_CHANNEL, 0}, {.present = false}},
    {"W4A16", {true, 4, true, false, true, CT_GROUP, 128}, {.present = false}},
    {"W4A16_ASYM", {true, 4, false, false, true, CT_GROUP, 128}, {.present = false}},
};

static int preset_find(struct ct_group *g, const char *what, struct octavo_error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(presets); i++) {
        if (!strcmp(g->name, presets[i].name)) {
            g->weights = presets[i].weights;
            g->input = presets[i].input;
            return 0;
        }
    }
    return error_set_param(err, OCTAVO_EUNSUPPORTED, "config_groups",
                           "%s: quantization_config: the preset \"%.60s\" is not supported; supported: W8A8, INT8, "
                           "W8A16, W4A16, W4A16_ASYM",
                           what, g->name);
}

static int group_parse(const json_t *v, const char *what, enum ct_format format, struct ct_group *g,
                       struct octavo_error *err)
{
    char where[400];
    g->format = format;
    if (json_is_array(v)) {
        int r = preset_find(g, what, err);
        return r < 0 ? r : ct_patterns_parse(v, what, "targets", &g->targets, err);
    }
    if (!json_is_object(v))
        return error_set_param(err, OCTAVO_EINVAL, "config_groups",
                               "%s: quantization_config: the group %.60s must be an object", what, g->name);
    snprintf(where, sizeof(where), "%.200s: config_groups.%.60s", what, g->name);
    int r = format_parse(v, where, &g->format, err);
    if (r < 0 || (r = ct_patterns_parse(json_object_get(v, "targets"), where, "targets", &g->targets, err)) < 0)
        return r;
    const json_t *output = json_object_get(v, "output_activations");
    g->output = output && !json_is_null(output);
    size_t len = strlen(where);
    snprintf(where + len, sizeof(where) - len, ".weights");
    if ((r = args_parse(json_object_get(v, "weights"), where, &g->weights, err)) < 0)
        return r;
    snprintf(where + len, sizeof(where) - len, ".input_activations");
    return args_parse(json_object_get(v, "input_activations"), where, &g->input, err);
}

static int groups_parse(const json_t *obj, const char *what, enum ct_format format, struct ct_config *c,
                        struct octavo_error *err)
{
    const json_t *groups = json_object_get(obj, "config_groups");
    if (!groups || json_is_null(groups))
        return 0;
    size_t n = json_object_size(groups);
    if (!json_is_object(groups) || n > MAX_GROUPS)
        return error_set_param(err, OCTAVO_EINVAL, "config_groups",
                               "%s: quantization_config: config_groups must be an object of at most %d groups", what,
                               MAX_GROUPS);
    c->groups = mem_calloc(MAX(n, (size_t)1), sizeof(*c->groups));
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)groups, name, v) {
        struct ct_group *g = &c->groups[c->num_groups++];
        g->name = mem_strdup(name);
        int r = group_parse(v, what, format, g, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the whole ---- */

/* Absent, null, {} and what says that it does nothing. */
static bool does_nothing(const json_t *v)
{
    const json_t *format = json_object_get(v, "format"), *groups = json_object_get(v, "config_groups");
    return !v || json_is_null(v) || (json_is_object(v) && !json_object_size(v)) ||
           (json_is_string(format) && !strcmp(json_string_value(format), "dense")) ||
           (json_is_object(groups) && !json_object_size(groups));
}

static int others_check(const json_t *obj, const char *what, struct octavo_error *err)
{
    static const char *const refused[][2] = {{"sparsity_config", "sparse weights"},
                                             {"transform_config", "transforms of weights and activations"}};
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (!does_nothing(json_object_get(obj, refused[i][0])))
            return error_set_param(err, OCTAVO_EUNSUPPORTED, refused[i][0],
                                   "%s: quantization_config: %s (%s) is not supported", what, refused[i][0],
                                   refused[i][1]);
    const char *status = NULL;
    int r = json_get_string(obj, what, "quantization_status", &status, err);
    if (r == 0 && status && strcmp(status, "compressed"))
        r = error_set_param(err, OCTAVO_EUNSUPPORTED, "quantization_status",
                            "%s: quantization_config: the quantization_status is \"%.40s\", but only compressed "
                            "checkpoints are supported; save it with save_compressed=True",
                            what, status);
    return r;
}

static int kv_cache_parse(const json_t *obj, const char *what, struct ct_args *a, struct octavo_error *err)
{
    char where[300];
    snprintf(where, sizeof(where), "%.200s: kv_cache_scheme", what);
    int r = args_parse(json_object_get(obj, "kv_cache_scheme"), where, a, err);
    if (r < 0 || !a->present)
        return r;
    if (a->num_bits != 8)
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "num_bits", "%s: num_bits %d is not supported; supported: 8",
                               where, a->num_bits);
    if (a->dynamic)
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "dynamic",
                               "%s: dynamic scales are not supported; supported: static ones", where);
    if (a->strategy != CT_TENSOR && a->strategy != CT_ATTN_HEAD && a->strategy != CT_CHANNEL)
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "strategy",
                               "%s: the strategy \"%s\" is not supported; supported: tensor, attn_head, channel", where,
                               strategies[a->strategy]);
    return 0;
}

int ct_config_parse(const json_t *obj, const char *what, struct ct_config **ret, struct octavo_error *err)
{
    struct ct_config *c = mem_calloc(1, sizeof(*c));
    enum ct_format format = CT_FORMAT_NONE;
    char where[300];
    snprintf(where, sizeof(where), "%.200s: quantization_config", what);
    int r = 0;
    if (!json_is_object(obj))
        r = error_set_param(err, OCTAVO_EINVAL, "quantization_config", "%s must be an object", where);
    if (r < 0 || (r = others_check(obj, what, err)) < 0 || (r = format_parse(obj, where, &format, err)) < 0 ||
        (r = ct_patterns_parse(json_object_get(obj, "ignore"), what, "ignore", &c->ignore, err)) < 0 ||
        (r = groups_parse(obj, what, format, c, err)) < 0 || (r = kv_cache_parse(obj, what, &c->kv_cache, err)) < 0) {
        ct_config_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void ct_config_free(struct ct_config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->num_groups; i++) {
        ct_patterns_free(c->groups[i].targets);
        free(c->groups[i].name);
    }
    free(c->groups);
    ct_patterns_free(c->ignore);
    free(c);
}
