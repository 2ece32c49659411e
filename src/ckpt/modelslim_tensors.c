/* Tensors beside the linears of quantised checkpoints: what must not be passed over, and norms. See modelslim.h; names
 * of both formats are looked for. */
#include "ckpt/modelslim.h"

#include "base/mem.h"
#include "ckpt/values.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *part; /* a component of the name; "x*" matches what begins with x */
    const char *meaning;
} unsupported_parts[] = {
    {"div", "a scale on the linear's input (NonFusionSmoothQuant)"},
    {"heads_rotation", "an online QuaRot rotation"},
    {"kronecker_rotation*", "an online QuaRot rotation"},
    {"left_trans", "a FlatQuant transform"},
    {"right_trans", "a FlatQuant transform"},
    {"clip_ratio*", "a FlatQuant clip"},
    {"svd*", "a low-rank (SVD) branch"},
    {"fa_q", "attention quantisation (FAQuant)"},
    {"fa_k", "attention quantisation (FAQuant)"},
    {"fa_v", "attention quantisation (FAQuant)"},
    {"q_scale", "attention quantisation"},
    {"indexer", "an attention indexer"},
};

static bool part_matches(const char *part, size_t len, const char *pattern)
{
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*')
        return len >= n - 1 && !strncmp(part, pattern, n - 1);
    return len == n && !memcmp(part, pattern, n);
}

/* Tensors of layers that the model does not run (a draft head, a vision tower) are not looked at. */
static bool concerns_model(const char *name, int num_layers)
{
    static const char layers[] = "model.layers.";
    if (strncmp(name, layers, sizeof(layers) - 1))
        return !strncmp(name, "lm_head.", 8) || !strncmp(name, "model.norm.", 11);
    char *end;
    unsigned long layer = strtoul(name + sizeof(layers) - 1, &end, 10);
    return *end == '.' && layer < (unsigned long)num_layers;
}

int modelslim_refuse(const struct tensor_source *src, struct octavo_error *err)
{
    for (size_t i = 0; i < src->shards->num_tensors; i++) {
        const struct tensor *t = src->shards->tensors[i];
        if (!concerns_model(t->name, src->config->num_hidden_layers))
            continue;
        for (const char *part = t->name; part; part = strchr(part, '.') ? strchr(part, '.') + 1 : NULL) {
            size_t len = strcspn(part, ".");
            for (size_t j = 0; j < ARRAY_LEN(unsupported_parts); j++)
                if (part_matches(part, len, unsupported_parts[j].part))
                    return error_set(err, OCTAVO_EUNSUPPORTED, "tensor %.200s in %s is %s, which is not supported",
                                     t->name, t->file, unsupported_parts[j].meaning);
        }
    }
    return 0;
}

/* ---- norms ---- */

static bool same_values(const struct tensor *a, const struct tensor *b)
{
    if (!b || a->num_dims != b->num_dims || memcmp(a->shape, b->shape, sizeof(*a->shape) * (size_t)a->num_dims) ||
        !dtype_is_float(a->dtype) || !dtype_is_float(b->dtype))
        return false;
    for (size_t i = 0; i < tensor_count(a); i++)
        if (tensor_value(a, i) != tensor_value(b, i))
            return false;
    return true;
}

int modelslim_norm(struct tensor_source *src, const char *module, struct octavo_error *err)
{
    static const char *const pairs[][2] = {{"module.weight", "weight"}, {"module.bias", "bias"}};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        const struct tensor *inner = source_find(src, module, pairs[i][0]), *t = source_find(src, module, pairs[i][1]);
        if (inner && !same_values(inner, t))
            return error_set(err, OCTAVO_EUNSUPPORTED,
                             "tensor %s in %s differs from %s.%s: checkpoints with two versions of a norm are not "
                             "supported",
                             inner->name, inner->file, module, pairs[i][1]);
        source_know(src, inner);
    }
    const struct tensor *weight = source_find(src, module, "weight"), *bias = source_find(src, module, "bias");
    bool any;
    if (!bias || !weight)
        return 0;
    if (!dtype_is_float(bias->dtype))
        return error_set(err, OCTAVO_EUNSUPPORTED, "tensor %s in %s is %s, but must be BF16, F16 or F32", bias->name,
                         bias->file, dtype_name(bias->dtype));
    source_use(src, bias);
    return offset_check(bias, (int64_t)tensor_count(weight), 1, &any, err);
}
