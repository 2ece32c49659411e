/* generation_config.json: see config_generation.h. Ranges are those of vLLM's SamplingParams, so that a default which
 * no request could ask for is found while loading. */
#include "ckpt/config_generation.h"

#include <math.h>

static int eos_add(const json_t *v, const char *what, struct model_config *c, struct octavo_error *err)
{
    if (!json_is_integer(v))
        return error_set_param(err, OCTAVO_EINVAL, "eos_token_id",
                               "%s: eos_token_id must be an integer, a list of integers or null", what);
    int64_t id = json_integer_value(v);
    if (id < 0)
        return error_set_param(err, OCTAVO_EINVAL, "eos_token_id", "%s: eos_token_id is %lld, but must be at least 0",
                               what, (long long)id);
    if (id >= c->vocab_size)
        return 0;
    for (int i = 0; i < c->num_eos_token_ids; i++)
        if (c->eos_token_ids[i] == id)
            return 0;
    if (c->num_eos_token_ids == CONFIG_MAX_EOS)
        return error_set_param(err, OCTAVO_EINVAL, "eos_token_id", "%s: eos_token_id lists more than %d ids", what,
                               CONFIG_MAX_EOS);
    c->eos_token_ids[c->num_eos_token_ids++] = (int32_t)id;
    return 0;
}

int config_eos_parse(const json_t *root, const char *what, struct model_config *c, struct octavo_error *err)
{
    const json_t *v = json_object_get(root, "eos_token_id");
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_array(v))
        return eos_add(v, what, c, err);
    int r = 0;
    for (size_t i = 0; i < json_array_size(v) && r == 0; i++)
        r = eos_add(json_array_get(v, i), what, c, err);
    return r;
}

/* A number above lo (or equal, when closed) and at most hi; *ret_has tells whether the file gives it. */
static int get_number(const json_t *root, const char *what, const char *key, double lo, bool closed, double hi,
                      double *ret, bool *ret_has, struct octavo_error *err)
{
    const json_t *v = json_object_get(root, key);
    if (!v || json_is_null(v))
        return 0;
    double x = 0;
    int r = json_get_double(root, what, key, &x, err);
    if (r < 0)
        return r;
    if (!((closed ? x >= lo : x > lo) && x <= hi)) {
        if (isinf(hi) || hi > 1e6)
            return error_set_param(err, OCTAVO_EINVAL, key, "%s: %s is %g, but must be %s %g", what, key, x,
                                   closed ? "at least" : "greater than", lo);
        return error_set_param(err, OCTAVO_EINVAL, key, "%s: %s is %g, but must be %s %g and at most %g", what, key, x,
                               closed ? "at least" : "greater than", lo, hi);
    }
    *ret = x;
    *ret_has = true;
    return 0;
}

static int get_count(const json_t *root, const char *what, const char *key, int64_t lo, int64_t *ret, bool *ret_has,
                     struct octavo_error *err)
{
    const json_t *v = json_object_get(root, key);
    if (!v || json_is_null(v))
        return 0;
    int r = json_get_int(root, what, key, lo, INT32_MAX, ret, err);
    *ret_has = r == 0;
    return r;
}

int config_generation_parse(const json_t *root, const char *what, struct model_config *config,
                            struct generation_config *ret, struct octavo_error *err)
{
    *ret = (struct generation_config){0};
    if (!json_is_object(root))
        return error_set(err, OCTAVO_EINVAL, "%s must hold a JSON object", what);
    struct generation_config g = {0};
    bool do_sample = true;
    const double max = 1.7e308; /* any finite number */
    int r;
    if ((r = get_number(root, what, "temperature", 0, true, max, &g.temperature, &g.has_temperature, err)) < 0 ||
        (r = get_number(root, what, "top_p", 0, false, 1, &g.top_p, &g.has_top_p, err)) < 0 ||
        (r = get_number(root, what, "min_p", 0, true, 1, &g.min_p, &g.has_min_p, err)) < 0 ||
        (r = get_number(root, what, "repetition_penalty", 0, false, max, &g.repetition_penalty,
                        &g.has_repetition_penalty, err)) < 0 ||
        (r = get_count(root, what, "top_k", -1, &g.top_k, &g.has_top_k, err)) < 0 ||
        (r = get_count(root, what, "max_new_tokens", 1, &g.max_new_tokens, &g.has_max_new_tokens, err)) < 0 ||
        (r = json_get_bool(root, what, "do_sample", &do_sample, err)) < 0 ||
        (r = config_eos_parse(root, what, config, err)) < 0)
        return r;
    if (!do_sample) { /* the authors ask for greedy decoding */
        g.temperature = 0;
        g.has_temperature = true;
    }
    *ret = g;
    return 0;
}
