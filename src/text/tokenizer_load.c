/* Loading tokenizer.json and tokenizer_config.json: see tokenizer.h. What is not understood is refused by name rather
 * than passed over, because a tokenizer that is nearly right spoils answers silently. */
#include "text/tokenizer_impl.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "tokenizer.json"
#define CONFIG "tokenizer_config.json"
#define MAX_FILE_BYTES ((size_t)256 << 20)
#define MAX_AFFIX_IDS 4096

static const char *const token_names[] = {"bos_token", "eos_token", "pad_token", "unk_token"};

int tokenizer_node_type(const json_t *node, const char *what, const char **ret_type, struct octavo_error *err)
{
    const json_t *type = json_object_get(node, "type");
    if (!json_is_object(node) || !json_is_string(type))
        return error_set(err, OCTAVO_EINVAL, "%s must be null or an object with a \"type\"", what);
    *ret_type = json_string_value(type);
    return 0;
}

int tokenizer_load_pattern(const json_t *node, const char *what, struct regex **ret_regex, struct octavo_error *err)
{
    const json_t *regex = json_object_get(node, "Regex"), *string = json_object_get(node, "String");
    const json_t *v = regex ? regex : string;
    if (!json_is_string(v))
        return error_set(err, OCTAVO_EINVAL, "%s must be {\"Regex\": ...} or {\"String\": ...}", what);
    if (!json_string_length(v))
        return error_set(err, OCTAVO_EINVAL, "%s is empty", what);
    return regex_compile(json_string_value(v), json_string_length(v), !regex, ret_regex, err);
}

/* ---- post-processor ----------------------------------------------------------------------------------------- */

void affixes_release(struct affixes *x)
{
    token_ids_release(&x->before);
    token_ids_release(&x->after);
}

static int check_affix(const struct tokenizer *tok, const json_t *id, int32_t *ret, struct octavo_error *err)
{
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v >= tokenizer_vocab_size(tok) || !tokenizer_token_string(tok, (int32_t)v, NULL))
        return error_set(err, OCTAVO_EINVAL, WHAT ": post_processor adds an id that no token has");
    *ret = (int32_t)v;
    return 0;
}

/* The ids of one SpecialToken, read from special_tokens. */
static int push_special(const json_t *node, const json_t *name, const struct tokenizer *tok, struct token_ids *out,
                        struct octavo_error *err)
{
    const json_t *ids = NULL;
    if (json_is_string(name))
        ids = json_object_get(json_object_get(json_object_get(node, "special_tokens"), json_string_value(name)), "ids");
    if (!json_is_array(ids))
        return error_set(err, OCTAVO_EINVAL, WHAT ": post_processor.special_tokens has no ids for \"%.80s\"",
                         json_is_string(name) ? json_string_value(name) : "?");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        int32_t id = -1;
        int r = check_affix(tok, json_array_get(ids, i), &id, err);
        if (r)
            return r;
        if (out->len >= MAX_AFFIX_IDS)
            return error_set(err, OCTAVO_EINVAL, WHAT ": post_processor adds more than %d tokens", MAX_AFFIX_IDS);
        token_ids_push(out, id);
    }
    return 0;
}

/* Wraps what x holds already: later processors work on the outcome of earlier ones. */
static int wrap(struct affixes *x, struct token_ids *before, struct token_ids *after, struct octavo_error *err)
{
    if (x->before.len + x->after.len + before->len + after->len > MAX_AFFIX_IDS)
        return error_set(err, OCTAVO_EINVAL, WHAT ": post_processor adds more than %d tokens", MAX_AFFIX_IDS);
    for (size_t i = 0; i < x->before.len; i++)
        token_ids_push(before, x->before.ids[i]);
    token_ids_release(&x->before);
    x->before = *before;
    *before = (struct token_ids){0};
    for (size_t i = 0; i < after->len; i++)
        token_ids_push(&x->after, after->ids[i]);
    return 0;
}

