/* octavo inspect, run as the program would: what it prints about good checkpoints, and how it refuses bad ones.
 * usage: test_inspect GOLDEN_MODELS STORYTELLER GOLDEN_QUANT */
#include "cli/cmd_inspect.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *golden, *storyteller, *quant;

/* Runs the command with stdout and stderr into files; *out and *errors are the caller's to release. */
static int run(const char *const *args, int n, struct buf *out, struct buf *errors)
{
    char paths[2][40] = {"/tmp/octavo_inspect_XXXXXX", "/tmp/octavo_inspect_XXXXXX"};
    int saved[2];
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        int fd = mkstemp(paths[i]);
        assert_true(fd >= 0);
        saved[i] = dup(1 + i);
        dup2(fd, 1 + i);
        close(fd);
    }
    char *argv[8] = {(char[]){"inspect"}};
    for (int i = 0; i < n; i++)
        argv[1 + i] = strdup(args[i]);
    int r = cmd_inspect(1 + n, argv);
    for (int i = 0; i < n; i++)
        free(argv[1 + i]);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], 1 + i);
        close(saved[i]);
        assert_int_equal(file_read(paths[i], 1 << 20, i ? errors : out, NULL), 0);
        unlink(paths[i]);
    }
    return r;
}

static json_t *inspect_json(const char *dir, const char *flag)
{
    struct buf out = {0}, errors = {0};
    json_t *root = NULL;
    const char *args[] = {dir, "--json", flag};
    if (run(args, flag ? 3 : 2, &out, &errors) != 0)
        fail_msg("%s: %s", dir, buf_str(&errors));
    assert_int_equal(json_parse_text(buf_str(&out), out.len, "output", 0, &root, NULL), 0);
    buf_release(&out);
    buf_release(&errors);
    return root;
}

static int64_t field(const json_t *root, const char *key)
{
    assert_true(json_is_integer(json_object_get(root, key)));
    return json_integer_value(json_object_get(root, key));
}

static void bundled_model(void **state)
{
    (void)state;
    json_t *root = inspect_json(storyteller, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "architecture")), "Qwen3ForCausalLM");
    assert_true(field(root, "tokenizer_size") > 256);
    int64_t layers = field(root, "num_hidden_layers"), kv = field(root, "num_key_value_heads");
    const json_t *memory = json_object_get(root, "memory");
    const json_t *bf16 = json_object_get(json_object_get(memory, "kv_cache"), "bfloat16");
    assert_int_equal(field(bf16, "bytes_per_token"), layers * 2 * kv * field(root, "head_dim") * 2);
    assert_int_equal(field(bf16, "full_context_bytes"), field(bf16, "bytes_per_token") * field(root, "max_model_len"));
    int64_t bytes = field(json_object_get(json_object_get(root, "tensors"), "BF16"), "bytes");
    assert_int_equal(bytes, 2 * field(root, "num_parameters"));
    assert_int_equal(json_array_size(json_object_get(root, "unused_tensors")), 0);
    json_decref(root);
}

static void dummy_is_the_same_model(void **state)
{
    (void)state;
    char *dir = path_join(golden, "qwen3-tied");
    json_t *file = inspect_json(dir, NULL), *dummy = inspect_json(dir, "--load-format=dummy");
    assert_true(json_is_null(json_object_get(file, "tokenizer_size")));
    assert_int_equal(field(file, "num_parameters"), field(dummy, "num_parameters"));
    assert_int_equal(field(json_object_get(file, "memory"), "packed_weights_bytes"),
                     field(json_object_get(dummy, "memory"), "packed_weights_bytes"));
    json_decref(file);
    json_decref(dummy);
    free(dir);
}

static void human(void **state)
{
    (void)state;
    struct buf out = {0}, errors = {0};
    char *dir = path_join(golden, "qwen2-sliding");
    const char *args[] = {dir};
    assert_int_equal(run(args, 1, &out, &errors), 0);
    assert_non_null(strstr(out.data, "2 heads, 1 KV heads, head_dim 48"));
    assert_non_null(strstr(out.data, "2 of 3 layers see 33 tokens"));
    assert_non_null(strstr(out.data, "RoPE          default, theta 10000"));
    assert_non_null(strstr(out.data, "KV bfloat16"));
    assert_non_null(strstr(out.data, "KiB"));
    buf_release(&out);
    buf_release(&errors);
    free(dir);
}

