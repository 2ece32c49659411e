/* octavo quantize, run as the program would: round trips of small checkpoints through it, its arithmetic on synthetic
 * data, and how it refuses.
 * usage: test_quantize GOLDEN_MODELS GOLDEN_QUANT */
#include "cli/cmd_quantize.h"
#include "quantize/calibrate.h"
#include "quantize/smooth.h"
#include "quantize/weights.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/linear.h"

#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *golden, *quantised;
static char base[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* A folder for results, and token ids to calibrate with that every small model has. */
static int setup(void **state)
{
    (void)state;
    snprintf(base, sizeof(base), "/tmp/octavo_quantize_XXXXXX");
    if (!mkdtemp(base))
        return -1;
    char *path = path_join(base, "ids.json");
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 256; i++)
        fprintf(f, "%s%d", i ? "," : "[", i * 37 % 61);
    fputs("]", f);
    free(path);
    return fclose(f);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Runs the command; *output gets stdout and stderr. */
static int run(const char *const *args, struct buf *output)
{
    char path[80];
    int saved[2];
    snprintf(path, sizeof(path), "%s/output", base);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        saved[i] = dup(1 + i);
        dup2(fileno(f), 1 + i);
    }
    char *argv[20] = {(char[]){"quantize"}};
    int n = 1;
    for (; args[n - 1]; n++)
        argv[n] = mem_strdup(args[n - 1]);
    int r = cmd_quantize(n, argv);
    for (int i = 1; i < n; i++)
        free(argv[i]);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], 1 + i);
        close(saved[i]);
    }
    fclose(f);
    assert_int_equal(file_read(path, 1 << 20, output, NULL), 0);
    unlink(path);
    return r;
}

/* Quantises a small model to base/out with the flags given, which end with NULL. */
static struct checkpoint *make(const char *model, const char *const *flags)
{
    struct octavo_error err = {0};
    struct buf output = {0};
    struct checkpoint *ck = NULL;
    char *src = path_join(golden, model), *dst = path_join(base, "out"), *ids = path_join(base, "ids.json");
    const char *args[16] = {src, "-o", dst, "--overwrite", "--calib", ids, "--window", "64", "--threads", "2"};
    for (int n = 10; *flags; n++)
        args[n] = *flags++;
    if (run(args, &output) != 0)
        fail_msg("%s: %s", model, buf_str(&output));
    if (checkpoint_open(dst, LOAD_AUTO, 0, &ck, &err) < 0)
        fail_msg("%s: %s", model, err.msg);
    assert_string_equal(checkpoint_format(ck), "ModelSlim");
    assert_int_equal(checkpoint_num_unused(ck), 0);
    buf_release(&output);
    free(src), free(dst), free(ids);
    return ck;
}

/* Every weight within half a step of what it was, or clipped by no more than the smallest clip ratio explains. */
static void compare_linear(const struct checkpoint *from, const struct checkpoint *to, const char *module, int bits)
{
    struct linear_spec was, is;
    checkpoint_linear(from, module, &was);
    checkpoint_linear(to, module, &is);
    bits = was.n % 2 ? 8 : bits; /* an odd row has no other to share bytes with */
    assert_true(is.quantised && is.bits == bits && is.n == was.n && is.k == was.k && !is.has_zero);
    int8_t *q = mem_alloc((size_t)is.n * (size_t)is.k);
    float *scale = mem_alloc((size_t)is.n * sizeof(float));
    assert_int_equal(checkpoint_linear_rows(to, &is, 0, is.n, q), 0);
    checkpoint_linear_scales(to, &is, scale, NULL);
    size_t elem = (size_t)dtype_bits(was.weight->dtype) / 8;
    int top = bits == 8 ? 127 : 7, bottom = bits == 8 ? -127 : -8;
    for (int j = 0; j < is.n; j++)
        for (int i = 0; i < is.k; i++) {
            size_t at = (size_t)j * (size_t)is.k + (size_t)i;
            float w = tensor_elem(was.weight->data + at * elem, was.weight->dtype);
            bool clipped = q[at] == top || q[at] == bottom;
            float most = (float)top * (bits == 8 ? 0.06f : 0.91f); /* ratios down to 0.95 and 0.525 */
            float room = (clipped ? most : 0.5f) * scale[j] * 1.0001f;
            if (!(fabsf(w - (float)q[at] * scale[j]) <= room))
                fail_msg("%s (%d, %d): %g became %d * %g", module, j, i, (double)w, q[at], (double)scale[j]);
        }
    free(q);
    free(scale);
}

