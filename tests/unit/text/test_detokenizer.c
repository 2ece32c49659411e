/* text/detokenizer: no half characters, stop strings across tokens, and pieces that join to the whole. */
#include "text/detokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Ids 0..255 are the bytes, so that a test can cut a text wherever it likes. */
static struct tokenizer *byte_tokenizer(const char *config)
{
    struct buf json = {0};
    buf_puts(&json,
             "{\"version\":\"1.0\",\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","
             "\"add_prefix_space\":false,\"use_regex\":false},\"added_tokens\":[{\"id\":256,\"content\":\"<eos>\","
             "\"special\":true}],\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    unsigned next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        buf_printf(&json, "%s\"\\u%04x\":%u", b ? "," : "", plain ? b : next, b);
        next += !plain;
    }
    buf_puts(&json, "}}}");
    struct tokenizer *tok = NULL;
    struct octavo_error err = {0};
    int r = tokenizer_parse(json.data, json.len, config, config ? strlen(config) : 0, &tok, &err);
    if (r)
        fail_msg("%s", err.msg);
    buf_release(&json);
    return tok;
}

static int setup(void **state)
{
    *state = byte_tokenizer(NULL);
    return 0;
}

static int teardown(void **state)
{
    tokenizer_free(*state);
    return 0;
}

struct outcome {
    struct buf text;
    int stop;
    size_t pushed;
};

static struct outcome run(const struct tokenizer *tok, const char *text, size_t len, const char *const *stops, size_t n,
                          bool include)
{
    size_t lens[8];
    for (size_t i = 0; i < n; i++)
        lens[i] = strlen(stops[i]);
    const struct detokenizer_options opts = {true, include, n, stops, lens};
    struct detokenizer *d = detokenizer_new(tok, &opts);
    struct outcome o = {.stop = -1};
    while (o.stop < 0 && o.pushed < len)
        o.stop = detokenizer_push(d, (uint8_t)text[o.pushed++], &o.text);
    if (o.stop < 0)
        detokenizer_finish(d, &o.text);
    detokenizer_free(d);
    return o;
}

static void expect(void **state, const char *text, const char *const *stops, size_t n, bool include, const char *want,
                   int stop)
{
    struct outcome o = run(*state, text, strlen(text), stops, n, include);
    assert_string_equal(buf_str(&o.text), want);
    assert_int_equal(o.stop, stop);
    buf_release(&o.text);
}

static void stops(void **state)
{
    const char *const end[] = {"END"}, *const two[] = {"abcd", "bc"}, *const aab[] = {"aab"},
                      *const same[] = {"b", "ab"};
    expect(state, "one END two", end, 1, false, "one ", 0);
    expect(state, "one END two", end, 1, true, "one END", 0);
    expect(state, "one EN", end, 1, false, "one EN", -1);
    expect(state, "EENDD", end, 1, false, "E", 0);
    expect(state, "aaaab", aab, 1, false, "aa", 0); /* a failed prefix that is itself a beginning */
    expect(state, "xabcd", two, 2, false, "xa", 1); /* complete first */
    expect(state, "xab", same, 2, false, "x", 1);   /* complete at once: the one that began first */
    const char *const wide[] = {"\xe4\xbd\xa0\xe5\xa5\xbd"};
    expect(state, "x\xe4\xbd\xa0\xe5\xa5\xbdy", wide, 1, false, "x", 0);
    expect(state, "x\xe4\xbd\xa0y", wide, 1, false, "x\xe4\xbd\xa0y", -1);
}

static void holds_only_what_may_become_a_stop(void **state)
{
    const char *stop = "<end>";
    size_t len = 5;
    const struct detokenizer_options opts = {true, false, 1, &stop, &len};
    struct detokenizer *d = detokenizer_new(*state, &opts);
    struct buf out = {0};
    const char text[] = "abcdef<e<en";
    const size_t released[] = {1, 2, 3, 4, 5, 6, 6, 6, 8, 8, 8};
    for (size_t i = 0; text[i]; i++) {
        assert_int_equal(detokenizer_push(d, text[i], &out), -1);
        assert_int_equal(out.len, released[i]);
    }
    detokenizer_finish(d, &out);
    assert_string_equal(out.data, text);
    detokenizer_free(d);
    buf_release(&out);
}

static void no_half_characters(void **state)
{
    const struct detokenizer_options opts = {.skip_special_tokens = true};
    struct detokenizer *d = detokenizer_new(*state, &opts);
    struct buf out = {0};
    const uint8_t text[] = {0xf0, 0x9f, 0x98, 0x80, 0xf0, 0x9f, 'x', 0xff, 0xe4, 0xbd};
    const size_t released[] = {0, 0, 0, 4, 4, 4, 8, 11, 11, 11};
    for (size_t i = 0; i < sizeof(text); i++) {
        detokenizer_push(d, text[i], &out);
        assert_int_equal(out.len, released[i]);
    }
    detokenizer_push(d, 256, &out); /* special: skipped */
    detokenizer_push(d, 99999, &out);
    detokenizer_push(d, -1, &out);
    detokenizer_finish(d, &out);
    assert_string_equal(out.data, "\xf0\x9f\x98\x80\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd");
    detokenizer_free(d);
    buf_release(&out);
}

static void joined_pieces_are_the_whole(void **state)
{
    const struct tokenizer *tok = *state;
    static const char alphabet[] = " '.,?!nvrsmte\xf0\x9f\x98\x80\xe4\xbd\xa0\xff\xc3x";
    uint32_t seed = 1;
    for (int round = 0; round < 4000; round++) {
        int32_t ids[40];
        size_t n = (size_t)(round % 40);
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            ids[i] = (uint8_t)alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
        }
        struct buf whole = {0}, pieces = {0};
        const struct detokenizer_options opts = {0};
        struct detokenizer *d = detokenizer_new(tok, &opts);
        tokenizer_decode(tok, ids, n, false, &whole);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(detokenizer_push(d, ids[i], &pieces), -1);
        detokenizer_finish(d, &pieces);
        assert_string_equal(buf_str(&pieces), buf_str(&whole));
        detokenizer_free(d);
        buf_release(&whole);
        buf_release(&pieces);
    }
}

/* Llama 3 sets it, but it would take spaces away that the model wrote. */
static void clean_up_is_not_done(void **state)
{
    (void)state;
    struct tokenizer *tok =
        byte_tokenizer("{\"clean_up_tokenization_spaces\":true,\"model_max_length\":1000000000000000019884624838656}");
    static const char text[] = "Hello , I 'm ok . do n't  . a ? b : c";
    struct buf out = {0};
    int32_t ids[sizeof(text)];
    for (size_t i = 0; text[i]; i++)
        ids[i] = text[i];
    tokenizer_decode(tok, ids, sizeof(text) - 1, false, &out);
    assert_string_equal(out.data, text);
    buf_release(&out);
    tokenizer_free(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stops, setup, teardown),
        cmocka_unit_test_setup_teardown(holds_only_what_may_become_a_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(no_half_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(joined_pieces_are_the_whole, setup, teardown),
        cmocka_unit_test(clean_up_is_not_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
