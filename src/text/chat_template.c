/* Chat templates: see chat_template.h. Opened by the server's start-up, rendered on its request threads. */
#include "text/chat_template.h"

#include "base/file.h"
#include "base/mem.h"
#include "text/jinja.h"
#include "text/jinja_str.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 64 << 20, MAX_TEMPLATE_BYTES = 1 << 20, MAX_NAMED = 64 };

struct named_template {
    char *name;
    char *text;
    struct jinja_template *jinja;
    bool lists; /* wants content as a list of parts */
};

struct chat_template {
    struct named_template items[MAX_NAMED];
    size_t num;
    json_t *tokens; /* bos_token and friends, by name */
};

static int add(struct chat_template *t, const char *name, const char *text, size_t len, const char *what,
               struct octavo_error *err)
{
    for (size_t i = 0; i < t->num; i++)
        if (!strcmp(t->items[i].name, name))
            return 0; /* what came first wins */
    if (t->num == MAX_NAMED)
        return error_set(err, OCTAVO_EINVAL, "%s: more than %d chat templates", what, MAX_NAMED);
    struct named_template n = {0};
    int rc = jinja_compile(text, len, what, &n.jinja, err);
    if (rc < 0)
        return rc;
    n.name = mem_strdup(name);
    n.text = mem_strndup(text, len);
    n.lists = jinja_loops_over_content(n.jinja);
    t->items[t->num++] = n;
    return 0;
}

static int add_file(struct chat_template *t, const char *name, const char *path, struct octavo_error *err)
{
    struct buf b = {0};
    int rc = file_read(path, MAX_TEMPLATE_BYTES, &b, err);
    if (rc == 0)
        rc = add(t, name, buf_str(&b), b.len, path, err);
    buf_release(&b);
    return rc;
}

/* additional_chat_templates/<name>.jinja */
static int add_folder(struct chat_template *t, const char *dir, struct octavo_error *err)
{
    char *path = path_join(dir, "additional_chat_templates");
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort), rc = 0;
    for (int i = 0; i < n; i++) {
        const char *file = names[i]->d_name, *dot = strrchr(file, '.');
        if (rc == 0 && dot && dot != file && !strcmp(dot, ".jinja")) {
            char *name = mem_strndup(file, (size_t)(dot - file)), *full = path_join(path, file);
            rc = add_file(t, name, full, err);
            free(name);
            free(full);
        }
        free(names[i]);
    }
    free(names);
    free(path);
    return rc;
}

/* chat_template of a JSON file: a string, or a list of {name, template}. */
static int add_json(struct chat_template *t, const json_t *config, const char *what, struct octavo_error *err)
{
    const json_t *v = json_object_get(config, "chat_template");
    char *title = mem_printf("%s: chat_template", what);
    int rc = 0;
    if (json_is_string(v)) {
        rc = add(t, "default", json_string_value(v), json_string_length(v), title, err);
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v) && rc == 0; i++) {
            const json_t *item = json_array_get(v, i), *text = json_object_get(item, "template");
            const char *name = json_string_value(json_object_get(item, "name"));
            if (!name || !json_is_string(text))
                rc = error_set(err, OCTAVO_EINVAL, "%s[%zu] needs a name and a template, both strings", title, i);
            else
                rc = add(t, name, json_string_value(text), json_string_length(text), title, err);
        }
    } else if (v && !json_is_null(v)) {
        rc = error_set(err, OCTAVO_EINVAL, "%s must be a string or a list", title);
    }
    free(title);
    return rc;
}

/* Missing files are fine; others must hold an object. */
static int read_config(const char *dir, const char *name, json_t **ret, char **ret_path, struct octavo_error *err)
{
    *ret = NULL;
    *ret_path = path_join(dir, name);
    if (!file_exists(*ret_path))
        return 0;
    int rc = json_parse_file(*ret_path, MAX_CONFIG_BYTES, 0, ret, err);
    if (rc == 0 && !json_is_object(*ret))
        rc = error_set(err, OCTAVO_EINVAL, "%s is not a JSON object", *ret_path);
    return rc;
}

static void set_token(struct chat_template *t, const char *key, const json_t *v)
{
    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (json_is_string(v))
        json_object_set(t->tokens, key, (json_t *)(uintptr_t)v);
}