static int load_template(struct affixes *x, const json_t *node, const struct tokenizer *tok, struct octavo_error *err)
{
    const json_t *single = json_object_get(node, "single");
    struct token_ids ids[2] = {0};
    int texts = 0, r = 0;
    for (size_t i = 0; i < json_array_size(single) && !r; i++) {
        const json_t *part = json_array_get(single, i);
        const json_t *seq = json_object_get(part, "Sequence"), *special = json_object_get(part, "SpecialToken");
        const char *id = json_string_value(json_object_get(seq, "id"));
        if (seq && id && !strcmp(id, "A"))
            texts++;
        else if (!seq && special)
            r = push_special(node, json_object_get(special, "id"), tok, &ids[texts > 0], err);
        else
            r = error_set(err, OCTAVO_EINVAL,
                          WHAT ": post_processor.single[%zu] must be a SpecialToken or the Sequence A", i);
    }
    if (!r && texts != 1)
        r = error_set(err, OCTAVO_EINVAL, WHAT ": post_processor.single must hold the Sequence A exactly once");
    if (!r)
        r = wrap(x, &ids[0], &ids[1], err);
    token_ids_release(&ids[0]);
    token_ids_release(&ids[1]);
    return r;
}

/* Bert and Roberta: [cls] text [sep]. */
static int load_cls_sep(struct affixes *x, const json_t *node, const struct tokenizer *tok, struct octavo_error *err)
{
    struct token_ids ids[2] = {0};
    int32_t id = -1;
    int r = check_affix(tok, json_array_get(json_object_get(node, "cls"), 1), &id, err);
    if (!r) {
        token_ids_push(&ids[0], id);
        r = check_affix(tok, json_array_get(json_object_get(node, "sep"), 1), &id, err);
    }
    if (!r) {
        token_ids_push(&ids[1], id);
        r = wrap(x, &ids[0], &ids[1], err);
    }
    token_ids_release(&ids[0]);
    token_ids_release(&ids[1]);
    return r;
}

static int load_affixes(struct affixes *x, const json_t *node, const struct tokenizer *tok, int depth,
                        struct octavo_error *err)
{
    if (!node || json_is_null(node))
        return 0;
    const char *type = NULL;
    int r = tokenizer_node_type(node, WHAT ": post_processor", &type, err);
    if (r)
        return r;
    if (!strcmp(type, "ByteLevel"))
        return 0; /* it moves offsets, not tokens */
    if (!strcmp(type, "TemplateProcessing"))
        return load_template(x, node, tok, err);
    if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing"))
        return load_cls_sep(x, node, tok, err);
    if (strcmp(type, "Sequence") != 0)
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT ": post_processor of type \"%.80s\" is not supported", type);
    const json_t *list = json_object_get(node, "processors");
    if (!json_is_array(list) || depth > 8)
        return error_set(err, OCTAVO_EINVAL, WHAT ": post_processor.processors must be an array, not nested too deep");
    for (size_t i = 0; i < json_array_size(list) && !r; i++)
        r = load_affixes(x, json_array_get(list, i), tok, depth + 1, err);
    return r;
}

int affixes_load(struct affixes *x, const json_t *node, const struct tokenizer *tok, struct octavo_error *err)
{
    return load_affixes(x, node, tok, 0, err);
}

/* ---- added tokens and tokenizer_config.json ------------------------------------------------------------------- */

static int load_added(struct tokenizer *tok, const json_t *list, struct octavo_error *err)
{
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return error_set(err, OCTAVO_EINVAL, WHAT ".added_tokens must be an array");
    int r = 0;
    for (size_t i = 0; i < json_array_size(list) && !r; i++) {
        const json_t *entry = json_array_get(list, i), *id = json_object_get(entry, "id");
        r = added_tokens_put(&tok->added, &tok->bpe, entry, json_is_integer(id) ? json_integer_value(id) : -1,
                             WHAT ".added_tokens", err);
    }
    return r;
}

/* The flags of tokenizer_config.json win over those of tokenizer.json, as they do in transformers. */
static int load_added_decoder(struct tokenizer *tok, const json_t *map, struct octavo_error *err)
{
    if (!map || json_is_null(map))
        return 0;
    if (!json_is_object(map))
        return error_set(err, OCTAVO_EINVAL, CONFIG ".added_tokens_decoder must be an object");
    const char *key;
    json_t *entry;
    json_object_foreach ((json_t *)map, key, entry) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end)
            return error_set(err, OCTAVO_EINVAL, CONFIG ".added_tokens_decoder: \"%.80s\" is not an id", key);
        int r = added_tokens_put(&tok->added, &tok->bpe, entry, id, CONFIG ".added_tokens_decoder", err);
        if (r)
            return r;
    }
    return 0;
}

