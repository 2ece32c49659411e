/* Ids and texts as Hugging Face's tokenizers gives them, on thousands of strings; see record.py.
 * usage: test_tokenizer_golden TOKENIZER_JSON CASES_JSON. Prints each case that differs; the exit code says whether any
 * did. Also streams every case through a detokenizer: the pieces must be the text of the whole. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void input_of(const json_t *v, struct buf *out)
{
    const char *hex = json_string_value(json_object_get(v, "hex"));
    if (!hex) {
        buf_append(out, json_string_value(v), json_string_length(v));
        return;
    }
    for (; hex[0] && hex[1]; hex += 2) {
        char pair[3] = {hex[0], hex[1], 0};
        buf_putc(out, (char)strtoul(pair, NULL, 16));
    }
}

/* What the ids must decode to; NULL content: whatever they decode to must encode to the same ids again. */
static bool check_decode(const struct tokenizer *tok, const json_t *want, const struct token_ids *ids)
{
    struct buf text = {0}, streamed = {0};
    tokenizer_decode(tok, ids->ids, ids->len, false, &text);
    const struct detokenizer_options opts = {0};
    struct detokenizer *d = detokenizer_new(tok, &opts);
    for (size_t i = 0; i < ids->len; i++)
        detokenizer_push(d, ids->ids[i], &streamed);
    detokenizer_finish(d, &streamed);
    bool ok = text.len == streamed.len && !memcmp(buf_str(&text), buf_str(&streamed), text.len);
    if (json_is_string(want)) {
        ok = ok && text.len == json_string_length(want) && !memcmp(buf_str(&text), json_string_value(want), text.len);
    } else {
        struct token_ids again = {0};
        ok = ok && tokenizer_encode(tok, buf_str(&text), text.len, 0, &again, NULL) == 0 && again.len == ids->len;
        for (size_t i = 0; ok && i < ids->len; i++)
            ok = again.ids[i] == ids->ids[i];
        token_ids_release(&again);
    }
    detokenizer_free(d);
    buf_release(&text);
    buf_release(&streamed);
    return ok;
}

static bool check_case(const struct tokenizer *tok, const json_t *c, size_t number)
{
    const json_t *want = json_array_get(c, 1);
    struct buf in = {0};
    struct token_ids got = {0};
    struct octavo_error err = {0};
    input_of(json_array_get(c, 0), &in);
    int r = tokenizer_encode(tok, buf_str(&in), in.len, 0, &got, &err);
    size_t same = 0;
    while (same < got.len && same < json_array_size(want) &&
           got.ids[same] == json_integer_value(json_array_get(want, same)))
        same++;
    bool ok = r == 0 && got.len == json_array_size(want) && same == got.len;
    if (!ok)
        printf("case %zu: %zu ids, expected %zu, first difference at %zu %s\n", number, got.len, json_array_size(want),
               same, err.msg);
    if (ok && !check_decode(tok, json_array_get(c, 2), &got)) {
        printf("case %zu: decodes to something else\n", number);
        ok = false;
    }
    token_ids_release(&got);
    buf_release(&in);
    return ok;
}

int main(int argc, char **argv)
{
    struct octavo_error err = {0};
    struct buf json = {0};
    struct tokenizer *tok = NULL;
    json_t *cases = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: %s TOKENIZER_JSON CASES_JSON\n", argv[0]);
        return 2;
    }
    if (file_read(argv[1], (size_t)1 << 28, &json, &err) ||
        tokenizer_parse(buf_str(&json), json.len, NULL, 0, &tok, &err) ||
        json_parse_file(argv[2], (size_t)1 << 28, JSON_PARSE_ALLOW_NUL, &cases, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    size_t n = json_array_size(cases), passed = 0;
    for (size_t i = 0; i < n; i++)
        passed += check_case(tok, json_array_get(cases, i), i);
    printf("%zu cases: %zu passed, %zu failed\n", n, passed, n - passed);
    tokenizer_free(tok);
    buf_release(&json);
    json_decref(cases);
    return n >= 2000 && passed == n ? 0 : 1;
}
