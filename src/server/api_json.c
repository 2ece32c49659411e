/* The client's JSON and the helpers that read it: see api_request.h. Pure functions. */
#include "server/api_request.h"

#include "base/utf8.h"
#include "text/tokenizer.h"

#include <string.h>

/* jansson builds a tree by recursion, and a tree takes up to a hundred times the memory of its text. So count first:
 * nesting, values and containers, in one pass that knows only strings and brackets. */
int api_check_json_shape(const char *s, size_t len, struct octavo_error *err)
{
    size_t depth = 0, values = 1, containers = 0;
    for (size_t i = 0; i < len; i++) {
        switch (s[i]) {
        case '"':
            for (i++; i < len && s[i] != '"'; i++)
                i += s[i] == '\\';
            break;
        case '[':
        case '{':
            containers++;
            if (++depth > API_MAX_JSON_DEPTH)
                return error_set(err, OCTAVO_EINVAL, "JSON is nested more than %d levels deep", API_MAX_JSON_DEPTH);
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        }
    }
    if (values > API_MAX_JSON_VALUES || containers > API_MAX_JSON_CONTAINERS)
        return error_set(err, OCTAVO_EINVAL, "too many JSON values (at most %d, and %d arrays and objects)",
                         API_MAX_JSON_VALUES, API_MAX_JSON_CONTAINERS);
    return 0;
}

int api_parse_json(const char *body, size_t len, json_t **ret_root, struct octavo_error *err)
{
    if (len == 0)
        return error_set(err, OCTAVO_EINVAL, "request body is empty; send a JSON object");
    if (!utf8_valid(body, len))
        return error_set(err, OCTAVO_EINVAL, "request body is not valid UTF-8");
    int r = api_check_json_shape(body, len, err);
    if (r == 0)
        r = json_parse_text(body, len, "request body", JSON_PARSE_ALLOW_NUL, ret_root, err);
    if (r == 0 && !json_is_object(*ret_root)) {
        json_decref(*ret_root);
        *ret_root = NULL;
        r = error_set(err, OCTAVO_EINVAL, "request body must be a JSON object");
    }
    return r;
}

int api_token_ids(const json_t *list, const char *what, int32_t vocab_size, struct token_ids *ids,
                  struct octavo_error *err)
{
    if (!json_is_array(list))
        return error_set_param(err, OCTAVO_EINVAL, what, "%s must be a list of token ids", what);
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v))
            return error_set_param(err, OCTAVO_EINVAL, what,
                                   "%s must hold only token ids, but element %zu is no integer", what, i);
        json_int_t id = json_integer_value(v);
        if (id < 0 || id >= vocab_size)
            return error_set_param(err, OCTAVO_EINVAL, what,
                                   "Token id %lld is out of vocabulary: %s takes ids from 0 to %d", (long long)id, what,
                                   vocab_size - 1);
        token_ids_push(ids, (int32_t)id);
    }
    return 0;
}
