/* RoPE parameters: see config_rope.h. Both styles of config.json (rope_theta with rope_scaling, and rope_parameters)
 * end in one struct; precedence and defaults are those of transformers' modeling_rope_utils. */
#include "ckpt/config_rope.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

#define ROPE_THETA_DEFAULT 10000.0
#define ROPE_MAX_FACTOR 65536.0
#define ROPE_MAX_POSITIONS (INT64_C(1) << 27)
#define MODEL_MAX_LEN (INT64_C(1) << 28) /* tokens: times layers * KV bytes of a token this still fits 63 bits */

static const char *const layer_type_names[LAYER_TYPE_COUNT] = {
    [LAYER_FULL_ATTENTION] = "full_attention",
    [LAYER_SLIDING_ATTENTION] = "sliding_attention",
};

static const struct {
    const char *name;
    enum rope_type type;
} rope_types[] = {
    {"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC},
    {"llama3", ROPE_LLAMA3},   {"yarn", ROPE_YARN},
};

/* What one set of RoPE parameters is read from. */
struct rope_source {
    const json_t *root, *params; /* params may be NULL: a model without scaling */
    const char *what;            /* "config.json: rope_scaling", for messages */
    const char *root_what;
    bool nested;
    const struct model_config *config;
    struct octavo_error *err;
};

static bool present(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

/* A number in [lo, hi]; absent or null leaves *ret. */
static int get_number(const struct rope_source *s, const char *key, double lo, double hi, double *ret)
{
    double v = *ret;
    if (!present(s->params, key))
        return 0;
    int r = json_get_double(s->params, s->what, key, &v, s->err);
    if (r < 0)
        return r;
    if (!(v >= lo && v <= hi))
        return error_set_param(s->err, OCTAVO_EINVAL, key, "%s: %s is %g, but must be between %g and %g", s->what, key,
                               v, lo, hi);
    *ret = v;
    return 0;
}

static int require(const struct rope_source *s, const char *key, const char *type)
{
    if (present(s->params, key))
        return 0;
    return error_set_param(s->err, OCTAVO_EINVAL, key, "%s: %s is missing, but the RoPE type %s needs it", s->what, key,
                           type);
}

static int type_parse(const struct rope_source *s, enum rope_type *ret)
{
    const char *name = NULL;
    int r = json_get_string(s->params, s->what, "rope_type", &name, s->err);
    if (r == 0 && !name)
        r = json_get_string(s->params, s->what, "type", &name, s->err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(rope_types); i++) {
        if (!name || !strcmp(name, rope_types[i].name)) {
            *ret = rope_types[i].type;
            return 0;
        }
    }
    return error_set_param(
        s->err, OCTAVO_EUNSUPPORTED, "rope_type",
        "%s: the RoPE type \"%.60s\" is not supported; supported: default, linear, dynamic, llama3, yarn", s->what,
        name);
}

/* theta and the partial factor may stand beside the object or in it; the object wins. */
static int common_parse(const struct rope_source *s, struct rope_params *p)
{
    struct rope_source top = *s;
    top.params = s->root;
    top.what = s->root_what;
    const double theta_min = 1.0000001, theta_max = 1e30; /* above 1: the formulas divide by its logarithm */
    int r;
    if ((r = get_number(&top, "rope_theta", theta_min, theta_max, &p->theta)) < 0 ||
        (r = get_number(s, "rope_theta", theta_min, theta_max, &p->theta)) < 0 ||
        (r = get_number(&top, "partial_rotary_factor", 0, 1e6, &p->partial_rotary_factor)) < 0 ||
        (r = get_number(s, "partial_rotary_factor", 0, 1e6, &p->partial_rotary_factor)) < 0)
        return r;
    if (p->partial_rotary_factor != 1)
        return error_set_param(
            s->err, OCTAVO_EUNSUPPORTED, "partial_rotary_factor",
            "%s: partial_rotary_factor is %g, but only models that rotate the whole head (1) are supported", s->what,
            p->partial_rotary_factor);
    return 0;
}

/* llama3 and yarn: the top-level field wins (Phi3 keeps it there), then the object's, then max_position_embeddings. */
static int original_positions(const struct rope_source *s, int64_t *ret)
{
    const char *key = "original_max_position_embeddings";
    *ret = s->config->max_position_embeddings;
    int r = json_get_int(s->params, s->what, key, 1, ROPE_MAX_POSITIONS, ret, s->err);
    if (r == 0 && !s->nested)
        r = json_get_int(s->root, s->root_what, key, 1, ROPE_MAX_POSITIONS, ret, s->err);
    return r;
}

static int llama3_parse(const struct rope_source *s, struct rope_params *p)
{
    int r;
    if ((r = require(s, "factor", "llama3")) < 0 || (r = require(s, "low_freq_factor", "llama3")) < 0 ||
        (r = require(s, "high_freq_factor", "llama3")) < 0 ||
        (r = get_number(s, "factor", 1, ROPE_MAX_FACTOR, &p->factor)) < 0 ||
        (r = get_number(s, "low_freq_factor", 1e-6, 1e6, &p->low_freq_factor)) < 0 ||
        (r = get_number(s, "high_freq_factor", 1e-6, 1e6, &p->high_freq_factor)) < 0 ||
        (r = original_positions(s, &p->original_max_position_embeddings)) < 0)
        return r;
    if (p->high_freq_factor <= p->low_freq_factor)
        return error_set_param(s->err, OCTAVO_EINVAL, "high_freq_factor",
                               "%s: high_freq_factor (%g) must be greater than low_freq_factor (%g)", s->what,
                               p->high_freq_factor, p->low_freq_factor);
    return 0;
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int yarn_parse(const struct rope_source *s, struct rope_params *p)
{
    double mscale = 0, mscale_all_dim = 0, beta_fast = 0, beta_slow = 0;
    int r;
    if ((r = original_positions(s, &p->original_max_position_embeddings)) < 0)
        return r;
    /* "factor": null stands for the ratio of the two context lengths; a file without the key is incomplete. */
    if (!json_object_get(s->params, "factor"))
        return require(s, "factor", "yarn");
    if (!present(s->params, "factor"))
        p->factor = (double)s->config->max_position_embeddings / (double)p->original_max_position_embeddings;
    if (p->factor < 1 || p->factor > ROPE_MAX_FACTOR)
        return error_set_param(s->err, OCTAVO_EINVAL, "factor",
                               "%s: factor is null, and max_position_embeddings / original_max_position_embeddings, "
                               "%g, is not between 1 and %g",
                               s->what, p->factor, ROPE_MAX_FACTOR);
    if ((r = get_number(s, "factor", 1, ROPE_MAX_FACTOR, &p->factor)) < 0 ||
        (r = get_number(s, "beta_fast", 0, 1e6, &beta_fast)) < 0 ||
        (r = get_number(s, "beta_slow", 0, 1e6, &beta_slow)) < 0 ||
        (r = get_number(s, "mscale", 0, 1e6, &mscale)) < 0 ||
        (r = get_number(s, "mscale_all_dim", 0, 1e6, &mscale_all_dim)) < 0 ||
        (r = json_get_bool(s->params, s->what, "truncate", &p->truncate, s->err)) < 0)
        return r;
    p->beta_fast = beta_fast > 0 ? beta_fast : 32; /* 0 means the default, as in transformers */
    p->beta_slow = beta_slow > 0 ? beta_slow : 1;
    if (p->beta_fast < p->beta_slow)
        return error_set_param(s->err, OCTAVO_EINVAL, "beta_fast",
                               "%s: beta_fast (%g) must not be less than beta_slow (%g)", s->what, p->beta_fast,
                               p->beta_slow);
    p->attention_factor = mscale > 0 && mscale_all_dim > 0
                              ? yarn_mscale(p->factor, mscale) / yarn_mscale(p->factor, mscale_all_dim)
                              : yarn_mscale(p->factor, 1);
    return get_number(s, "attention_factor", 1e-6, 1e6, &p->attention_factor);
}

static int params_parse(const struct rope_source *s, struct rope_params *p)
{
    *p = (struct rope_params){
        .theta = ROPE_THETA_DEFAULT,
        .factor = 1,
        .truncate = true,
        .attention_factor = 1,
        .partial_rotary_factor = 1,
        .original_max_position_embeddings = s->config->max_position_embeddings,
    };
    int r;
    if ((r = type_parse(s, &p->type)) < 0 || (r = common_parse(s, p)) < 0)
        return r;
    switch (p->type) {
    case ROPE_LINEAR:
    case ROPE_DYNAMIC: {
        const char *name = p->type == ROPE_LINEAR ? "linear" : "dynamic";
        if (p->type == ROPE_DYNAMIC && s->config->head_dim < 4) /* theta grows by a power of D / (D - 2) */
            return error_set_param(s->err, OCTAVO_EINVAL, "head_dim",
                                   "%s: the RoPE type dynamic needs a head_dim of at least 4", s->what);
        if ((r = require(s, "factor", name)) < 0)
            return r;
        return get_number(s, "factor", 1, ROPE_MAX_FACTOR, &p->factor);
    }
    case ROPE_LLAMA3:
        return llama3_parse(s, p);
    case ROPE_YARN:
        return yarn_parse(s, p);
    default:
        return 0;
    }
}

/* The object with the scaling: rope_scaling wins over rope_parameters when it says anything. NULL when there is none.
 */
static int find_params(const json_t *root, const char *what, const json_t **ret, const char **ret_key,
                       struct octavo_error *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    *ret = NULL;
    *ret_key = keys[1];
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *v = json_object_get(root, keys[i]);
        if (!v || json_is_null(v))
            continue;
        if (!json_is_object(v))
            return error_set_param(err, OCTAVO_EINVAL, keys[i], "%s: %s must be an object or null", what, keys[i]);
        if (!*ret && json_object_size(v) > 0) {
            *ret = v;
            *ret_key = keys[i];
        }
    }
    return 0;
}

/* As vLLM derives it: linear and dynamic stretch the context by their factor, yarn counts from the original one,
 * llama3's max_position_embeddings is the stretched length already. */
static int derive_max_model_len(const char *what, const bool *used, struct model_config *c, struct octavo_error *err)
{
    double len = (double)c->max_position_embeddings, factor = 1;
    for (int i = 0; i < LAYER_TYPE_COUNT; i++) {
        const struct rope_params *p = &c->rope[i];
        if (!used[i])
            continue;
        if (p->type == ROPE_LINEAR || p->type == ROPE_DYNAMIC || p->type == ROPE_YARN)
            factor = p->factor;
        if (p->type == ROPE_YARN)
            len = (double)p->original_max_position_embeddings;
    }
    len = floor(len * factor);
    if (!(len >= 1 && len <= (double)MODEL_MAX_LEN))
        return error_set_param(err, OCTAVO_EINVAL, "max_position_embeddings",
                               "%s: the RoPE scaling makes a context of %.0f tokens, but at most %lld are supported",
                               what, len, (long long)MODEL_MAX_LEN);
    c->max_model_len = (int64_t)len;
    return 0;
}

int config_rope_parse(const json_t *root, const char *what, struct model_config *c, struct octavo_error *err)
{
    const json_t *params;
    const char *key;
    int r = find_params(root, what, &params, &key, err);
    if (r < 0)
        return r;
    bool used[LAYER_TYPE_COUNT] = {false}, nested = false;
    int first = c->layer_types[0];
    for (int i = 0; i < c->num_hidden_layers; i++)
        used[c->layer_types[i]] = true;
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        nested = nested || json_object_get(params, layer_type_names[i]);

    for (int i = 0; i < LAYER_TYPE_COUNT; i++) {
        if (!used[i])
            continue;
        char name[512];
        const json_t *own = nested ? json_object_get(params, layer_type_names[i]) : params;
        snprintf(name, sizeof(name), nested ? "%.400s: %s.%s" : "%.400s: %s", what, key, layer_type_names[i]);
        if (nested && !json_is_object(own))
            return error_set_param(err, OCTAVO_EINVAL, key, "%s: %s has no object for %s, which some layers are", what,
                                   key, layer_type_names[i]);
        struct rope_source s = {root, own, name, what, nested, c, err};
        if ((r = params_parse(&s, &c->rope[i])) < 0)
            return r;
    }
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        if (!used[i])
            c->rope[i] = c->rope[first]; /* never looked up, but valid */
    return derive_max_model_len(what, used, c, err);
}
