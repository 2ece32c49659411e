/* config.json: see config.h. Defaults of absent fields are those of the transformers config class of the family.
 * Runs on the loading thread. */
#include "ckpt/config.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/config_generation.h"
#include "ckpt/config_rope.h"
#include "ckpt/quant.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_MAX_BYTES (16 << 20)
#define MAX_HIDDEN (1 << 20)
#define MAX_INTERMEDIATE (1 << 22)
#define MAX_HEADS 4096
#define MAX_HEAD_DIM 1024
#define MAX_ATTENTION_WIDTH (1 << 20) /* heads * head_dim */
#define MAX_VOCAB (1 << 24)
#define MAX_POSITIONS (INT64_C(1) << 27)

/* One row per architecture: its names and the defaults of its config class. */
static const struct family {
    const char *architecture, *model_type;
    enum model_family family;
    int head_dim; /* 0: hidden_size / num_attention_heads */
    int64_t max_position_embeddings;
    int32_t bos, eos; /* -1: none */
    bool slides;
} families[] = {
    {"Qwen3ForCausalLM", "qwen3", MODEL_QWEN3, 128, 32768, -1, -1, true},
    {"Qwen2ForCausalLM", "qwen2", MODEL_QWEN2, 0, 32768, -1, -1, true},
    {"LlamaForCausalLM", "llama", MODEL_LLAMA, 0, 2048, 1, 2, false},
};

struct reader {
    const json_t *root;
    const char *what; /* the file, for messages */
    const struct family *family;
    struct model_config *c;
    struct octavo_error *err;
};

/* ---- which architecture ---- */

/* The first name of the architectures list; NULL when there is none. */
static int architecture_name(const json_t *obj, const char *what, const char **ret, struct octavo_error *err)
{
    const json_t *list = json_object_get(obj, "architectures");
    *ret = NULL;
    if (!list || json_is_null(list) || (json_is_array(list) && !json_array_size(list)))
        return 0;
    const json_t *first = json_array_get(list, 0);
    if (!json_is_string(first))
        return error_set_param(err, OCTAVO_EINVAL, "architectures", "%s: architectures must be a list of strings",
                               what);
    *ret = json_string_value(first);
    return 0;
}

static int family_find(const json_t *root, const char *what, const struct family **ret, struct octavo_error *err)
{
    const char *arch, *type = NULL;
    int r = architecture_name(root, what, &arch, err);
    if (r < 0 || (r = json_get_string(root, what, "model_type", &type, err)) < 0)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(families) && (arch || type); i++) {
        if (!strcmp(arch ? arch : type, arch ? families[i].architecture : families[i].model_type)) {
            *ret = &families[i];
            return 0;
        }
    }
    static const char supported[] = "supported: Qwen3ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM";
    if (arch)
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "architectures",
                               "%s: the architecture \"%.60s\" is not supported; %s", what, arch, supported);
    if (type)
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "model_type",
                               "%s: it names no architecture, and the model_type \"%.60s\" is not supported; %s", what,
                               type, supported);
    return error_set_param(err, OCTAVO_EINVAL, "architectures",
                           "%s: it names neither architectures nor a model_type; %s", what, supported);
}

/* Multimodal exports put the decoder's fields into text_config: a view with those on top of the outer ones. The caller
 * decrefs. */
static int flatten(json_t *root, const char *what, json_t **ret, struct octavo_error *err)
{
    const json_t *text = json_object_get(root, "text_config");
    if (!text || json_is_null(text)) {
        *ret = json_incref(root);
        return 0;
    }
    if (!json_is_object(text))
        return error_set_param(err, OCTAVO_EINVAL, "text_config", "%s: text_config must be an object", what);
    json_t *flat = json_copy(root);
    const char *arch = NULL;
    int r = architecture_name(root, what, &arch, err);
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)text, key, v) {
        if (!json_is_null(v) && !(arch && !strcmp(key, "architectures")))
            json_object_set(flat, key, v);
    }
    *ret = flat;
    return r;
}

/* ---- fields ---- */

static int get_int(struct reader *rd, const char *key, int64_t lo, int64_t hi, int *ret)
{
    int64_t v = *ret;
    int r = json_get_int(rd->root, rd->what, key, lo, hi, &v, rd->err);
    if (r == 0)
        *ret = (int)v;
    return r;
}

