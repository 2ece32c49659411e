/* text/tokenizer: what is refused and how the message names it, tokenizer_config.json, long inputs. What it computes is
 * held against Hugging Face in tests/golden/tokenizer. */
#include "text/tokenizer.h"

#include "base/json.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL                                                                                                          \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"<s>\":4},\"merges\":[\"a b\"]}"
#define BYTES                                                                                                          \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"},"

static struct tokenizer *parse(const char *json, const char *config)
{
    struct tokenizer *tok = NULL;
    struct octavo_error err = {0};
    if (tokenizer_parse(json, strlen(json), config, config ? strlen(config) : 0, &tok, &err))
        fail_msg("%s: %s", json, err.msg);
    return tok;
}

struct refusal {
    const char *json, *config;
    int code;
    const char *names; /* what the message must hold */
};

#define BAD(json, names)                                                                                               \
    {                                                                                                                  \
        json, NULL, OCTAVO_EINVAL, names                                                                               \
    }
#define UNKNOWN(json, names)                                                                                           \
    {                                                                                                                  \
        json, NULL, OCTAVO_EUNSUPPORTED, names                                                                         \
    }
#define VOCAB(rest) "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}," rest "}}"

static void refusals(void **state)
{
    (void)state;
    static const struct refusal list[] = {
        BAD("", "JSON"),
        BAD("{\"model\":{\"vocab\":{\"a\":0", "JSON"),
        BAD("[]", "must be an object"),
        BAD("{}", "model"),
        UNKNOWN("{\"version\":\"2.0\"," MODEL "}", "2.0"),
        BAD("{\"version\":1," MODEL "}", "version"),
        UNKNOWN("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram"),
        UNKNOWN("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece"),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "vocab"),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "empty"),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "\"a\""),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}}", "\"a\""),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":16777216},\"merges\":[]}}", "16777215"),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":7,\"b\":7},\"merges\":[]}}", "same id 7"),
        BAD("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "merges"),
        BAD(VOCAB("\"merges\":[\"a b c\"]"), "merges[0]"),
        BAD(VOCAB("\"merges\":[\"a b\",[\"a\"]]"), "merges[1]"),
        BAD(VOCAB("\"merges\":[[\"a\",\"zz\"]]"), "\"zz\""),
        BAD(VOCAB("\"merges\":[[\"b\",\"a\"]]"), "\"ba\""),
        BAD(VOCAB("\"merges\":[],\"unk_token\":\"u\""), "\"u\""),
        BAD(VOCAB("\"merges\":[],\"fuse_unk\":1"), "fuse_unk"),
        BAD(VOCAB("\"merges\":[\"a b\"],\"continuing_subword_prefix\":\"##\""), "##"),
        UNKNOWN(VOCAB("\"merges\":[],\"dropout\":0.1"), "dropout"),
        UNKNOWN("{\"normalizer\":{\"type\":\"Precompiled\"}," MODEL "}", "Precompiled"),
        BAD("{\"normalizer\":{}," MODEL "}", "normalizer"),
        BAD("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}," MODEL "}",
            "empty"),
        UNKNOWN("{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," MODEL "}", "UnicodeScripts"),
        BAD("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"}}," MODEL "}", "behavior"),
        BAD("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}," MODEL "}",
            "Odd"),
        BAD("{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}," MODEL "}", "pattern"),
        BAD("{\"pre_tokenizer\":{\"type\":\"Sequence\"}," MODEL "}", "pretokenizers"),
        UNKNOWN("{\"post_processor\":{\"type\":\"Odd\"}," MODEL "}", "Odd"),
        BAD("{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}," MODEL "}", "exactly once"),
        BAD("{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\"}}]}"
            "," MODEL "}",
            "\"q\""),
        BAD("{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],\"sep\":[\"y\",0]}," MODEL "}", "id"),
        UNKNOWN("{\"decoder\":{\"type\":\"CTC\"}," MODEL "}", "CTC"),
        BAD("{\"added_tokens\":{}," MODEL "}", "added_tokens"),
        BAD("{\"added_tokens\":[7]," MODEL "}", "added_tokens"),
        BAD("{\"added_tokens\":[{\"id\":9}]," MODEL "}", "content"),
        BAD("{\"added_tokens\":[{\"content\":\"x\"}]," MODEL "}", "\"x\""),
        BAD("{\"added_tokens\":[{\"id\":9,\"content\":\"a\"}]," MODEL "}", "vocabulary"),
        BAD("{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," MODEL "}", "\"b\""),
        BAD("{\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":9,\"content\":\"y\"}]," MODEL "}", "same id 9"),
        BAD("{\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":8,\"content\":\"x\"}]," MODEL "}", "elsewhere"),
        BAD("{\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"lstrip\":\"no\"}]," MODEL "}", "lstrip"),
        {"{" MODEL "}", "[]", OCTAVO_EINVAL, "tokenizer_config.json"},
        {"{" MODEL "}", "{\"bos_token\":7}", OCTAVO_EINVAL, "bos_token"},
        {"{" MODEL "}", "{\"added_tokens_decoder\":{\"x\":{}}}", OCTAVO_EINVAL, "\"x\""},
        {"{" MODEL "}", "{\"added_tokens_decoder\":{\"9\":{\"content\":\"a\"}}}", OCTAVO_EINVAL, "vocabulary"},
        {"{\"added_tokens\":[{\"id\":9,\"content\":\"x\"}]," MODEL "}",
         "{\"added_tokens_decoder\":{\"8\":{\"content\":\"x\"}}}", OCTAVO_EINVAL, "elsewhere"},
    };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        struct tokenizer *tok = NULL;
        struct octavo_error err = {0};
        const char *config = list[i].config;
        int r = tokenizer_parse(list[i].json, strlen(list[i].json), config, config ? strlen(config) : 0, &tok, &err);
        if (r != list[i].code || !strstr(err.msg, list[i].names))
            fail_msg("%s: %d \"%s\" does not name %s", list[i].json, r, err.msg, list[i].names);
        assert_null(tok);
    }
}

