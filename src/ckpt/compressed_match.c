/* Lists of module names in compressed-tensors configs: see compressed.h. A config is foreign text: the number of
 * patterns and the work of each match are limited. */
#include "base/mem.h"
#include "ckpt/compressed.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES 65536
#define MAX_PATTERNS 1024
#define MATCH_LIMIT 20000 /* steps: names are short */
#define HEAP_LIMIT_KIB 1024

struct ct_pattern {
    char *text;
    pcre2_code *code; /* NULL: text is a name or a class */
};

struct ct_patterns {
    struct ct_pattern *items; /* (num) */
    size_t num;
    pcre2_match_data *data;
    pcre2_match_context *context;
};

static int pattern_compile(struct ct_pattern *p, const char *what, const char *key, struct octavo_error *err)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[120];
    const char *text = p->text + 3;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context)
        pcre2_set_parens_nest_limit(context, 50);
    p->code = pcre2_compile((PCRE2_SPTR)text, strlen(text), PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code,
                            &at, context);
    pcre2_compile_context_free(context);
    if (p->code)
        return 0;
    pcre2_get_error_message(code, why, sizeof(why));
    return error_set_param(err, OCTAVO_EINVAL, key, "%s: the pattern \"%.100s\" of %s is not valid: %s (at %zu)", what,
                           p->text, key, (const char *)why, at);
}

int ct_patterns_parse(const json_t *list, const char *what, const char *key, struct ct_patterns **ret,
                      struct octavo_error *err)
{
    struct ct_patterns *p = mem_calloc(1, sizeof(*p));
    size_t n = json_array_size(list), num_patterns = 0;
    int r = 0;
    if (list && !json_is_null(list) && !json_is_array(list))
        r = error_set_param(err, OCTAVO_EINVAL, key, "%s: %s must be a list of strings", what, key);
    else if (n > MAX_ENTRIES)
        r = error_set_param(err, OCTAVO_EINVAL, key, "%s: %s has %zu entries, but at most %d are supported", what, key,
                            n, MAX_ENTRIES);
    if (r < 0)
        goto out;
    p->items = mem_calloc(MAX(n, (size_t)1), sizeof(*p->items));
    p->data = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    if (!p->data || !p->context) {
        r = error_set(err, OCTAVO_ENOMEM, "%s: no memory for the patterns of %s", what, key);
        goto out;
    }
    pcre2_set_match_limit(p->context, MATCH_LIMIT);
    pcre2_set_heap_limit(p->context, HEAP_LIMIT_KIB);
    for (size_t i = 0; i < n && r == 0; i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (!s) {
            r = error_set_param(err, OCTAVO_EINVAL, key, "%s: %s must be a list of strings", what, key);
            break;
        }
        struct ct_pattern *item = &p->items[p->num++];
        item->text = mem_strdup(s);
        if (!strncmp(s, "re:", 3) && ++num_patterns > MAX_PATTERNS)
            r = error_set_param(err, OCTAVO_EINVAL, key, "%s: %s has more than %d patterns", what, key, MAX_PATTERNS);
        else if (!strncmp(s, "re:", 3))
            r = pattern_compile(item, what, key, err);
    }
out:
    if (r == 0)
        *ret = p;
    else
        ct_patterns_free(p);
    return r;
}

void ct_patterns_free(struct ct_patterns *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->num; i++) {
        pcre2_code_free(p->items[i].code);
        free(p->items[i].text);
    }
    free(p->items);
    pcre2_match_data_free(p->data);
    pcre2_match_context_free(p->context);
    free(p);
}

int ct_patterns_match(const struct ct_patterns *p, const char *module, const char *class_name, enum ct_rank *ret,
                      struct octavo_error *err)
{
    *ret = CT_RANK_NONE;
    for (size_t i = 0; i < p->num; i++) {
        const struct ct_pattern *item = &p->items[i];
        enum ct_rank rank = CT_RANK_NONE;
        if (item->code) {
            int found = pcre2_match(item->code, (PCRE2_SPTR)module, strlen(module), 0, 0, p->data, p->context);
            if (found < 0 && found != PCRE2_ERROR_NOMATCH)
                return error_set(
                    err, OCTAVO_EINVAL,
                    "quantization_config: the pattern \"%.100s\" takes too long to match %s; write it more "
                    "simply",
                    item->text, module);
            rank = found >= 0 ? CT_RANK_PATTERN : CT_RANK_NONE;
        } else if (!strcmp(item->text, module)) {
            rank = CT_RANK_NAME;
        } else if (!strcmp(item->text, class_name)) {
            rank = CT_RANK_CLASS;
        }
        *ret = MAX(*ret, rank);
    }
    return 0;
}

int ct_config_ignores(const struct ct_config *c, const char *module, const char *class_name, bool *ret,
                      struct octavo_error *err)
{
    enum ct_rank rank;
    int r = ct_patterns_match(c->ignore, module, class_name, &rank, err);
    *ret = r == 0 && rank != CT_RANK_NONE;
    return r;
}

int ct_config_match(const struct ct_config *c, const char *module, const char *class_name, const struct ct_group **ret,
                    struct octavo_error *err)
{
    enum ct_rank best = CT_RANK_NONE, rank;
    bool ignored;
    *ret = NULL;
    int r = ct_config_ignores(c, module, class_name, &ignored, err);
    for (size_t i = 0; i < c->num_groups && r == 0 && !ignored; i++) {
        r = ct_patterns_match(c->groups[i].targets, module, class_name, &rank, err);
        if (r == 0 && rank > best) {
            best = rank;
            *ret = &c->groups[i];
        }
    }
    return r;
}

const char *ct_attention_class(enum model_family family)
{
    static const char *const classes[] = {
        [MODEL_QWEN3] = "Qwen3Attention", [MODEL_QWEN2] = "Qwen2Attention", [MODEL_LLAMA] = "LlamaAttention"};
    return classes[family];
}

/* A pattern that happens to match the module means its linears. */
int ct_attention_check(const struct tensor_source *src, const struct ct_config *c, struct octavo_error *err)
{
    const char *class_name = ct_attention_class(src->config->family);
    for (size_t i = 0; i < c->num_groups; i++) {
        enum ct_rank rank;
        int r = ct_patterns_match(c->groups[i].targets, "", class_name, &rank, err);
        if (r < 0)
            return r;
        if (rank == CT_RANK_CLASS)
            return error_set_param(err, OCTAVO_EUNSUPPORTED, "config_groups",
                                   "%s: quantization_config: the group \"%.60s\" quantises %s modules, which is not "
                                   "supported",
                                   src->dir, c->groups[i].name, class_name);
    }
    return 0;
}
