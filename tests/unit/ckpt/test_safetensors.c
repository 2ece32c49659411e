/* ckpt/safetensors: what the format allows, and each rule that refuses a file. */
#include "base/buf.h"
#include "ckpt/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A file in memory: the header's length, the header, data_bytes of data. */
static int parse_with_length(uint64_t length, const char *header, size_t header_len, size_t data_bytes,
                             struct safetensors_file *f, struct octavo_error *err)
{
    size_t size = 8 + header_len + data_bytes;
    uint8_t *image = malloc(size); /* exact, so that a read past the end is seen */
    for (int i = 0; i < 8; i++)
        image[i] = (uint8_t)(length >> (8 * i));
    memcpy(image + 8, header, header_len);
    memset(image + 8 + header_len, 7, data_bytes);
    int r = safetensors_parse(image, size, "dir/w.safetensors", f, err);
    free(image);
    return r;
}

static int parse(const char *header, size_t data_bytes, struct safetensors_file *f, struct octavo_error *err)
{
    return parse_with_length(strlen(header), header, strlen(header), data_bytes, f, err);
}

static void good(const char *header, size_t data_bytes, size_t num_tensors)
{
    struct safetensors_file f = {0};
    struct octavo_error err = {0};
    if (parse(header, data_bytes, &f, &err) != 0)
        fail_msg("%s: %s", header, err.msg);
    assert_int_equal(f.num_tensors, num_tensors);
    safetensors_close(&f);
}

/* Refused, with the file and each of the words in the message. */
static void bad_message(const struct octavo_error *err, const char *a, const char *b)
{
    if (!strstr(err->msg, "dir/w.safetensors") || !strstr(err->msg, a) || !strstr(err->msg, b))
        fail_msg("\"%s\" should name the file, \"%s\" and \"%s\"", err->msg, a, b);
}