static void refused_patterns(void **state)
{
    (void)state;
    static const char *const list[] = {
        "(",   ")",     "[",         "a)",          "(?<n>a)",     "(?x: a)", "(*UTF)a", "\\",     "[]",
        "*a",  "\\p",   "\\p{Odd}",  "\\p{sc:Han}", "[b-a]",       "\\g<1>",  "\\k<n>",  "a(?i)b", "\\xff",
        "\\K", "(?C1)", "[[:odd:]]", "[a&&]",       "\\x{110000}", "(?~a)",   "\\12",    "\\Qa\\E"};
    for (size_t i = 0; i <= ARRAY_LEN(list) + 1; i++) {
        struct buf json = {0}, pattern = {0};
        struct octavo_error err = {0};
        struct tokenizer *tok = NULL;
        if (i < ARRAY_LEN(list)) {
            buf_puts(&pattern, list[i]);
        } else { /* deep groups, deep classes */
            for (int k = 0; k < 10000; k++)
                buf_putc(&pattern, i == ARRAY_LEN(list) ? '(' : '[');
        }
        buf_puts(&json, "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":");
        json_write_string(&json, buf_str(&pattern), pattern.len);
        buf_puts(&json, "}}," MODEL "}");
        int r = tokenizer_parse(json.data, json.len, NULL, 0, &tok, &err);
        if (r != OCTAVO_EUNSUPPORTED || !strstr(err.msg, "pattern"))
            fail_msg("pattern %s: %d %s", buf_str(&pattern), r, err.msg);
        buf_release(&json);
        buf_release(&pattern);
    }
}

static void deep_json(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct buf json = {0};
        struct octavo_error err = {0};
        struct tokenizer *tok = NULL;
        buf_puts(&json, "{\"normalizer\":");
        int depth = kind ? 100000 : 100;
        for (int i = 0; i < depth; i++)
            buf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
        for (int i = 0; i < depth; i++)
            buf_puts(&json, "]}");
        buf_puts(&json, "," MODEL "}");
        assert_int_equal(tokenizer_parse(json.data, json.len, NULL, 0, &tok, &err), OCTAVO_EINVAL);
        buf_release(&json);
    }
}

