/* Every part of tokenizer.json as Hugging Face's tokenizers runs it; see record_parts.py.
 * usage: test_tokenizer_parts PARTS_JSON. Prints each case that differs. */
#include "base/json.h"
#include "base/mem.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool check_case(const struct tokenizer *tok, const char *name, const json_t *c)
{
    const json_t *text = json_array_get(c, 0), *want = json_array_get(c, 1), *decoded = json_array_get(c, 2);
    struct token_ids got = {0};
    struct buf out = {0};
    struct octavo_error err = {0};
    int r = tokenizer_encode(tok, json_string_value(text), json_string_length(text), TOKENIZER_ADD_SPECIAL, &got, &err);
    bool ok = r == 0 && got.len == json_array_size(want);
    for (size_t i = 0; ok && i < got.len; i++)
        ok = got.ids[i] == json_integer_value(json_array_get(want, i));
    if (!ok) {
        printf("%s: \"%s\": %s\n  got     ", name, json_string_value(text), r ? err.msg : "other ids");
        for (size_t i = 0; i < got.len; i++)
            printf(" %d", got.ids[i]);
        printf("\n  expected");
        for (size_t i = 0; i < json_array_size(want); i++)
            printf(" %d", (int)json_integer_value(json_array_get(want, i)));
        printf("\n");
    } else if (json_is_string(decoded)) {
        tokenizer_decode(tok, got.ids, got.len, true, &out);
        ok = out.len == json_string_length(decoded) && !memcmp(buf_str(&out), json_string_value(decoded), out.len);
        if (!ok)
            printf("%s: \"%s\" decodes to \"%s\", expected \"%s\"\n", name, json_string_value(text), buf_str(&out),
                   json_string_value(decoded));
    }
    token_ids_release(&got);
    buf_release(&out);
    return ok;
}

int main(int argc, char **argv)
{
    struct octavo_error err = {0};
    json_t *root = NULL;
    if (argc != 2 || json_parse_file(argv[1], (size_t)1 << 28, JSON_PARSE_ALLOW_NUL, &root, &err)) {
        fprintf(stderr, "usage: %s PARTS_JSON %s\n", argv[0], err.msg);
        return 2;
    }
    json_t *parts = json_object_get(root, "parts"), *vocabs = json_object_get(root, "vocabs");
    size_t cases = 0, failed = 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *list = json_array_get(part, 2);
        const char *name = json_string_value(json_array_get(part, 0));
        json_t *spec = json_array_get(part, 1), *model = json_object_get(spec, "model");
        json_object_set(model, "vocab", json_object_get(vocabs, json_string_value(json_object_get(model, "vocab"))));
        char *text = json_dumps(spec, JSON_COMPACT);
        struct tokenizer *tok = NULL;
        cases += json_array_size(list);
        if (tokenizer_parse(text, strlen(text), NULL, 0, &tok, &err)) {
            printf("%s: %s\n", name, err.msg);
            failed += json_array_size(list);
        } else {
            for (size_t k = 0; k < json_array_size(list); k++)
                failed += !check_case(tok, name, json_array_get(list, k));
        }
        tokenizer_free(tok);
        free(text);
    }
    printf("%zu cases: %zu passed, %zu failed\n", cases, cases - failed, failed);
    json_decref(root);
    return cases >= 1000 && !failed ? 0 : 1;
}
