/* Calibration text: see calib_text.h. */
#include "quantize/calib_text.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_MAX_BYTES ((size_t)64 << 20)

/* One line of a .jsonl file, appended to ids. */
static int line_encode(const char *line, size_t len, const char *where, const struct tokenizer *tok,
                       const struct chat_template *template, struct token_ids *ids, struct octavo_error *err)
{
    json_t *root = NULL;
    struct buf text = {0};
    unsigned flags = TOKENIZER_ADD_SPECIAL;
    int r = json_parse_text(line, len, where, 0, &root, err);
    if (r < 0)
        return r;
    const json_t *plain = json_object_get(root, "text"), *messages = json_object_get(root, "messages");
    if (json_is_string(plain)) {
        buf_append(&text, json_string_value(plain), json_string_length(plain));
    } else if (json_is_array(messages)) {
        struct chat_template_input in = {.messages = messages};
        flags = 0;
        r = chat_template_render(template, &in, &text, err);
    } else {
        r = error_set(err, OCTAVO_EINVAL, "%s: a line must be an object with \"text\" or \"messages\"", where);
    }
    if (r == 0 && text.len)
        r = tokenizer_encode(tok, text.data, text.len, flags, ids, err);
    if (r < 0 && plain == NULL)
        error_prefix(err, "%s", where);
    buf_release(&text);
    json_decref(root);
    return r;
}

/* A large file is read to the end: windows come from all of it. */
static int lines_encode(const struct buf *file, const char *path, const struct tokenizer *tok,
                        const struct chat_template *template, struct token_ids *ids, struct octavo_error *err)
{
    int r = 0;
    size_t number = 1;
    for (size_t at = 0; at < file->len && r == 0; number++) {
        const char *line = file->data + at, *end = memchr(line, '\n', file->len - at);
        size_t len = end ? (size_t)(end - line) : file->len - at;
        at += len + 1;
        if (strspn(line, " \t\r") >= len)
            continue;
        char *where = mem_printf("%s:%zu", path, number);
        r = line_encode(line, len, where, tok, template, ids, err);
        free(where);
    }
    return r;
}

static bool ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), len = strlen(suffix);
    return n > len && !strcmp(s + n - len, suffix);
}

bool calib_text_is_ids(const char *path)
{
    return ends(path, ".json");
}

static int ids_read(const struct buf *file, const char *path, struct token_ids *ids, struct octavo_error *err)
{
    json_t *root = NULL, *v;
    size_t i;
    int r = json_parse_text(buf_str(file), file->len, path, 0, &root, err);
    if (r == 0 && !json_is_array(root))
        r = error_set(err, OCTAVO_EINVAL, "%s must be one array of token ids", path);
    if (r == 0) {
        json_array_foreach (root, i, v) {
            bool ok = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX;
            if (!ok) {
                r = error_set(err, OCTAVO_EINVAL, "%s: element %zu is not a token id", path, i);
                break;
            }
            token_ids_push(ids, (int32_t)json_integer_value(v));
        }
    }
    json_decref(root);
    return r;
}

static void windows_cut(const struct token_ids *ids, int64_t num_tokens, int window, struct calib_text *ret)
{
    size_t w = MIN((size_t)window, ids->len), have = ids->len / w;
    size_t want = MAX(MIN((size_t)num_tokens / w, have), (size_t)1);
    ret->window = (int)w;
    ret->num_windows = (int)want;
    ret->ids = mem_alloc(want * w * sizeof(*ret->ids));
    for (size_t i = 0; i < want; i++)
        memcpy(ret->ids + i * w, ids->ids + i * have / want * w, w * sizeof(*ret->ids));
}

int calib_text_load(const char *path, const struct tokenizer *tok, const struct chat_template *template,
                    int64_t num_tokens, int window, int vocab_size, struct calib_text *ret, struct octavo_error *err)
{
    struct buf file = {0};
    struct token_ids ids = {0};
    bool lines = ends(path, ".jsonl");
    *ret = (struct calib_text){0};
    int r = file_read(path, TEXT_MAX_BYTES, &file, err);
    if (r == 0 && calib_text_is_ids(path))
        r = ids_read(&file, path, &ids, err);
    else if (r == 0)
        r = lines ? lines_encode(&file, path, tok, template, &ids, err)
                  : tokenizer_encode(tok, buf_str(&file), file.len, TOKENIZER_ADD_SPECIAL, &ids, err);
    if (r == 0 && ids.len < 2)
        r = error_set_param(err, OCTAVO_EINVAL, "calib",
                            "%s has %zu tokens; calibration needs text: a few thousand tokens of what the model will "
                            "read and write",
                            path, ids.len);
    for (size_t i = 0; i < ids.len && r == 0; i++)
        if (ids.ids[i] < 0 || ids.ids[i] >= vocab_size)
            r = error_set(err, OCTAVO_EINVAL,
                          "%s gives the token %d, but the model has only %d; do text, tokenizer and model belong "
                          "together?",
                          path, (int)ids.ids[i], vocab_size);
    if (r == 0)
        windows_cut(&ids, MIN(num_tokens, INT32_MAX), window, ret);
    token_ids_release(&ids);
    buf_release(&file);
    return r;
}

void calib_text_release(struct calib_text *t)
{
    free(t->ids);
    *t = (struct calib_text){0};
}