static void set_tokens(struct chat_template *t, const json_t *config, const struct tokenizer *tok)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const char *named = tok ? tokenizer_named_token(tok, keys[i]) : NULL;
        if (named)
            json_object_set_new(t->tokens, keys[i], json_string(named));
        else
            set_token(t, keys[i], json_object_get(config, keys[i]));
    }
    const json_t *more = json_object_get(config, "additional_special_tokens");
    if (json_array_size(more)) {
        json_t *list = json_array();
        for (size_t i = 0; i < json_array_size(more); i++) {
            json_t *v = json_array_get(more, i);
            v = json_is_object(v) ? json_object_get(v, "content") : v;
            if (json_is_string(v))
                json_array_append(list, v);
        }
        json_object_set_new(t->tokens, "additional_special_tokens", list);
    }
}

int chat_template_open(const char *dir, const char *path, const struct tokenizer *tok,
                       struct chat_template **ret_template, struct octavo_error *err)
{
    struct chat_template *t = mem_calloc(1, sizeof(*t));
    json_t *config = NULL, *legacy = NULL;
    char *config_path = NULL, *legacy_path = NULL, *file = path_join(dir, "chat_template.jinja");
    t->tokens = json_object();
    int rc = read_config(dir, "tokenizer_config.json", &config, &config_path, err);
    if (rc < 0)
        goto out;
    set_tokens(t, config, tok);
    if (path) {
        rc = add_file(t, "default", path, err);
        goto out;
    }
    if (file_exists(file))
        rc = add_file(t, "default", file, err);
    if (rc == 0)
        rc = add_folder(t, dir, err);
    if (rc == 0 && !t->num)
        rc = add_json(t, config, config_path, err);
    if (rc == 0 && !t->num) {
        rc = read_config(dir, "chat_template.json", &legacy, &legacy_path, err);
        if (rc == 0)
            rc = add_json(t, legacy, legacy_path, err);
    }
out:
    json_decref(config);
    json_decref(legacy);
    free(config_path);
    free(legacy_path);
    free(file);
    if (rc < 0) {
        chat_template_free(t);
        return rc;
    }
    *ret_template = t;
    return 0;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->num; i++) {
        free(t->items[i].name);
        free(t->items[i].text);
        jinja_free(t->items[i].jinja);
    }
    json_decref(t->tokens);
    free(t);
}

static const struct named_template *choose(const struct chat_template *t, bool tools)
{
    const struct named_template *def = NULL;
    for (size_t i = 0; i < t->num; i++) {
        if (tools && !strcmp(t->items[i].name, "tool_use"))
            return &t->items[i];
        if (!strcmp(t->items[i].name, "default"))
            def = &t->items[i];
    }
    return def;
}

/* ---- messages, as vLLM and transformers prepare them ----------------------------------------------------------- */

static json_t *text_part(const char *s, size_t len)
{
    json_t *part = json_object();
    json_object_set_new(part, "type", json_string("text"));
    json_object_set_new(part, "text", json_stringn_nocheck(s, len));
    return part;
}

/* The text of one part, or NULL with an error. */
static const json_t *part_text(const json_t *part, size_t i, struct octavo_error *err)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    if (json_is_string(part))
        return part;
    const json_t *text = json_object_get(part, "text");
    if (type && !strcmp(type, "refusal"))
        text = json_object_get(part, "refusal");
    bool known = !type || !strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text") ||
                 !strcmp(type, "refusal");
    if (json_is_object(part) && known && json_is_string(text))
        return text;
    error_set_param(err, OCTAVO_EINVAL, "messages", "messages[%zu]: content has a part of type '%s' that is not text",
                    i, type ? type : "?");
    return NULL;
}