static int require_int(struct reader *rd, const char *key, int64_t hi, int *ret)
{
    *ret = 0;
    int r = get_int(rd, key, 1, hi, ret);
    if (r == 0 && *ret == 0)
        return error_set_param(rd->err, OCTAVO_EINVAL, key, "%s: %s is missing", rd->what, key);
    return r;
}

static int heads_parse(struct reader *rd)
{
    struct model_config *c = rd->c;
    int r;
    c->num_key_value_heads = c->num_attention_heads;
    c->head_dim = rd->family->head_dim;
    if ((r = get_int(rd, "num_key_value_heads", 1, MAX_HEADS, &c->num_key_value_heads)) < 0 ||
        (r = get_int(rd, "head_dim", 1, MAX_HEAD_DIM, &c->head_dim)) < 0)
        return r;
    if (c->num_attention_heads % c->num_key_value_heads)
        return error_set_param(rd->err, OCTAVO_EINVAL, "num_key_value_heads",
                               "%s: num_attention_heads (%d) must be a multiple of num_key_value_heads (%d)", rd->what,
                               c->num_attention_heads, c->num_key_value_heads);
    if (!c->head_dim) {
        if (c->hidden_size % c->num_attention_heads)
            return error_set_param(
                rd->err, OCTAVO_EINVAL, "hidden_size",
                "%s: hidden_size (%d) must be a multiple of num_attention_heads (%d) when head_dim is not given",
                rd->what, c->hidden_size, c->num_attention_heads);
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    if (c->head_dim % 2 || c->head_dim > MAX_HEAD_DIM)
        return error_set_param(rd->err, OCTAVO_EINVAL, "head_dim",
                               "%s: head_dim is %d, but must be an even number between 2 and %d", rd->what, c->head_dim,
                               MAX_HEAD_DIM);
    if (c->num_attention_heads * c->head_dim > MAX_ATTENTION_WIDTH)
        return error_set_param(rd->err, OCTAVO_EINVAL, "head_dim",
                               "%s: num_attention_heads * head_dim is %d, but at most %d is supported", rd->what,
                               c->num_attention_heads * c->head_dim, MAX_ATTENTION_WIDTH);
    return 0;
}

static int dtype_field_parse(struct reader *rd)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } names[] = {
        {"bfloat16", DTYPE_BF16}, {"float16", DTYPE_F16}, {"half", DTYPE_F16},
        {"float32", DTYPE_F32},   {"float", DTYPE_F32},
    };
    const char *s = NULL, *key = "dtype";
    int r = json_get_string(rd->root, rd->what, key, &s, rd->err);
    if (r == 0 && !s)
        r = json_get_string(rd->root, rd->what, key = "torch_dtype", &s, rd->err);
    if (r < 0)
        return r;
    rd->c->dtype = DTYPE_BF16;
    if (!s)
        return 0;
    const char *bare = !strncmp(s, "torch.", 6) ? s + 6 : s;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(bare, names[i].name)) {
            rd->c->dtype = names[i].dtype;
            return 0;
        }
    }
    return error_set_param(rd->err, OCTAVO_EUNSUPPORTED, key,
                           "%s: %s \"%.60s\" is not supported; supported: bfloat16, float16, float32", rd->what, key,
                           s);
}

static int norm_and_act_parse(struct reader *rd)
{
    const char *act = "silu";
    double eps = 1e-6;
    int r = json_get_string(rd->root, rd->what, "hidden_act", &act, rd->err);
    if (r < 0 || (r = json_get_double(rd->root, rd->what, "rms_norm_eps", &eps, rd->err)) < 0)
        return r;
    if (strcmp(act, "silu") && strcmp(act, "swish")) /* two names of one function */
        return error_set_param(rd->err, OCTAVO_EUNSUPPORTED, "hidden_act",
                               "%s: hidden_act \"%.60s\" is not supported; supported: silu", rd->what, act);
    rd->c->rms_norm_eps = (float)eps;
    if (!isfinite(rd->c->rms_norm_eps) || !(rd->c->rms_norm_eps > 0))
        return error_set_param(rd->err, OCTAVO_EINVAL, "rms_norm_eps",
                               "%s: rms_norm_eps is %g, but must be a positive number that float32 can hold", rd->what,
                               eps);
    return 0;
}

/* ---- sliding window ---- */