static struct checkpoint *source(const char *model)
{
    struct octavo_error err = {0};
    struct checkpoint *ck = NULL;
    char *src = path_join(golden, model);
    if (checkpoint_open(src, LOAD_AUTO, 0, &ck, &err) < 0)
        fail_msg("%s", err.msg);
    free(src);
    return ck;
}

static void round_trip(const char *model, const char *weights, int bits)
{
    static const char *const modules[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                          "mlp.down_proj"};
    struct checkpoint *from = source(model),
                      *to = make(model, (const char *[]){"--weights", weights, "--smooth", "none", NULL});
    const struct model_config *c = checkpoint_config(from);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        const struct kv_scales *kv = checkpoint_kv_scales(to, l);
        assert_non_null(kv);
        for (int i = 0; i < c->num_key_value_heads * c->head_dim; i++) {
            assert_true(kv->k_scale[i] > 0 && isfinite(kv->k_scale[i]) && kv->k_offset[i] == 0);
            assert_true(kv->v_scale[i] > 0 && isfinite(kv->v_scale[i]) && kv->v_offset[i] == 0);
        }
        for (size_t m = 0; m < ARRAY_LEN(modules); m++) {
            char name[96];
            snprintf(name, sizeof(name), "model.layers.%d.%s", l, modules[m]);
            compare_linear(from, to, name, bits);
        }
    }
    checkpoint_free(from);
    checkpoint_free(to);
}

static void weights_within_half_a_step(void **state)
{
    (void)state;
    round_trip("qwen3-tied", "w8a8", 8);
    round_trip("qwen2-f16", "w8a8", 8); /* biases */
    round_trip("llama2-f32", "w8a16", 8);
}

static void four_bits_unpack_to_what_was_packed(void **state)
{
    (void)state;
    round_trip("llama3-tied", "w4a8", 4);
    round_trip("qwen3-mha-128", "w4a8", 4);
}

static void scale_bias_is_as_the_format_wants(void **state)
{
    (void)state;
    struct checkpoint *ck = make("qwen3-tied", (const char *[]){"--weights", "w4a8", NULL});
    static const struct {
        const char *module;
        int columns;
    } cases[] = {{"model.layers.0.self_attn.q_proj", 1}, {"model.layers.0.mlp.down_proj", 16}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct linear_spec s;
        struct safetensors_file f;
        char name[128], *path = mem_printf("%s/out/quant_model_weights-00001-of-00001.safetensors", base);
        const struct tensor *bias = NULL;
        assert_int_equal(safetensors_open(path, &f, NULL), 0);
        free(path);
        snprintf(name, sizeof(name), "%s.scale_bias", cases[i].module);
        for (size_t t = 0; t < f.num_tensors; t++)
            bias = strcmp(f.tensors[t].name, name) ? bias : &f.tensors[t];
        checkpoint_linear(ck, cases[i].module, &s);
        assert_non_null(bias);
        assert_int_equal(bias->shape[0], s.n);
        assert_int_equal(bias->shape[1], cases[i].columns);
        int8_t *q = mem_alloc((size_t)s.n * (size_t)s.k);
        float *scale = mem_alloc((size_t)s.n * sizeof(float));
        checkpoint_linear_rows(ck, &s, 0, s.n, q);
        checkpoint_linear_scales(ck, &s, scale, NULL);
        for (int j = 0; j < s.n; j++)
            for (int c = 0; c < cases[i].columns; c++) {
                int sum = 0, part = s.k / cases[i].columns;
                for (int k = 0; k < part; k++)
                    sum += q[j * s.k + c * part + k];
                float got = tensor_elem(bias->data + (size_t)(j * cases[i].columns + c) * 4, DTYPE_F32);
                assert_true(fabsf(got - 8.0f * (float)sum * scale[j]) <= 1e-6f * fabsf(got));
            }
        free(q), free(scale);
        safetensors_close(&f);
    }
    checkpoint_free(ck);
}