static int set_content(json_t *msg, size_t i, bool lists, struct octavo_error *err)
{
    const json_t *content = json_object_get(msg, "content");
    json_t *parts = json_array();
    struct buf joined = {0};
    int rc = 0;
    if (content && !json_is_null(content) && !json_is_string(content) && !json_is_array(content))
        rc = error_set_param(err, OCTAVO_EINVAL, "messages", "messages[%zu]: content must be a string or a list", i);
    if (rc == 0 && json_is_string(content)) {
        json_array_append_new(parts, text_part(json_string_value(content), json_string_length(content)));
        buf_append(&joined, json_string_value(content), json_string_length(content));
    }
    for (size_t k = 0; rc == 0 && k < json_array_size(content); k++) {
        const json_t *text = part_text(json_array_get(content, k), i, err);
        if (!text) {
            rc = OCTAVO_EINVAL;
            break;
        }
        if (k)
            buf_putc(&joined, '\n');
        buf_append(&joined, json_string_value(text), json_string_length(text));
        json_array_append_new(parts, text_part(json_string_value(text), json_string_length(text)));
    }
    if (rc == 0 && lists)
        json_object_set(msg, "content", parts);
    else if (rc == 0)
        json_object_set_new(msg, "content", json_stringn_nocheck(buf_str(&joined), joined.len));
    json_decref(parts);
    buf_release(&joined);
    return rc;
}

/* Arguments come as JSON text and templates want the object. */
static int set_tool_calls(json_t *msg, size_t i, struct octavo_error *err)
{
    const json_t *calls = json_object_get(msg, "tool_calls");
    if (!json_is_array(calls) || !json_array_size(calls)) {
        json_object_del(msg, "tool_calls");
        return 0;
    }
    json_t *list = json_array();
    int rc = 0;
    for (size_t k = 0; k < json_array_size(calls) && rc == 0; k++) {
        json_t *call = json_copy(json_array_get(calls, k)), *args = NULL;
        json_array_append_new(list, call);
        json_t *fn = json_copy(json_object_get(call, "function"));
        if (!fn)
            continue;
        const json_t *given = json_object_get(fn, "arguments");
        char what[128];
        snprintf(what, sizeof(what), "messages[%zu].tool_calls[%zu].function.arguments", i, k);
        if (json_is_string(given) && json_string_length(given))
            rc = json_parse_text(json_string_value(given), json_string_length(given), what, 0, &args, err);
        else if (!json_is_object(given) && !json_is_array(given))
            args = json_object();
        if (rc == 0 && args)
            json_object_set_new(fn, "arguments", args);
        json_object_set_new(call, "function", fn);
    }
    if (rc == 0)
        json_object_set(msg, "tool_calls", list);
    json_decref(list);
    return rc;
}

/* Templates read a message's reasoning under one of three names: fill in the one that is there. */
static void set_reasoning(json_t *msg)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        json_t *v = json_object_get(msg, names[i]);
        if (!v || json_is_null(v))
            continue;
        json_incref(v);
        if (!json_object_get(msg, "thinking"))
            json_object_set(msg, "thinking", v);
        json_object_set_new(msg, "reasoning_content", v);
        return;
    }
}

static int make_messages(const json_t *messages, bool lists, json_t **ret, struct octavo_error *err)
{
    json_t *out = *ret = json_array();
    if (!json_is_array(messages))
        return error_set_param(err, OCTAVO_EINVAL, "messages", "messages must be a list");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *src = json_array_get(messages, i);
        if (!json_is_object(src))
            return error_set_param(err, OCTAVO_EINVAL, "messages", "messages[%zu] must be an object", i);
        json_t *msg = json_copy((json_t *)(uintptr_t)src);
        json_array_append_new(out, msg);
        int rc = set_content(msg, i, lists, err);
        if (rc == 0 && json_object_get(msg, "tool_calls"))
            rc = set_tool_calls(msg, i, err);
        if (rc < 0)
            return rc;
        set_reasoning(msg);
    }
    return 0;
}

/* ---- continue_final_message ------------------------------------------------------------------------------------ */

static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";

/* Puts the tag behind the last message's text; *final is that text as it was. */
static int mark_final(json_t *messages, struct buf *final, struct octavo_error *err)
{
    size_t n = json_array_size(messages);
    if (!n)
        return error_set_param(err, OCTAVO_EINVAL, "continue_final_message", "there is no message to continue");
    json_t *owner = json_array_get(messages, n - 1), *content = json_object_get(owner, "content");
    const char *key = "content";
    if (json_is_array(content)) {
        if (!json_array_size(content))
            return error_set_param(err, OCTAVO_EINVAL, "continue_final_message",
                                   "the last message has no text to continue");
        owner = json_array_get(content, json_array_size(content) - 1);
        content = json_object_get(owner, "text");
        key = "text";
    }
    struct buf b = {0};
    buf_append(final, json_string_value(content), json_string_length(content));
    buf_append(&b, buf_str(final), final->len);
    buf_puts(&b, tag);
    json_object_set_new(owner, key, json_stringn_nocheck(buf_str(&b), b.len));
    buf_release(&b);
    return 0;
}

