/* Quantised checkpoints: see quant.h. */
#include "ckpt/quant.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/compressed.h"
#include "ckpt/modelslim.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_MAX_BYTES (16 << 20)
#define DESCRIPTION_MAX_BYTES (100 << 20)

static const char stem[] = "quant_model_description";

/* ---- which file ---- */

static bool is_description(const char *name)
{
    size_t n = strlen(name), m = sizeof(stem) - 1;
    return !strncmp(name, stem, m) && n >= m + 5 && (name[m] == '_' || n == m + 5) && !strcmp(name + n - 5, ".json");
}

/* quant_model_description.json, or the one quant_model_description_<type>.json of older tools. NULL: none. */
static int description_find(const char *dir, char **ret, struct octavo_error *err)
{
    char *found = NULL;
    int r = 0;
    DIR *d = dir ? opendir(dir) : NULL;
    if (!d)
        return 0; /* whoever reads the folder next says why */
    for (struct dirent *e; (e = readdir(d));) {
        if (!is_description(e->d_name))
            continue;
        bool plain = strlen(e->d_name) == sizeof(stem) - 1 + 5;
        if (plain || !found) {
            free(found);
            found = mem_strdup(e->d_name);
            r = 0;
        } else if (strlen(found) != sizeof(stem) - 1 + 5) {
            r = error_set(err, OCTAVO_EINVAL,
                          "%s holds both %.100s and %.100s; leave the one that goes with the weights", dir, found,
                          e->d_name);
        }
        if (plain)
            break;
    }
    closedir(d);
    *ret = found;
    return r;
}

/* quantization_config of the file, or of its text_config, or by its older name. */
static json_t *config_section(const json_t *config)
{
    static const char *const names[] = {"quantization_config", "compression_config"};
    const json_t *places[] = {json_object_get(config, "text_config"), config};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (size_t j = 0; j < ARRAY_LEN(places); j++) {
            json_t *q = json_object_get(places[j], names[i]);
            if (q && !json_is_null(q) && !(json_is_object(q) && !json_object_size(q)))
                return q;
        }
    return NULL;
}

static int method_check(const json_t *section, const char *what, struct octavo_error *err)
{
    const json_t *method = json_object_get(section, "quant_method");
    const char *name = json_is_string(method) ? json_string_value(method) : "not given";
    if (!strcmp(name, "compressed-tensors"))
        return 0;
    return error_set_param(err, OCTAVO_EUNSUPPORTED, "quantization_config",
                           "%s: quantization_config: the quant_method %.60s is not supported; supported: "
                           "compressed-tensors, and ModelSlim's quant_model_description.json",
                           what, name);
}

int quant_check(const char *dir, const json_t *config, const char *what, struct octavo_error *err)
{
    char *name = NULL;
    int r = description_find(dir, &name, err);
    const json_t *section = config_section(config);
    if (r == 0 && section && name)
        log_warning("%s: the quantization_config is left aside, since the folder holds %s", what, name);
    else if (r == 0 && section)
        r = method_check(section, what, err);
    free(name);
    return r;
}

/* ---- reading ---- */

static int description_read(json_t *root, struct quant *q, struct octavo_error *err)
{
    q->format = QUANT_MODELSLIM;
    q->description = root;
    return modelslim_check(root, q->path, &q->c8, err);
}

static int section_read(const json_t *config, struct quant *q, struct octavo_error *err)
{
    const json_t *section = config_section(config);
    if (!section)
        return 0;
    int r = method_check(section, q->path, err);
    if (r < 0)
        return r;
    q->format = QUANT_COMPRESSED;
    return ct_config_parse(section, q->path, &q->compressed, err);
}

int quant_load(const char *dir, struct quant *ret, struct octavo_error *err)
{
    struct quant q = {0};
    char *name = NULL;
    json_t *root = NULL;
    int r = description_find(dir, &name, err);
    if (r < 0)
        goto out;
    q.path = path_join(dir, name ? name : "config.json");
    q.suffix = name ? mem_strndup(name + sizeof(stem) - 1, strlen(name) - (sizeof(stem) - 1) - 5) : NULL;
    if (name && (r = json_parse_file(q.path, DESCRIPTION_MAX_BYTES, JSON_PARSE_REJECT_DUPLICATES, &root, err)) == 0) {
        r = description_read(root, &q, err);
    } else if (!name && (r = json_parse_file(q.path, CONFIG_MAX_BYTES, 0, &root, err)) == 0) {
        r = section_read(root, &q, err);
        json_decref(root);
    }
out:
    free(name);
    if (r == 0)
        *ret = q;
    else
        quant_release(&q);
    return r;
}

int quant_parse(const char *description, const char *config, size_t len, struct quant *ret, struct octavo_error *err)
{
    struct quant q = {.path = mem_strdup(description ? "quant_model_description.json" : "config.json")};
    json_t *root = NULL;
    int r = json_parse_text(description ? description : config, len, q.path, 0, &root, err);
    if (r == 0 && description) {
        r = description_read(root, &q, err);
    } else if (r == 0) {
        r = section_read(root, &q, err);
        json_decref(root);
    }
    if (r == 0)
        *ret = q;
    else
        quant_release(&q);
    return r;
}

void quant_release(struct quant *q)
{
    json_decref(q->description);
    ct_config_free(q->compressed);
    free(q->path);
    free(q->suffix);
    *q = (struct quant){0};
}

int quant_refuse(const struct tensor_source *src, const struct quant *q, struct octavo_error *err)
{
    if (q->format == QUANT_NONE)
        return 0;
    int r = q->format == QUANT_MODELSLIM ? modelslim_layers_check(src, q->description, q->path, err)
                                         : ct_attention_check(src, q->compressed, err);
    return r < 0 ? r : modelslim_refuse(src, err);
}

int quant_linear(struct tensor_source *src, const struct quant *q, const char *module, int n, int k,
                 struct linear_entry *ret, struct octavo_error *err)
{
    switch (q->format) {
    case QUANT_MODELSLIM:
        return modelslim_linear(src, q->description, q->path, module, n, k, ret, err);
    case QUANT_COMPRESSED:
        return ct_linear(src, q->compressed, module, n, k, ret, err);
    default:
        linear_entry_init(ret, "FLOAT", n, k);
        return 0;
    }
}

const char *quant_format_name(enum quant_format format)
{
    static const char *const names[] = {
        [QUANT_NONE] = "float", [QUANT_MODELSLIM] = "ModelSlim", [QUANT_COMPRESSED] = "compressed-tensors"};
    return names[format];
}