static void kinds_of_heads_and_caches(void **state)
{
    (void)state;
    struct linear_spec s;
    struct checkpoint *ck = make("qwen3-tied", (const char *[]){"--lm-head", "w8a8", "--kv-asymmetric", NULL});
    checkpoint_linear(ck, "lm_head", &s);
    assert_string_equal(s.kind, "W8A8_DYNAMIC");
    bool any = false;
    for (int i = 0; i < checkpoint_config(ck)->num_key_value_heads * checkpoint_config(ck)->head_dim; i++)
        any = any || checkpoint_kv_scales(ck, 0)->k_offset[i] != 0;
    assert_true(any);
    checkpoint_free(ck);
    ck = make("qwen3-tied", (const char *[]){"--kv", "bf16", NULL});
    checkpoint_linear(ck, "lm_head", &s);
    assert_string_equal(s.kind, "FLOAT");
    assert_non_null(checkpoint_find(ck, "lm_head.weight"));
    assert_null(checkpoint_kv_scales(ck, 0));
    checkpoint_free(ck);
    ck = make("qwen3-tied", (const char *[]){"--weights", "float", NULL});
    checkpoint_linear(ck, "model.layers.0.mlp.up_proj", &s);
    assert_string_equal(s.kind, "FLOAT");
    assert_non_null(checkpoint_kv_scales(ck, 0));
    checkpoint_free(ck);
}

/* ---- arithmetic ---- */

static void cache_scales(void **state)
{
    (void)state;
    float scale, offset;
    kv_scale_of(-2, 1, 1, false, &scale, &offset);
    assert_true(scale == 2.0f / 127.0f && offset == 0);
    kv_scale_of(0, 5.1f, 1, true, &scale, &offset);
    assert_true(fabsf(scale - 0.02f) < 1e-6f && offset == -128);
    kv_scale_of(-5.1f, 0, 1, true, &scale, &offset);
    assert_true(offset == 127);
    kv_scale_of(0, 0, 1, true, &scale, &offset); /* a dead channel */
    assert_true(scale > 0 && isfinite(1 / scale) && isfinite(offset));
    assert_true(kv_candidate_ratio(KV_RATIO_ONE) == 1.0f);
    for (float x = -3; x < 3; x += 0.01f) {
        kv_scale_of(-2, 1, 1, true, &scale, &offset);
        float got = kv_round_trip(x, scale, 1 / scale, offset);
        if (x > -2 && x < 1)
            assert_true(fabsf(got - x) <= scale * 0.51f);
        else
            assert_true(got <= 1 + scale && got >= -2 - scale);
    }
}

static void rows_are_finite_whatever_they_hold(void **state)
{
    (void)state;
    float w[20] = {0}, mean_sq[20];
    int8_t q[20];
    for (int i = 0; i < 20; i++)
        mean_sq[i] = 1;
    float s = row_quantize(w, mean_sq, 20, 8, q);
    assert_true(s > 0 && isfinite(1 / s) && q[0] == 0);
    for (int i = 0; i < 20; i++)
        w[i] = i % 2 ? 0x1p-140f : -0x1p-140f;
    s = row_quantize(w, mean_sq, 20, 8, q);
    assert_true(s > 0 && isfinite(1 / s));
    /* one weight that no input reaches may be clipped for the sake of the others; in four bits that pays */
    for (int i = 0; i < 20; i++) {
        w[i] = 0.1f * (float)(i % 7 - 3);
        mean_sq[i] = 1;
    }
    w[3] = 0.5f;
    mean_sq[3] = 0;
    s = row_quantize(w, mean_sq, 20, 4, q);
    assert_true(s < 0.5f / 7);
    assert_int_equal(q[3], 7);
}

/* Inputs with one channel a hundred times the others: smoothing has to find it, and help. */
static void smoothing_finds_an_outlier(void **state)
{
    (void)state;
    enum { N = 32, W = 64, R = 48 };
    static float weight[N * W], rows[R * W], absmax[W], mean_sq[W];
    struct octavo_error err = {0};
    unsigned seed = 7;
    for (int i = 0; i < N * W; i++)
        weight[i] = (float)(int)((seed = seed * 1664525u + 1013904223u) >> 16 & 0xff) / 128 - 1;
    for (int i = 0; i < R * W; i++) {
        rows[i] = (float)(int)((seed = seed * 1664525u + 1013904223u) >> 16 & 0xff) / 128 - 1;
        rows[i] *= i % W == 5 ? 100 : 1;
        absmax[i % W] = fmaxf(absmax[i % W], fabsf(rows[i]));
        mean_sq[i % W] += rows[i] * rows[i] / R;
    }
    const struct tensor t = {.name = "w", .dtype = DTYPE_F32, .num_dims = 2, .shape = {N, W}};
    const struct weight_view view = {.tensor = &t, .data = (const uint8_t *)weight, .n = N, .k = W};
    const struct input_stats stats = {.width = W, .num_rows = R, .absmax = absmax, .mean_sq = mean_sq, .rows = rows};
    const struct smooth_set set = {.stats = &stats, .weights = &view, .count = 1, .bits = 8, .num_units = W};
    struct pool *pool = pool_new(2);
    float *factor;
    double gain;
    assert_int_equal(smooth_choose(pool, &set, &factor, &gain, &err), 0);
    assert_non_null(factor);
    assert_true(gain < 0.8);
    int exponent;
    for (int i = 0; i < W; i++)
        assert_true(frexpf(factor[i], &exponent) == 0.5f); /* powers of two */
    assert_true(factor[5] >= 4 * factor[6]);
    free(factor);
    pool_free(pool);
}