static int layer_types_parse(struct reader *rd, const json_t *list)
{
    struct model_config *c = rd->c;
    if (!json_is_array(list) || json_array_size(list) != (size_t)c->num_hidden_layers)
        return error_set_param(rd->err, OCTAVO_EINVAL, "layer_types",
                               "%s: layer_types must be a list of num_hidden_layers (%d) strings", rd->what,
                               c->num_hidden_layers);
    for (int i = 0; i < c->num_hidden_layers; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        const char *s = json_string_value(v);
        if (!s)
            return error_set_param(rd->err, OCTAVO_EINVAL, "layer_types", "%s: layer_types[%d] must be a string",
                                   rd->what, i);
        if (strcmp(s, "full_attention") && strcmp(s, "sliding_attention"))
            return error_set_param(
                rd->err, OCTAVO_EUNSUPPORTED, "layer_types",
                "%s: layer_types[%d] is \"%.60s\", which is not supported; supported: full_attention, "
                "sliding_attention",
                rd->what, i, s);
        c->layer_types[i] = strcmp(s, "full_attention") ? LAYER_SLIDING_ATTENTION : LAYER_FULL_ATTENTION;
    }
    return 0;
}

/* Qwen's classes slide only when use_sliding_window says so: from layer max_window_layers on, unless layer_types lists
 * the layers one by one. */
static int sliding_parse(struct reader *rd)
{
    struct model_config *c = rd->c;
    bool use = false, explicit_types = false;
    int64_t window = 4096, first = 28;
    int r;
    if ((r = json_get_bool(rd->root, rd->what, "use_sliding_window", &use, rd->err)) < 0)
        return r;
    use = use && rd->family->slides;
    const json_t *given = json_object_get(rd->root, "sliding_window");
    bool off = given && json_is_null(given);
    if (use && ((r = json_get_int(rd->root, rd->what, "sliding_window", 1, MAX_POSITIONS, &window, rd->err)) < 0 ||
                (r = json_get_int(rd->root, rd->what, "max_window_layers", 0, MAX_POSITIONS, &first, rd->err)) < 0))
        return r;
    const json_t *list = json_object_get(rd->root, "layer_types");
    if (list && !json_is_null(list)) {
        explicit_types = true;
        if ((r = layer_types_parse(rd, list)) < 0)
            return r;
    }
    int sliding = 0;
    for (int i = 0; i < c->num_hidden_layers; i++) {
        if (!explicit_types)
            c->layer_types[i] = use && !off && i >= first ? LAYER_SLIDING_ATTENTION : LAYER_FULL_ATTENTION;
        sliding += c->layer_types[i] == LAYER_SLIDING_ATTENTION;
    }
    if (sliding && !rd->family->slides)
        return error_set_param(rd->err, OCTAVO_EUNSUPPORTED, "layer_types",
                               "%s: layer_types asks for sliding_attention, which %s does not have", rd->what,
                               rd->family->architecture);
    if (sliding && (!use || off))
        return error_set_param(rd->err, OCTAVO_EINVAL, "layer_types",
                               "%s: layer_types asks for sliding_attention, but %s", rd->what,
                               use ? "sliding_window is null" : "use_sliding_window is not true");
    c->sliding_window = sliding ? window : 0;
    return 0;
}

/* ---- the whole ---- */

static int tokens_parse(struct reader *rd)
{
    struct model_config *c = rd->c;
    const json_t *bos = json_object_get(rd->root, "bos_token_id");
    int64_t id = bos ? -1 : rd->family->bos;
    if (json_is_array(bos))
        bos = json_array_get(bos, 0);
    if (json_is_integer(bos))
        id = json_integer_value(bos);
    else if (bos && !json_is_null(bos))
        return error_set_param(rd->err, OCTAVO_EINVAL, "bos_token_id", "%s: bos_token_id must be an integer or null",
                               rd->what);
    c->bos_token_id = id >= 0 && id < c->vocab_size ? (int32_t)id : -1;
    if (!json_object_get(rd->root, "eos_token_id") && rd->family->eos >= 0 && rd->family->eos < c->vocab_size)
        c->eos_token_ids[c->num_eos_token_ids++] = rd->family->eos;
    return config_eos_parse(rd->root, rd->what, c, rd->err);
}

