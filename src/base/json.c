/* JSON: see json.h. */
#include "base/json.h"

#include "base/file.h"
#include "base/utf8.h"

#include <math.h>
#include <string.h>

/* Python writes integers of any size (every Llama tokenizer_config.json has a model_max_length of 10^30), jansson stops
 * at 64 bits. Appends text with such integers made reals; they keep their magnitude, and no field that must be an
 * integer takes them. */
static void widen_integers(const char *text, size_t len, struct buf *out)
{
    bool in_string = false;
    for (size_t i = 0; i < len;) {
        size_t start = i;
        char c = text[i++];
        if (in_string) {
            if (c == '\\' && i < len)
                i++;
            else if (c == '"')
                in_string = false;
            buf_append(out, text + start, i - start);
            continue;
        }
        in_string = c == '"';
        bool integer = c >= '0' && c <= '9';
        for (; integer && i < len && strchr("0123456789.eE+-", text[i]) && text[i]; i++)
            ;
        for (size_t k = start; k < i && integer; k++)
            integer = text[k] >= '0' && text[k] <= '9';
        buf_append(out, text + start, i - start);
        if (integer && i - start >= 19) /* INT64_MAX has 19 digits */
            buf_puts(out, ".0");
    }
}

int json_parse_text(const char *text, size_t len, const char *what, unsigned flags, json_t **ret_root,
                    struct octavo_error *err)
{
    json_error_t je;
    size_t f = JSON_DECODE_ANY;
    if (flags & JSON_PARSE_REJECT_DUPLICATES)
        f |= JSON_REJECT_DUPLICATES;
    if (flags & JSON_PARSE_ALLOW_NUL)
        f |= JSON_ALLOW_NUL;
    json_t *root = json_loadb(text, len, f, &je);
    if (!root && json_error_code(&je) == json_error_numeric_overflow) {
        struct buf wide = {0};
        widen_integers(text, len, &wide);
        root = json_loadb(buf_str(&wide), wide.len, f, &je);
        buf_release(&wide);
    }
    if (!root)
        return error_set(err, OCTAVO_EINVAL, "%s is not valid JSON: %s (line %d, column %d)", what, je.text, je.line,
                         je.column);
    *ret_root = root;
    return 0;
}

int json_parse_file(const char *path, size_t max_bytes, unsigned flags, json_t **ret_root, struct octavo_error *err)
{
    struct buf text = {0};
    int r = file_read(path, max_bytes, &text, err);
    if (r == 0) {
        size_t bom = text.len >= 3 && !memcmp(text.data, "\xef\xbb\xbf", 3) ? 3 : 0;
        r = json_parse_text(buf_str(&text) + bom, text.len - bom, path, flags, ret_root, err);
    }
    buf_release(&text);
    return r;
}

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static int wrong_type(const json_t *v, const char *what, const char *key, const char *want, struct octavo_error *err)
{
    return error_set_param(err, OCTAVO_EINVAL, key, "%s: %s must be %s, not %s", what, key, want, type_name(v));
}

int json_get_int(const json_t *obj, const char *what, const char *key, int64_t lo, int64_t hi, int64_t *ret,
                 struct octavo_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v))
        return 0;
    int64_t n;
    if (json_is_integer(v)) {
        n = json_integer_value(v);
    } else if (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)) &&
               fabs(json_real_value(v)) < 0x1p53) {
        n = (int64_t)json_real_value(v);
    } else if (json_is_real(v) && json_real_value(v) == floor(json_real_value(v))) {
        return error_set_param(err, OCTAVO_EINVAL, key, "%s: %s is %g, but must be between %lld and %lld", what, key,
                               json_real_value(v), (long long)lo, (long long)hi);
    } else {
        return wrong_type(v, what, key, "an integer", err);
    }
    if (n < lo || n > hi)
        return error_set_param(err, OCTAVO_EINVAL, key, "%s: %s is %lld, but must be between %lld and %lld", what, key,
                               (long long)n, (long long)lo, (long long)hi);
    *ret = n;
    return 0;
}

int json_get_double(const json_t *obj, const char *what, const char *key, double *ret, struct octavo_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_number(v))
        return wrong_type(v, what, key, "a number", err);
    *ret = json_number_value(v);
    return 0;
}

int json_get_bool(const json_t *obj, const char *what, const char *key, bool *ret, struct octavo_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_boolean(v))
        return wrong_type(v, what, key, "true or false", err);
    *ret = json_is_true(v);
    return 0;
}

int json_get_string(const json_t *obj, const char *what, const char *key, const char **ret, struct octavo_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return wrong_type(v, what, key, "a string", err);
    *ret = json_string_value(v);
    return 0;
}

void json_write_string(struct buf *out, const char *s, size_t len)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        uint32_t cp;
        if (c == '"' || c == '\\') {
            buf_putc(out, '\\');
            buf_putc(out, (char)c);
            i++;
        } else if (c < 0x20) {
            static const char *const two = "btn?fr"; /* \b \t \n - \f \r are 8..13 */
            if (c >= 8 && c <= 13 && c != 11)
                buf_printf(out, "\\%c", two[c - 8]);
            else
                buf_printf(out, "\\u%04x", c);
            i++;
        } else if (c < 0x80) {
            buf_putc(out, (char)c);
            i++;
        } else {
            int n = utf8_decode(s + i, len - i, &cp);
            if (n > 0) {
                buf_append(out, s + i, (size_t)n);
                i += (size_t)n;
            } else {
                buf_puts(out, "\xef\xbf\xbd");
                i += utf8_bad_len(s + i, len - i);
            }
        }
    }
    buf_putc(out, '"');
}