static int cut_final(struct buf *out, size_t from, const struct buf *final, struct octavo_error *err)
{
    const char *s = out->data + from, *f = buf_str(final);
    size_t len = out->len - from, tag_len = strlen(tag), lead = 0, n;
    while (lead < final->len && (n = jstr_space_at(f + lead, final->len - lead)) > 0)
        lead += n;
    size_t at = out->data ? jstr_rfind(s, len, tag, tag_len - 1) : SIZE_MAX;
    if (at == SIZE_MAX || jstr_find(s, len, f + lead, jstr_rstrip_len(f + lead, final->len - lead)) == SIZE_MAX)
        return error_set_param(err, OCTAVO_EINVAL, "continue_final_message",
                               "the chat template does not print the last message as it is, so it cannot be continued");
    bool spaced = at + tag_len <= len && s[at + tag_len - 1] == ' ';
    out->len = from + (spaced ? at : jstr_rstrip_len(s, at));
    out->data[out->len] = '\0';
    return 0;
}

/* ---- rendering ------------------------------------------------------------------------------------------------- */

static int add_kwargs(json_t *context, const json_t *kwargs, struct octavo_error *err)
{
    static const char *const reserved[] = {"messages",
                                           "conversation",
                                           "tools",
                                           "documents",
                                           "add_generation_prompt",
                                           "continue_final_message",
                                           "chat_template",
                                           "tokenize",
                                           "padding",
                                           "truncation",
                                           "max_length",
                                           "return_tensors",
                                           "return_dict",
                                           "return_assistant_tokens_mask",
                                           "tokenizer_kwargs"};
    if (kwargs && !json_is_null(kwargs) && !json_is_object(kwargs))
        return error_set_param(err, OCTAVO_EINVAL, "chat_template_kwargs", "chat_template_kwargs must be an object");
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)kwargs, key, v) {
        for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
            if (!strcmp(key, reserved[i]))
                return error_set_param(err, OCTAVO_EINVAL, "chat_template_kwargs",
                                       "chat_template_kwargs cannot set '%s': it has a field of its own", key);
        json_object_set(context, key, v);
    }
    return 0;
}

static void set_or_null(json_t *context, const char *key, const json_t *v)
{
    if (v)
        json_object_set(context, key, (json_t *)(uintptr_t)v);
    else
        json_object_set_new(context, key, json_null());
}

int chat_template_render(const struct chat_template *t, const struct chat_template_input *in, struct buf *out,
                         struct octavo_error *err)
{
    const struct named_template *n = choose(t, json_array_size(in->tools) > 0);
    if (!n)
        return error_set(err, OCTAVO_EINVAL,
                         "the model has no chat template: pass --chat-template, or use completions with plain text");
    if (in->add_generation_prompt && in->continue_final_message)
        return error_set_param(err, OCTAVO_EINVAL, "continue_final_message",
                               "continue_final_message and add_generation_prompt exclude each other");
    json_t *context = json_object(), *messages = NULL;
    struct buf final = {0};
    size_t from = out->len;
    /* deep, as reference counts of a shared object may not change on several threads at once */
    json_t *tokens = json_deep_copy(t->tokens);
    json_object_update(context, tokens);
    json_decref(tokens);
    int rc = make_messages(in->messages, n->lists, &messages, err);
    if (rc == 0)
        rc = add_kwargs(context, in->kwargs, err);
    if (rc == 0 && in->continue_final_message)
        rc = mark_final(messages, &final, err);
    if (rc < 0)
        goto out;
    json_object_set(context, "messages", messages);
    set_or_null(context, "tools", in->tools);
    set_or_null(context, "documents", in->documents);
    json_object_set_new(context, "add_generation_prompt", json_boolean(in->add_generation_prompt));
    rc = jinja_render(n->jinja, context, NULL, out, err);
    if (rc == 0 && in->continue_final_message)
        rc = cut_final(out, from, &final, err);
out:
    json_decref(messages);
    json_decref(context);
    buf_release(&final);
    return rc;
}