static int fields_parse(struct reader *rd)
{
    struct model_config *c = rd->c;
    c->family = rd->family->family;
    snprintf(c->architecture, sizeof(c->architecture), "%s", rd->family->architecture);
    c->max_position_embeddings = rd->family->max_position_embeddings;
    int r;
    if ((r = require_int(rd, "hidden_size", MAX_HIDDEN, &c->hidden_size)) < 0 ||
        (r = require_int(rd, "intermediate_size", MAX_INTERMEDIATE, &c->intermediate_size)) < 0 ||
        (r = require_int(rd, "num_hidden_layers", CONFIG_MAX_LAYERS, &c->num_hidden_layers)) < 0 ||
        (r = require_int(rd, "num_attention_heads", MAX_HEADS, &c->num_attention_heads)) < 0 ||
        (r = require_int(rd, "vocab_size", MAX_VOCAB, &c->vocab_size)) < 0 || (r = heads_parse(rd)) < 0 ||
        (r = json_get_int(rd->root, rd->what, "max_position_embeddings", 1, MAX_POSITIONS, &c->max_position_embeddings,
                          rd->err)) < 0 ||
        (r = dtype_field_parse(rd)) < 0 || (r = norm_and_act_parse(rd)) < 0 ||
        (r = json_get_bool(rd->root, rd->what, "tie_word_embeddings", &c->tie_word_embeddings, rd->err)) < 0)
        return r;
    if (c->family != MODEL_QWEN2 &&
        (r = json_get_bool(rd->root, rd->what, "attention_bias", &c->attention_bias, rd->err)) < 0)
        return r;
    if (c->family == MODEL_LLAMA && (r = json_get_bool(rd->root, rd->what, "mlp_bias", &c->mlp_bias, rd->err)) < 0)
        return r;
    if ((r = sliding_parse(rd)) < 0 || (r = tokens_parse(rd)) < 0)
        return r;
    return config_rope_parse(rd->root, rd->what, c, rd->err);
}

/* dir is NULL when there is only text. */
static int parse(json_t *config, const char *what, const char *dir, struct model_config *ret, struct octavo_error *err)
{
    json_t *flat = NULL;
    *ret = (struct model_config){0};
    if (!json_is_object(config))
        return error_set(err, OCTAVO_EINVAL, "%s must hold a JSON object", what);
    struct reader rd = {.what = what, .c = ret, .err = err};
    int r = flatten(config, what, &flat, err);
    rd.root = flat;
    if (r < 0 || (r = quant_check(dir, config, what, err)) < 0 || (r = family_find(flat, what, &rd.family, err)) < 0)
        goto out;
    r = fields_parse(&rd);
out:
    json_decref(flat);
    return r;
}

int model_config_parse(const char *config, size_t config_len, const char *generation, size_t generation_len,
                       struct model_config *ret_config, struct generation_config *ret_generation,
                       struct octavo_error *err)
{
    json_t *c = NULL, *g = NULL;
    *ret_generation = (struct generation_config){0};
    int r = json_parse_text(config, config_len, "config.json", 0, &c, err);
    if (r == 0)
        r = parse(c, "config.json", NULL, ret_config, err);
    if (r == 0 && generation)
        r = json_parse_text(generation, generation_len, "generation_config.json", 0, &g, err);
    if (r == 0 && g)
        r = config_generation_parse(g, "generation_config.json", ret_config, ret_generation, err);
    json_decref(c);
    json_decref(g);
    return r;
}

static int folder_check(const char *dir, struct octavo_error *err)
{
    struct stat st;
    if (stat(dir, &st) < 0)
        return error_set(err, OCTAVO_EIO, "cannot open the model folder %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, OCTAVO_EINVAL,
                         "%s is not a folder: name the folder that holds config.json and the safetensors files", dir);
    return 0;
}

int model_config_load(const char *dir, struct model_config *ret_config, struct generation_config *ret_generation,
                      struct octavo_error *err)
{
    json_t *c = NULL, *g = NULL;
    char *config = path_join(dir, "config.json"), *generation = path_join(dir, "generation_config.json");
    *ret_generation = (struct generation_config){0};
    int r = folder_check(dir, err);
    if (r < 0)
        goto out;
    if (access(config, F_OK) < 0) {
        r = error_set(err, OCTAVO_EIO, "%s has no config.json: it is not a Hugging Face model folder", dir);
        goto out;
    }
    if ((r = json_parse_file(config, CONFIG_MAX_BYTES, 0, &c, err)) < 0 ||
        (r = parse(c, config, dir, ret_config, err)) < 0)
        goto out;
    if (access(generation, F_OK) == 0 && (r = json_parse_file(generation, CONFIG_MAX_BYTES, 0, &g, err)) == 0)
        r = config_generation_parse(g, generation, ret_config, ret_generation, err);
out:
    json_decref(c);
    json_decref(g);
    free(config);
    free(generation);
    return r;
}
