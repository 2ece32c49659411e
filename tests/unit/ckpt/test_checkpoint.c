/* ckpt/checkpoint: whole folders, made on the spot: files and indexes, required and optional tensors, what is refused,
 * and that no damage to any file can crash the reader. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct octavo_error err;

/* ---- folders ---- */

static int clear_dir(void **state)
{
    (void)state;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = path_join(dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
        free(path);
    }
    if (d)
        closedir(d);
    return 0;
}

static void put(const char *name, const void *data, size_t len)
{
    char *path = path_join(dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

/* A safetensors file from "name dtype bytes-of-element shape" rows; the data is zeros. */
struct row {
    const char *name, *dtype, *shape;
    size_t bytes;
};

static void put_tensors(const char *name, const struct row *rows, size_t n)
{
    struct buf h = {0}, file = {0};
    size_t at = 0;
    buf_putc(&h, '{');
    for (size_t i = 0; i < n; i++) {
        buf_printf(&h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", i ? "," : "",
                   rows[i].name, rows[i].dtype, rows[i].shape, at, at + rows[i].bytes);
        at += rows[i].bytes;
    }
    buf_putc(&h, '}');
    for (int i = 0; i < 8; i++)
        buf_putc(&file, (char)(h.len >> (8 * i)));
    buf_append(&file, h.data, h.len);
    for (size_t i = 0; i < at; i++)
        buf_putc(&file, 0);
    put(name, file.data, file.len);
    buf_release(&h);
    buf_release(&file);
}

/* ---- a model of one layer: hidden 4, 2 heads of 2, 1 KV head, feed-forward 6, vocabulary 8 ---- */

#define FIELDS                                                                                                         \
    "\"hidden_size\":4,\"intermediate_size\":6,\"num_hidden_layers\":1,\"num_attention_heads\":2,"                     \
    "\"num_key_value_heads\":1,\"head_dim\":2,\"vocab_size\":8,\"max_position_embeddings\":64"
#define CONFIG(arch, more) "{\"architectures\":[\"" arch "ForCausalLM\"]," FIELDS more "}"
#define L0 "model.layers.0."

static const struct row llama[] = {
    {"model.embed_tokens.weight", "BF16", "[8,4]", 64},
    {L0 "input_layernorm.weight", "F32", "[4]", 16}, /* types may mix */
    {L0 "self_attn.q_proj.weight", "F16", "[4,4]", 32},
    {L0 "self_attn.k_proj.weight", "BF16", "[2,4]", 16},
    {L0 "self_attn.v_proj.weight", "BF16", "[2,4]", 16},
    {L0 "self_attn.o_proj.weight", "BF16", "[4,4]", 32},
    {L0 "post_attention_layernorm.weight", "BF16", "[4]", 8},
    {L0 "mlp.gate_proj.weight", "BF16", "[6,4]", 48},
    {L0 "mlp.up_proj.weight", "BF16", "[6,4]", 48},
    {L0 "mlp.down_proj.weight", "BF16", "[4,6]", 48},
    {"model.norm.weight", "BF16", "[4]", 8},
    {"lm_head.weight", "BF16", "[8,4]", 64},
};
#define NUM_LLAMA (sizeof(llama) / sizeof(llama[0]))
#define HEAD (NUM_LLAMA - 1)

static const struct row q_bias = {L0 "self_attn.q_proj.bias", "BF16", "[4]", 8};
static const struct row k_bias = {L0 "self_attn.k_proj.bias", "BF16", "[2]", 4};
static const struct row v_bias = {L0 "self_attn.v_proj.bias", "BF16", "[2]", 4};
static const struct row q_norm = {L0 "self_attn.q_norm.weight", "BF16", "[2]", 4};
static const struct row k_norm = {L0 "self_attn.k_norm.weight", "BF16", "[2]", 4};

/* Writes the llama rows with one left out (NUM_LLAMA: none) and more added. */
static void put_model(size_t without, const struct row *more, size_t num_more)
{
    struct row rows[NUM_LLAMA + 8];
    size_t n = 0;
    for (size_t i = 0; i < NUM_LLAMA; i++)
        if (i != without)
            rows[n++] = llama[i];
    for (size_t i = 0; i < num_more; i++)
        rows[n++] = more[i];
    put_tensors("model.safetensors", rows, n);
}

static struct checkpoint *good(void)
{
    struct checkpoint *c = NULL;
    if (checkpoint_open(dir, LOAD_AUTO, 0, &c, &err) != 0)
        fail_msg("%s", err.msg);
    return c;
}

static void bad(int code, const char *a, const char *b)
{
    struct checkpoint *c = NULL;
    int r = checkpoint_open(dir, LOAD_AUTO, 0, &c, &err);
    if (r != code || !strstr(err.msg, a) || !strstr(err.msg, b) || !strstr(err.msg, dir))
        fail_msg("%d \"%s\", expected %d with \"%s\" and \"%s\"", r, err.msg, code, a, b);
    assert_null(c);
}

/* ---- tests ---- */

static void single_file(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    put_model(NUM_LLAMA, &(struct row){"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", "[1]", 4}, 1);
    struct checkpoint *c = good();
    assert_int_equal(checkpoint_num_tensors(c), NUM_LLAMA);
    assert_int_equal(checkpoint_num_unused(c), 1);
    assert_string_equal(checkpoint_unused(c, 0)->name, "model.layers.0.self_attn.rotary_emb.inv_freq");
    assert_null(checkpoint_find(c, "model.layers.0.self_attn.rotary_emb.inv_freq"));
    const struct tensor *t = checkpoint_find(c, "lm_head.weight");
    assert_non_null(t);
    const uint8_t *p = checkpoint_tensor_pin(c, t);
    assert_ptr_equal(p, t->data);
    assert_int_equal(p[t->bytes - 1], 0);
    checkpoint_tensor_unpin(c, t, p);
    assert_int_equal(p[0], 0); /* still readable: the pages come back from the file */
    assert_string_equal(checkpoint_dir(c), dir);
    assert_int_equal(checkpoint_config(c)->vocab_size, 8);
    assert_false(checkpoint_generation_config(c)->has_temperature);
    checkpoint_free(c);
    checkpoint_free(NULL);
}

static void layers_beyond_are_unused(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    put_model(NUM_LLAMA, &(struct row){"model.layers.1.mlp.up_proj.weight", "I8", "[1]", 1}, 1);
    struct checkpoint *c = good();
    assert_int_equal(checkpoint_num_unused(c), 1);
    checkpoint_free(c);
}

static void required_tensors(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    for (size_t i = 0; i < NUM_LLAMA; i++) {
        put_model(i, NULL, 0);
        bad(OCTAVO_EINVAL, llama[i].name, "is missing");
    }
    assert_non_null(strstr(err.msg, "\"tie_word_embeddings\": true")); /* the last one was lm_head */
    put_text("config.json", CONFIG("Llama", ",\"tie_word_embeddings\":true"));
    put_model(HEAD, NULL, 0);
    checkpoint_free(good());
    put_model(NUM_LLAMA, NULL, 0); /* tied, but the file has a head: it is used */
    struct checkpoint *c = good();
    assert_non_null(checkpoint_find(c, "lm_head.weight"));
    checkpoint_free(c);
}

static void shapes_and_types(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    for (size_t i = 0; i < NUM_LLAMA; i++) {
        struct row wrong = llama[i];
        wrong.dtype = "U8"; /* the same shape, but bytes */
        wrong.bytes = wrong.bytes / (strcmp(llama[i].dtype, "F32") ? 2 : 4);
        put_model(i, &wrong, 1);
        bad(OCTAVO_EUNSUPPORTED, llama[i].name, "is U8, but must be BF16, F16 or F32");
        wrong = (struct row){llama[i].name, "BF16", "[3,3]", 18};
        put_model(i, &wrong, 1);
        bad(OCTAVO_EINVAL, llama[i].name, "has the shape (3, 3), but config.json asks for (");
    }
    assert_non_null(strstr(err.msg, "(8, 4)"));
    assert_non_null(strstr(err.msg, "model.safetensors"));
}

static void biases(void **state)
{
    (void)state;
    const struct row qkv[] = {q_bias, k_bias, v_bias};
    put_text("config.json", CONFIG("Qwen2", ""));
    put_model(NUM_LLAMA, NULL, 0);
    bad(OCTAVO_EINVAL, "q_proj.bias", "Qwen2 models have biases");
    put_model(NUM_LLAMA, qkv, 3);
    checkpoint_free(good());
    put_text("config.json", CONFIG("Llama", "")); /* the flag says no, the tensors are there: they count */
    struct checkpoint *c = good();
    assert_non_null(checkpoint_find(c, k_bias.name));
    assert_int_equal(checkpoint_num_unused(c), 0);
    checkpoint_free(c);
    put_text("config.json", CONFIG("Llama", ",\"attention_bias\":true"));
    bad(OCTAVO_EINVAL, "o_proj.bias", "attention_bias is true");
    put_text("config.json", CONFIG("Llama", ",\"mlp_bias\":true"));
    bad(OCTAVO_EINVAL, "gate_proj.bias", "mlp_bias is true");
}

static void query_key_norms(void **state)
{
    (void)state;
    const struct row norms[] = {q_norm, k_norm};
    put_text("config.json", CONFIG("Qwen3", ""));
    put_model(NUM_LLAMA, norms, 2);
    checkpoint_free(good());
    put_model(NUM_LLAMA, norms, 1);
    bad(OCTAVO_EINVAL, "k_norm", "is missing");
    put_text("config.json", CONFIG("Llama", ""));
    bad(OCTAVO_EINVAL, "q_norm", "k_norm");
}

static void put_shards(void)
{
    put_tensors("a-1.safetensors", llama, 5);
    put_tensors("a-2.safetensors", llama + 5, NUM_LLAMA - 5);
}

/* The index of put_shards, with one more entry. */
static void put_index(const char *more)
{
    struct buf b = {0};
    buf_puts(&b, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (size_t i = 0; i < NUM_LLAMA; i++)
        buf_printf(&b, "%s\"%s\":\"a-%d.safetensors\"", i ? "," : "", llama[i].name, i < 5 ? 1 : 2);
    buf_printf(&b, "%s}}", more);
    put("model.safetensors.index.json", b.data, b.len);
    buf_release(&b);
}

static void shards(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    put_shards();
    checkpoint_free(good()); /* no index: every safetensors file */
    put_index("");
    struct checkpoint *c = good();
    assert_int_equal(checkpoint_num_tensors(c), NUM_LLAMA);
    checkpoint_free(c);
    put_tensors("stray.safetensors", llama, 2); /* not in the index: not read */
    checkpoint_free(good());
    char *index = path_join(dir, "model.safetensors.index.json");
    unlink(index);
    free(index);
    bad(OCTAVO_EINVAL, "is in two files", "stray.safetensors");
}

static void index_rules(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    put_shards();
    static const struct {
        const char *more, *a, *b;
    } cases[] = {
        {",\"x\":\"missing.safetensors\"", "missing.safetensors", "not in the folder"},
        {",\"x\":\"a-1.safetensors\"", "\"x\"", "does not hold it"},
        {",\"x\":\"../a-1.safetensors\"", "../a-1.safetensors", "not the name of a file"},
        {",\"x\":\"/etc/passwd\"", "/etc/passwd", "not the name of a file"},
        {",\"x\":\"sub/a.safetensors\"", "sub/a.safetensors", "not the name of a file"},
        {",\"x\":\"sub\\\\a.safetensors\"", "a.safetensors", "not the name of a file"},
        {",\"x\":\"..\"", "..", "not the name of a file"},
        {",\"x\":\".\"", "index.json", "not the name of a file"},
        {",\"x\":\"\"", "index.json", "not the name of a file"},
        {",\"x\":\"a\\u0001b\"", "a?b", "not the name of a file"},
        {",\"x\":\"a\\u0000b\"", "index.json", "not valid JSON"},
        {",\"x\":7", "\"x\"", "maps to something else"},
        {",\"x\":null", "\"x\"", "maps to something else"},
        {",\"lm_head.weight\":\"a-1.safetensors\"", "lm_head.weight", "duplicate"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct checkpoint *c = NULL;
        put_index(cases[i].more);
        assert_true(checkpoint_open(dir, LOAD_AUTO, 0, &c, &err) < 0);
        if (!strstr(err.msg, cases[i].a) || !strstr(err.msg, cases[i].b) || !strstr(err.msg, "index.json"))
            fail_msg("%s: \"%s\"", cases[i].more, err.msg);
    }
    put_text("model.safetensors.index.json", "{}");
    bad(OCTAVO_EINVAL, "weight_map", "missing");
    put_text("model.safetensors.index.json", "{\"weight_map\":[]}");
    bad(OCTAVO_EINVAL, "weight_map", "not an object");
    put_text("model.safetensors.index.json", "{\"weight_map\":{}}");
    bad(OCTAVO_EINVAL, "weight_map", "empty");
    put_text("model.safetensors.index.json", "[1");
    bad(OCTAVO_EINVAL, "index.json", "not valid JSON");
    put_index("");
    put_tensors("a-1.safetensors", llama, 6); /* o_proj in both */
    bad(OCTAVO_EINVAL, "o_proj", "two files");
    put_tensors("a-1.safetensors", llama, 4);
    bad(OCTAVO_EINVAL, "v_proj", "does not hold it");
}

static void folders(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    assert_int_equal(checkpoint_open("/nonexistent/model", LOAD_AUTO, 0, &c, &err), OCTAVO_EIO);
    assert_non_null(strstr(err.msg, "/nonexistent/model"));
    bad(OCTAVO_EIO, "no config.json", "");
    put_text("config.json", CONFIG("Llama", ""));
    bad(OCTAVO_EIO, "holds no weights: looked for model.safetensors.index.json, model.safetensors and *.safetensors",
        "");
    put_text("pytorch_model.bin", "x");
    bad(OCTAVO_EIO, "holds no weights", "converted to safetensors");
    char *file = path_join(dir, "config.json");
    assert_int_equal(checkpoint_open(file, LOAD_AUTO, 0, &c, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "not a folder"));
    free(file);
    put_text("generation_config.json", "{\"top_p\":9}");
    bad(OCTAVO_EINVAL, "generation_config.json", "top_p");
    put_text("generation_config.json", "{\"do_sample\":false}");
    put_model(NUM_LLAMA, NULL, 0);
    c = good();
    assert_true(checkpoint_generation_config(c)->has_temperature);
    checkpoint_free(c);
    assert_string_equal(checkpoint_format(c = good()), "float");
    checkpoint_free(c);
}

/* ---- damage ---- */

static uint64_t rng_state = 1;

static uint32_t rng(uint32_t n)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) % n);
}

/* Opens a damaged folder; a success must be sound enough to read every byte of every tensor. */
static int open_and_read(void)
{
    struct checkpoint *c = NULL;
    memset(&err, 0, sizeof(err));
    int r = checkpoint_open(dir, LOAD_AUTO, 0, &c, &err);
    if (r < 0) {
        assert_null(c);
        assert_true(err.code == r && err.msg[0]);
        return r;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < checkpoint_num_tensors(c); i++) {
        const struct tensor *t = checkpoint_tensor(c, i);
        const uint8_t *p = checkpoint_tensor_pin(c, t);
        for (size_t b = 0; b < t->bytes; b++)
            sum += p[b];
        checkpoint_tensor_unpin(c, t, p);
    }
    checkpoint_free(c);
    return sum > UINT32_MAX / 2; /* uses sum: the reads stay */
}

static void damage(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors.index.json", "a-1.safetensors",
                                        "a-2.safetensors", "generation_config.json"};
    int refused = 0, rounds = 3000;
    for (int round = 0; round < rounds; round++) {
        put_text("config.json",
                 CONFIG("Llama", ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.5},\"eos_token_id\":[1,2]"));
        put_text("generation_config.json", "{\"temperature\":0.5,\"eos_token_id\":[3,4],\"top_k\":2}");
        put_shards();
        put_index("");
        const char *name = names[rng(5)];
        char *path = path_join(dir, name);
        struct buf b = {0};
        assert_int_equal(file_read(path, 1 << 20, &b, NULL), 0);
        size_t header = strstr(name, "-1") || strstr(name, "-2") ? MIN(b.len, (size_t)400) : b.len;
        for (uint32_t edits = rng(4); edits--;)
            b.data[rng((uint32_t)header)] ^= (char)(1 << rng(8));
        if (rng(3) == 0)
            b.len = rng((uint32_t)b.len);
        put(name, buf_str(&b), b.len);
        refused += open_and_read() < 0;
        buf_release(&b);
        free(path);
    }
    assert_in_range(refused, rounds / 3, rounds - 1);
}

/* Every truncation of a whole file is refused. */
static void truncation(void **state)
{
    (void)state;
    put_text("config.json", CONFIG("Llama", ""));
    put_model(NUM_LLAMA, NULL, 0);
    char *path = path_join(dir, "model.safetensors");
    struct buf b = {0};
    assert_int_equal(file_read(path, 1 << 20, &b, NULL), 0);
    for (size_t len = 0; len < b.len; len++) {
        put("model.safetensors", b.data, len);
        assert_true(open_and_read() < 0);
    }
    buf_release(&b);
    free(path);
}

int main(void)
{
    snprintf(dir, sizeof(dir), "/tmp/octavo_ckpt_XXXXXX");
    if (!mkdtemp(dir))
        return 1;
#define TEST(f) cmocka_unit_test_teardown(f, clear_dir)
    const struct CMUnitTest tests[] = {
        TEST(single_file),      TEST(layers_beyond_are_unused),
        TEST(required_tensors), TEST(shapes_and_types),
        TEST(biases),           TEST(query_key_norms),
        TEST(shards),           TEST(index_rules),
        TEST(folders),          TEST(damage),
        TEST(truncation),
    };
    int r = cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
    rmdir(dir);
    return r;
}