static void quantised(void **state)
{
    (void)state;
    struct buf out = {0}, errors = {0};
    char *dir = path_join(quant, "qwen3-dynamic-c8-asym");
    const char *args[] = {dir};
    assert_int_equal(run(args, 1, &out, &errors), 0);
    assert_non_null(strstr(out.data, "format        ModelSlim"));
    assert_non_null(strstr(out.data, "21 W8A8_DYNAMIC, 1 FLOAT"));
    assert_non_null(strstr(out.data, "int8 (C8) in layers 0, 2 of 3, asymmetric"));
    json_t *root = inspect_json(dir, NULL);
    const json_t *q = json_object_get(root, "quantization"), *memory = json_object_get(root, "memory");
    assert_int_equal(field(json_object_get(q, "linears"), "W8A8_DYNAMIC"), 21);
    assert_int_equal(json_array_size(json_object_get(q, "int8_kv_layers")), 2);
    assert_int_equal(json_array_size(json_object_get(q, "asymmetric_kv_layers")), 2);
    /* two layers of one byte, one of two, for 2 heads of 128, K and V */
    const json_t *kv = json_object_get(json_object_get(memory, "kv_cache"), "int8");
    assert_int_equal(field(kv, "bytes_per_token"), (1 + 2 + 1) * 2 * 2 * 128);
    /* q (512, 128), k and v (256, 128), o (128, 512), three of (320, 128) and a scale a row; head and embedding float
     */
    int64_t params = 3 * (2 * 512 * 128 + 2 * 256 * 128 + 3 * 320 * 128);
    int64_t scales = 3 * 4 * (512 + 2 * 256 + 128 + 2 * 320 + 128), head = 512 * 128;
    assert_int_equal(field(memory, "packed_weights_bytes"), params + scales + 2 * head);
    assert_int_equal(field(root, "num_parameters"), params + 2 * head + 3 * (2 * 128 + 2 * 128) + 128);
    json_decref(root);
    buf_clear(&out);
    free(dir);
    dir = path_join(quant, "llama-w8a16-w4a8");
    args[0] = dir;
    assert_int_equal(run(args, 1, &out, &errors), 0);
    assert_non_null(strstr(out.data, "12 W8A16, 9 W4A8_DYNAMIC, 1 W8A8_DYNAMIC"));
    assert_non_null(strstr(out.data, "float: the checkpoint has no scales for it"));
    buf_release(&out);
    buf_release(&errors);
    free(dir);
}

static void refusals(void **state)
{
    (void)state;
    struct buf out = {0}, errors = {0};
    const char *args[] = {golden}; /* a folder, but no model */
    assert_int_equal(run(args, 1, &out, &errors), 1);
    assert_non_null(strstr(buf_str(&errors), "config.json"));
    assert_int_equal(out.len, 0);
    buf_clear(&errors);
    const char *nowhere[] = {"/nonexistent/model", "--json"};
    assert_int_equal(run(nowhere, 2, &out, &errors), 1);
    assert_non_null(strstr(buf_str(&errors), "/nonexistent/model"));
    assert_int_equal(out.len, 0);
    buf_clear(&errors);
    const char *flag[] = {"--jsn"};
    assert_int_equal(run(flag, 1, &out, &errors), 1);
    assert_non_null(strstr(buf_str(&errors), "--json"));
    const char *help[] = {"--help"};
    assert_int_equal(run(help, 1, &out, &errors), 0);
    assert_non_null(strstr(out.data, "usage: octavo inspect"));
    buf_release(&out);
    buf_release(&errors);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    golden = argv[1];
    storyteller = argv[2];
    quant = argv[3];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bundled_model), cmocka_unit_test(dummy_is_the_same_model),
        cmocka_unit_test(human),         cmocka_unit_test(quantised),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests_name("inspect", tests, NULL, NULL);
}