static void config(void **state)
{
    (void)state;
    struct tokenizer *tok = parse("{\"added_tokens\":[{\"id\":9,\"content\":\"<x>\"}]," BYTES MODEL "}",
                                  "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<x>\"},\"pad_token\":null,"
                                  "\"added_tokens_decoder\":{\"9\":{\"content\":\"<x>\",\"special\":true},"
                                  "\"11\":{\"content\":\"<y>\"}}}");
    assert_string_equal(tokenizer_named_token(tok, "bos_token"), "<s>");
    assert_string_equal(tokenizer_named_token(tok, "eos_token"), "<x>");
    assert_null(tokenizer_named_token(tok, "pad_token"));
    assert_null(tokenizer_named_token(tok, "cls_token"));
    assert_int_equal(tokenizer_vocab_size(tok), 12);
    assert_true(tokenizer_is_special(tok, 9)); /* the configuration's flags win */
    assert_true(tokenizer_is_special(tok, 4)); /* named, so special */
    assert_false(tokenizer_is_special(tok, 11));
    assert_false(tokenizer_is_special(tok, -1));
    assert_int_equal(tokenizer_token_id(tok, "<y>", 3), 11);
    assert_int_equal(tokenizer_token_id(tok, "ab", 2), 2);
    assert_int_equal(tokenizer_token_id(tok, "?", 1), -1);
    assert_null(tokenizer_token_string(tok, 10, NULL));
    struct buf out = {0};
    assert_true(tokenizer_token_bytes(tok, 3, &out));
    assert_string_equal(out.data, " ");
    assert_false(tokenizer_token_bytes(tok, 10, &out));
    assert_false(tokenizer_token_bytes(tok, 1 << 30, &out));
    struct token_ids ids = {0};
    struct octavo_error err = {0};
    const char text[] = "ab<s> <x>a<y>";
    assert_int_equal(tokenizer_encode(tok, text, sizeof(text) - 1, 0, &ids, &err), 0);
    const int32_t want[] = {2, 4, 3, 9, 0, 11};
    assert_int_equal(ids.len, ARRAY_LEN(want));
    assert_memory_equal(ids.ids, want, sizeof(want));
    buf_clear(&out);
    tokenizer_decode(tok, ids.ids, ids.len, true, &out);
    assert_string_equal(out.data, "ab a<y>");
    buf_clear(&out);
    tokenizer_decode(tok, ids.ids, ids.len, false, &out);
    assert_string_equal(out.data, text);
    token_ids_release(&ids);
    buf_release(&out);
    tokenizer_free(tok);
}

/* A megabyte of one thing: done at once when the work is linear, hours when it is quadratic. */
static void long_inputs(void **state)
{
    (void)state;
    static const char *const units[] = {
        "a", " ", "ab", "\n", "<s", "<s> ", "1", "\xcc\x81\xcc\xa3", "\xff", "\xe4\xbd\xa0", "'", " \xf0"};
    struct tokenizer *tok =
        parse("{\"normalizer\":{\"type\":\"NFC\"},\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"lstrip\":true,"
              "\"rstrip\":true},{\"id\":5,\"content\":\"\\n\",\"rstrip\":true,\"lstrip\":true}]," BYTES MODEL "}",
              NULL);
    struct octavo_error err = {0};
    for (size_t i = 0; i < ARRAY_LEN(units) + 1; i++) {
        struct buf text = {0}, back = {0};
        struct token_ids ids = {0};
        while (text.len < 1 << 20)
            buf_puts(&text, i < ARRAY_LEN(units) ? units[i] : text.len < 1 << 19 ? "\xcc\x81" : "\xcc\xa3");
        assert_int_equal(tokenizer_encode(tok, text.data, text.len, TOKENIZER_ADD_SPECIAL, &ids, &err), 0);
        tokenizer_decode(tok, ids.ids, ids.len, false, &back);
        if (i < 3)
            assert_int_equal(back.len, text.len);
        token_ids_release(&ids);
        buf_release(&text);
        buf_release(&back);
    }
    tokenizer_free(tok);
}

static void missing_file(void **state)
{
    (void)state;
    struct tokenizer *tok = NULL;
    struct octavo_error err = {0};
    assert_int_equal(tokenizer_open("/nonexistent", &tok, &err), OCTAVO_EIO);
    assert_non_null(strstr(err.msg, "tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals), cmocka_unit_test(refused_patterns), cmocka_unit_test(deep_json),
        cmocka_unit_test(config),   cmocka_unit_test(long_inputs),      cmocka_unit_test(missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