/* ---- refusals ---- */

static void expect_refusal(const char *const *args, const char *message)
{
    struct buf output = {0};
    assert_int_equal(run(args, &output), 1);
    if (!strstr(buf_str(&output), message))
        fail_msg("'%s' does not say '%s'", buf_str(&output), message);
    buf_release(&output);
    char *dst = path_join(base, "new");
    assert_int_not_equal(access(dst, F_OK), 0);
    free(dst);
    int entries = 0;
    DIR *dir = opendir(base);
    for (struct dirent *e; (e = readdir(dir));)
        entries += !strncmp(e->d_name, ".new", 4);
    closedir(dir);
    assert_int_equal(entries, 0);
}

static void refusals(void **state)
{
    (void)state;
    char *src = path_join(golden, "qwen3-tied"), *dst = path_join(base, "new"), *ids = path_join(base, "ids.json");
    char *bad = path_join(base, "bad.json"), *lines = path_join(base, "bad.jsonl"), *w8a8 = NULL;
    struct dirent **found;
    int n = scandir(quantised, &found, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *config = mem_printf("%s/%s/quant_model_description.json", quantised, found[i]->d_name);
        if (!w8a8 && file_exists(config))
            w8a8 = path_join(quantised, found[i]->d_name);
        free(config);
        free(found[i]);
    }
    free(found);
    FILE *f = fopen(bad, "w");
    fputs("[1, 2, 99999999]", f);
    fclose(f);
    f = fopen(lines, "w");
    fputs("{\"story\": \"no text\"}\n", f);
    fclose(f);
    expect_refusal((const char *[]){src, NULL}, "say where the checkpoint goes: -o DST");
    expect_refusal((const char *[]){src, "-o", base, "--calib", ids, NULL}, "exists already; name another folder");
    expect_refusal((const char *[]){src, "-o", src, "--overwrite", "--calib", ids, NULL}, "is where the source lies");
    expect_refusal((const char *[]){w8a8, "-o", dst, "--calib", ids, NULL}, "is quantised already (ModelSlim)");
    expect_refusal((const char *[]){src, "-o", dst, "--calib", ids, "--weights", "float", "--kv", "bf16", NULL},
                   "leaves nothing to quantise");
    expect_refusal((const char *[]){src, "-o", dst, "--calib", ids, "--kv", "bf16", "--kv-asymmetric", NULL},
                   "--kv-asymmetric is for --kv c8");
    expect_refusal((const char *[]){src, "-o", dst, "--calib", bad, NULL}, "gives the token 99999999");
    expect_refusal((const char *[]){src, "-o", dst, "--calib", "/nowhere/text", NULL}, "cannot open");
    expect_refusal((const char *[]){src, "-o", dst, "--weights", "w2a2", NULL}, "w8a16");
    expect_refusal((const char *[]){"/nowhere", "-o", dst, NULL}, "no such folder");
    free(src), free(dst), free(ids), free(bad), free(lines), free(w8a8);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s GOLDEN_MODELS GOLDEN_QUANT\n", argv[0]);
        return 2;
    }
    golden = argv[1];
    quantised = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_within_half_a_step),
        cmocka_unit_test(four_bits_unpack_to_what_was_packed),
        cmocka_unit_test(scale_bias_is_as_the_format_wants),
        cmocka_unit_test(kinds_of_heads_and_caches),
        cmocka_unit_test(cache_scales),
        cmocka_unit_test(rows_are_finite_whatever_they_hold),
        cmocka_unit_test(smoothing_finds_an_outlier),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests_name("quantize", tests, setup, teardown);
}