/* A string, or an object with content; NULL for everything else. */
static const char *token_content(const json_t *v)
{
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

/* A token that the configuration calls special is one, even when only the vocabulary lists it. */
static void make_special(struct tokenizer *tok, const char *content)
{
    int32_t id = content ? strmap_get(&tok->bpe.vocab, content, strlen(content), -1) : -1;
    if (id >= 0)
        added_tokens_put_special(&tok->added, id, content, strlen(content));
}

static int load_config(struct tokenizer *tok, const json_t *config, struct octavo_error *err)
{
    if (!json_is_object(config))
        return error_set(err, OCTAVO_EINVAL, CONFIG " must be an object");
    int r = load_added_decoder(tok, json_object_get(config, "added_tokens_decoder"), err);
    if (r)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(token_names); i++) {
        const json_t *v = json_object_get(config, token_names[i]);
        const char *content = token_content(v);
        if (!content) {
            if (v && !json_is_null(v))
                return error_set(err, OCTAVO_EINVAL, CONFIG ".%s must be null, a string or an object with content",
                                 token_names[i]);
            continue;
        }
        tok->named[i] = mem_strdup(content);
        make_special(tok, content);
    }
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        const json_t *list = json_object_get(config, lists[i]);
        const char *key;
        json_t *v;
        for (size_t k = 0; k < json_array_size(list); k++)
            make_special(tok, token_content(json_array_get(list, k)));
        json_object_foreach ((json_t *)list, key, v)
            make_special(tok, token_content(v));
    }
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static int load(struct tokenizer *tok, const json_t *root, const json_t *config, struct octavo_error *err)
{
    if (!json_is_object(root))
        return error_set(err, OCTAVO_EINVAL, WHAT " must be an object");
    const char *version = "1.0";
    int r = json_get_string(root, WHAT, "version", &version, err);
    if (r)
        return r;
    if (strcmp(version, "1.0") != 0)
        return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " has version \"%.80s\"; only 1.0 is known", version);
    if ((r = bpe_load(&tok->bpe, json_object_get(root, "model"), err)) ||
        (r = normalizer_load(&tok->normalizer, json_object_get(root, "normalizer"), err)) ||
        (r = splitter_load(&tok->splitter, json_object_get(root, "pre_tokenizer"), err)) ||
        (r = decoder_load(&tok->decoder, json_object_get(root, "decoder"), err)) ||
        (r = load_added(tok, json_object_get(root, "added_tokens"), err)) ||
        (r = config ? load_config(tok, config, err) : 0) || (r = added_tokens_seal(&tok->added, &tok->normalizer, err)))
        return r;
    return affixes_load(&tok->affixes, json_object_get(root, "post_processor"), tok, err);
}

int tokenizer_parse(const char *json, size_t json_len, const char *config, size_t config_len,
                    struct tokenizer **ret_tok, struct octavo_error *err)
{
    json_t *root = NULL, *config_root = NULL;
    struct tokenizer *tok = NULL;
    int r = json_parse_text(json, json_len, WHAT, JSON_PARSE_ALLOW_NUL, &root, err);
    if (!r && config)
        r = json_parse_text(config, config_len, CONFIG, JSON_PARSE_ALLOW_NUL, &config_root, err);
    if (r)
        goto out;
    tok = mem_calloc(1, sizeof(*tok));
    r = load(tok, root, config_root, err);
    if (r)
        goto out;
    *ret_tok = tok;
    tok = NULL;
out:
    tokenizer_free(tok);
    json_decref(root);
    json_decref(config_root);
    return r;
}

int tokenizer_open(const char *dir, struct tokenizer **ret_tok, struct octavo_error *err)
{
    char *path = path_join(dir, WHAT), *config_path = path_join(dir, CONFIG);
    struct buf json = {0}, config = {0};
    int r = file_read(path, MAX_FILE_BYTES, &json, err);
    bool has_config = !r && file_exists(config_path);
    if (has_config)
        r = file_read(config_path, MAX_FILE_BYTES, &config, err);
    if (!r) {
        r = tokenizer_parse(buf_str(&json), json.len, has_config ? buf_str(&config) : NULL, config.len, ret_tok, err);
        if (r)
            error_prefix(err, "%s", dir);
    }
    buf_release(&json);
    buf_release(&config);
    free(path);
    free(config_path);
    return r;
}