static void bad(const char *header, size_t data_bytes, const char *tensor, const char *rule)
{
    struct safetensors_file f = {0};
    struct octavo_error err = {0};
    assert_int_equal(parse(header, data_bytes, &f, &err), OCTAVO_EINVAL);
    bad_message(&err, tensor, rule);
    assert_null(f.tensors);
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void layouts(void **state)
{
    (void)state;
    good("{}", 0, 0);
    good("{\"a\":" ENTRY("F32", "[2,3]", "[0,24]") "}", 24, 1);
    good(" \t\r\n{\"a\":" ENTRY("F32", "[2,3]", "[0,24]") "} \t\r\n  ", 24, 1); /* padding on both sides */
    good("{\"__metadata__\":{\"format\":\"pt\"},\"a\":" ENTRY("I8", "[3]", "[0,3]") "}", 3, 1);
    good("{\"scalar\":" ENTRY("BF16", "[]", "[0,2]") "}", 2, 1);
    good("{\"empty\":" ENTRY("F32", "[0,7]", "[0,0]") ",\"a\":" ENTRY("I8", "[1]", "[0,1]") "}", 1, 2);
    good("{\"a\":{\"x\":[[1]],\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"y\":null}}", 1, 1);
    good("{\"f4\":" ENTRY("F4", "[2,3]", "[0,3]") ",\"f6\":" ENTRY("F6_E2M3", "[4]", "[3,6]") "}", 6, 2);
    good("{\"\\u00e9\\ud83d\\ude00 \\\"q\\\"\":" ENTRY("U8", "[1]", "[0,1]") "}", 1, 1);
}

/* Entries may come in any order; views are sorted by offset, and data may start anywhere. */
static void order_and_views(void **state)
{
    (void)state;
    const char *h = "{\"z\":" ENTRY("F16", "[2]", "[1,5]") ",\"y\":" ENTRY("U8", "[1]", "[0,1]") ",\"x\":" ENTRY(
        "F64", "[1,1,1]", "[5,13]") "}";
    struct safetensors_file f = {0};
    size_t n = strlen(h), size = 8 + n + 13;
    uint8_t *image = calloc(1, size);
    image[0] = (uint8_t)n;
    memcpy(image + 8, h, n);
    assert_int_equal(safetensors_parse(image, size, "w", &f, NULL), 0);
    assert_int_equal(f.num_tensors, 3);
    assert_string_equal(f.tensors[0].name, "y");
    assert_string_equal(f.tensors[1].name, "z");
    assert_string_equal(f.tensors[2].name, "x");
    assert_ptr_equal(f.tensors[1].data, image + 8 + n + 1);
    assert_int_equal(f.tensors[1].bytes, 4);
    assert_int_equal(f.tensors[1].dtype, DTYPE_F16);
    assert_int_equal(f.tensors[2].num_dims, 3);
    assert_string_equal(f.tensors[2].file, "w");
    safetensors_close(&f);
    safetensors_close(&f);
    free(image);
}

static void frame_rules(void **state)
{
    (void)state;
    struct safetensors_file f = {0};
    struct octavo_error err;
    uint8_t seven[7] = {0};
    assert_int_equal(safetensors_parse(seven, 7, "dir/w.safetensors", &f, &err), OCTAVO_EINVAL);
    bad_message(&err, "7 bytes", "too few");
    assert_int_equal(safetensors_parse(NULL, 0, "dir/w.safetensors", &f, &err), OCTAVO_EINVAL);
    bad_message(&err, "0 bytes", "too few");
    assert_int_equal(parse_with_length(100000001, "{}", 2, 0, &f, &err), OCTAVO_EINVAL);
    bad_message(&err, "100000001", "more than the 100000000 allowed");
    assert_int_equal(parse_with_length(UINT64_MAX, "{}", 2, 0, &f, &err), OCTAVO_EINVAL);
    bad_message(&err, "18446744073709551615", "more than");
    assert_int_equal(parse_with_length(3, "{}", 2, 0, &f, &err), OCTAVO_EINVAL);
    bad_message(&err, "3 bytes", "truncated");
    assert_int_equal(parse_with_length(0, "", 0, 0, &f, &err), OCTAVO_EINVAL);
    bad_message(&err, "header", "not valid JSON");
}

static void header_text_rules(void **state)
{
    (void)state;
    bad("{\"a\xff\":1}", 0, "header", "not valid UTF-8");
    bad("{\"a\":", 0, "header", "not valid JSON");
    bad("{} x", 0, "header", "not valid JSON");
    bad("\xef\xbb\xbf{}", 0, "header", "not valid JSON");
    bad("[]", 0, "header", "must be a JSON object");
    bad("null", 0, "header", "must be a JSON object");
    bad("{\"a\":" ENTRY("U8", "[NaN]", "[0,1]") "}", 1, "header", "not valid JSON");
    bad("{\"dup\":" ENTRY("U8", "[1]", "[0,1]") ",\"dup\":" ENTRY("U8", "[1]", "[1,2]") "}", 2, "dup", "duplicate");
    bad("{\"dup\":" ENTRY("U8", "[1]", "[0,1]") ",\"d\\u0075p\":" ENTRY("U8", "[1]", "[1,2]") "}", 2, "header",
        "duplicate");
    char *deep = malloc(200001); /* 100,000 levels: refused, not recursed into */
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    deep[200000] = 0;
    bad(deep, 0, "header", "not valid JSON");
    free(deep);
}

static void name_rules(void **state)
{
    (void)state;
    bad("{\"\":" ENTRY("U8", "[1]", "[0,1]") "}", 1, "name", "empty");
    bad("{\"a\\nb\":" ENTRY("U8", "[1]", "[0,1]") "}", 1, "a?b", "control character");
    bad("{\"a\\u007f\":" ENTRY("U8", "[1]", "[0,1]") "}", 1, "a?", "control character");
    bad("{\"a\\u0000b\":" ENTRY("U8", "[1]", "[0,1]") "}", 1, "header", "NUL");
    struct buf h = {0}; /* a name longer than a message still leaves room for the rule */
    buf_puts(&h, "{\"");
    for (int i = 0; i < 5000; i++)
        buf_putc(&h, 'n');
    buf_puts(&h, "\":" ENTRY("U8", "[2]", "[0,1]") "}");
    bad(h.data, 1, "nnnn...", "shape and dtype need 2");
    buf_release(&h);
}

static void metadata_rules(void **state)
{
    (void)state;
    bad("{\"__metadata__\":{\"k\":1}}", 0, "__metadata__", "\"k\" is not one");
    bad("{\"__metadata__\":{\"k\":{\"a\":\"b\"}}}", 0, "__metadata__", "only strings");
    bad("{\"__metadata__\":[]}", 0, "__metadata__", "must be an object");
}

static void entry_rules(void **state)
{
    (void)state;
    bad("{\"t\":5}", 0, "\"t\"", "described by an object");
    bad("{\"t\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\"t\"", "no dtype");
    bad("{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "\"t\"", "no shape");
    bad("{\"t\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "\"t\"", "no data_offsets");
    bad("{\"t\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\"t\"", "dtype must be a string");
    bad("{\"t\":" ENTRY("U9", "[1]", "[0,1]") "}", 1, "\"t\"", "unknown dtype \"U9\"");
    bad("{\"t\":" ENTRY("u8", "[1]", "[0,1]") "}", 1, "\"t\"", "unknown dtype");
    bad("{\"t\":" ENTRY("U8", "1", "[0,1]") "}", 1, "\"t\"", "shape must be a list");
    bad("{\"t\":" ENTRY("U8", "[-1]", "[0,1]") "}", 1, "\"t\"", "at least 0");
    bad("{\"t\":" ENTRY("U8", "[1.0]", "[0,1]") "}", 1, "\"t\"", "shape must be a list of integers");
    bad("{\"t\":" ENTRY("U8", "[true]", "[0,1]") "}", 1, "\"t\"", "shape must be a list of integers");
    bad("{\"t\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "\"t\"", "9 dimensions");
    bad("{\"t\":" ENTRY("U8", "[99999999999999999999]", "[0,1]") "}", 1, "t", "shape must be a list of integers");
    bad("{\"t\":" ENTRY("U8", "[1]", "[0]") "}", 1, "\"t\"", "two integers");
    bad("{\"t\":" ENTRY("U8", "[1]", "[0,1,1]") "}", 1, "\"t\"", "two integers");
    bad("{\"t\":" ENTRY("U8", "[1]", "{}") "}", 1, "\"t\"", "two integers");
    bad("{\"t\":" ENTRY("U8", "[1]", "[-1,1]") "}", 1, "\"t\"", "two integers of at least 0");
    bad("{\"t\":" ENTRY("U8", "[1]", "[0,1.5]") "}", 1, "\"t\"", "two integers");
    bad("{\"t\":" ENTRY("U8", "[1]", "[1,0]") "}", 1, "\"t\"", "end (0) before they begin (1)");
}

static void size_rules(void **state)
{
    (void)state;
    bad("{\"t\":" ENTRY("U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "\"t\"", "number of its elements overflows");
    bad("{\"t\":" ENTRY("F64", "[4611686018427387904]", "[0,0]") "}", 0, "\"t\"", "size in bits overflows");
    bad("{\"t\":" ENTRY("F4", "[3]", "[0,1]") "}", 1, "\"t\"", "do not fill whole bytes");
    bad("{\"t\":" ENTRY("F32", "[2]", "[0,4]") "}", 4, "\"t\"", "span 4 bytes, but shape and dtype need 8");
    bad("{\"t\":" ENTRY("F32", "[1]", "[0,8]") "}", 8, "\"t\"", "span 8 bytes, but shape and dtype need 4");
}

static void tiling_rules(void **state)
{
    (void)state;
    bad("{\"t\":" ENTRY("U8", "[1]", "[1,2]") "}", 2, "\"t\"", "hole of 1 bytes");
    bad("{\"a\":" ENTRY("U8", "[1]", "[0,1]") ",\"t\":" ENTRY("U8", "[1]", "[3,4]") "}", 4, "\"t\"", "hole of 2 bytes");
    bad("{\"a\":" ENTRY("U8", "[2]", "[0,2]") ",\"t\":" ENTRY("U8", "[2]", "[1,3]") "}", 3, "\"t\"", "overlaps \"a\"");
    bad("{\"a\":" ENTRY("U8", "[2]", "[0,2]") ",\"t\":" ENTRY("U8", "[2]", "[0,2]") "}", 2, "\"t\"", "overlaps \"a\"");
    bad("{\"t\":" ENTRY("U8", "[4]", "[0,4]") "}", 3, "\"t\"", "truncated");
    bad("{\"t\":" ENTRY("U8", "[9223372036854775807]", "[0,9223372036854775807]") "}", 3, "\"t\"", "overflows");
    bad("{\"t\":" ENTRY("U8", "[4]", "[0,4]") "}", 6, "2 bytes", "no tensor covers");
    bad("{}", 1, "1 bytes", "no tensor covers");
}

static void dtypes(void **state)
{
    (void)state;
    for (int i = 0; i < DTYPE_COUNT; i++) {
        enum dtype d = DTYPE_COUNT;
        assert_int_equal(dtype_parse(dtype_name((enum dtype)i), &d), 0);
        assert_int_equal(d, i);
        assert_true(dtype_bits(d) >= 4 && dtype_bits(d) <= 64);
    }
    enum dtype d;
    assert_int_equal(dtype_parse("FLOAT", &d), -1);
    assert_int_equal(dtype_parse("", &d), -1);
}

static void files(void **state)
{
    (void)state;
    struct safetensors_file f = {0};
    struct octavo_error err;
    assert_int_equal(safetensors_open("/nonexistent/w.safetensors", &f, &err), OCTAVO_EIO);
    assert_non_null(strstr(err.msg, "/nonexistent/w.safetensors"));
    assert_int_equal(safetensors_open("/", &f, &err), OCTAVO_EIO);
    safetensors_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(order_and_views),
        cmocka_unit_test(frame_rules),
        cmocka_unit_test(name_rules),
        cmocka_unit_test(header_text_rules),
        cmocka_unit_test(metadata_rules),
        cmocka_unit_test(entry_rules),
        cmocka_unit_test(size_rules),
        cmocka_unit_test(tiling_rules),
        cmocka_unit_test(dtypes),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
