/* tokenizer_parse, encode and decode. An input is a tokenizer.json, a NUL, and a text; without a NUL the text is
 * encoded with a fixed small tokenizer too. */
#include "text/detokenizer.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *tok, const char *text, size_t len)
{
    struct token_ids ids = {0};
    struct buf whole = {0}, pieces = {0};
    struct octavo_error err;
    if (tokenizer_encode(tok, text, len, TOKENIZER_ADD_SPECIAL, &ids, &err) == 0) {
        for (int skip = 0; skip < 2; skip++) {
            buf_clear(&whole);
            buf_clear(&pieces);
            tokenizer_decode(tok, ids.ids, ids.len, skip, &whole);
            const struct detokenizer_options opts = {.skip_special_tokens = skip};
            struct detokenizer *d = detokenizer_new(tok, &opts);
            for (size_t i = 0; i < ids.len; i++) {
                if (ids.ids[i] < 0 || ids.ids[i] >= tokenizer_vocab_size(tok))
                    abort();
                detokenizer_push(d, ids.ids[i], &pieces);
            }
            detokenizer_finish(d, &pieces);
            detokenizer_free(d);
            if (whole.len != pieces.len || memcmp(buf_str(&whole), buf_str(&pieces), whole.len))
                abort();
        }
    }
    token_ids_release(&ids);
    buf_release(&whole);
    buf_release(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char fixed[] =
        "{\"normalizer\":{\"type\":\"NFC\"},\"added_tokens\":[{\"id\":5,\"content\":\"<|x|>\",\"rstrip\":true,"
        "\"special\":true},{\"id\":6,\"content\":\"aa\",\"single_word\":true,\"lstrip\":true}],\"pre_tokenizer\":"
        "{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
        "\"b\":1,\"\\u0120\":2,\"ab\":3,\"\\u0120ab\":4},\"merges\":[\"a b\",\"\\u0120 ab\"]}}";
    struct octavo_error err;
    struct tokenizer *tok = NULL;
    const uint8_t *nul = memchr(data, 0, size);
    size_t json_len = nul ? (size_t)(nul - data) : size;
    const char *text = nul ? (const char *)nul + 1 : (const char *)data;
    size_t len = nul ? size - json_len - 1 : size;
    if (len > 1 << 16)
        len = 1 << 16;
    if (tokenizer_parse((const char *)data, json_len, NULL, 0, &tok, &err) == 0)
        use(tok, text, len);
    tokenizer_free(tok);
    tok = NULL;
    if (!nul && tokenizer_parse(fixed, sizeof(fixed) - 1, NULL, 0, &tok, &err) == 0)
        use(tok, text, len);
    tokenizer_free(tok);
    return 0;
}
