/* Benchmarks' arithmetic: what a model costs by its published dimensions, counted by hand, and percentiles. */
#include "base/mem.h"
#include "cli/bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *configs;

static struct checkpoint *open_config(const char *name)
{
    struct checkpoint *ckpt;
    struct octavo_error err;
    char *dir = mem_printf("%s/%s", configs, name);
    if (checkpoint_open(dir, LOAD_DUMMY, 0, &ckpt, &err) < 0)
        fail_msg("%s", err.msg);
    free(dir);
    return ckpt;
}

static struct bench_cost cost_of(const struct checkpoint *ckpt, enum dtype kv, bool quantize)
{
    struct bench_cost c;
    enum dtype dtypes[CONFIG_MAX_LAYERS];
    for (int i = 0; i < CONFIG_MAX_LAYERS; i++)
        dtypes[i] = kv;
    bench_cost_init(&c, ckpt, dtypes, quantize);
    return c;
}

/* Published sizes, without norms: the folders are the models they are named after. */
static void dimensions(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double billion;
        bool tied;
    } models[] = {{"qwen3-0.6b", 0.596, true},
                  {"qwen3-1.7b", 1.72, true},
                  {"qwen3-4b", 4.02, true},
                  {"qwen3-8b", 8.19, false},
                  {"qwen3-32b", 32.76, false}};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        struct checkpoint *ckpt = open_config(models[i].name);
        const struct model_config *m = checkpoint_config(ckpt);
        struct bench_cost c = cost_of(ckpt, DTYPE_BF16, false);
        double weights = c.linear_macs + c.head_macs * (models[i].tied ? 1 : 2);
        assert_int_equal(m->tie_word_embeddings, models[i].tied);
        assert_int_equal(m->max_model_len, 40960);
        assert_true(fabs(weights / 1e9 / models[i].billion - 1) < 0.003);
        assert_true(c.weight_bytes == 2 * (c.linear_macs + c.head_macs));
        assert_false(c.integer);
        checkpoint_free(ckpt);
    }
}

static void costs(void **state)
{
    (void)state;
    struct checkpoint *ckpt = open_config("qwen3-0.6b");
    struct bench_cost c = cost_of(ckpt, DTYPE_I8, true);
    /* q and o, k and v, gate, up and down */
    double layer = 1024.0 * 2048 * 2 + 1024 * 1024 * 2 + 1024 * 3072 * 3, head = 1024.0 * 151936;
    assert_true(c.linear_macs == 28 * layer && c.head_macs == head);
    assert_true(c.weight_bytes == 28 * layer + head && c.integer);
    assert_true(bench_cost_prefill_macs(&c, 1) == 28 * layer + head + 28 * 2 * 16 * 128);
    assert_true(bench_cost_prefill_macs(&c, 3) == 3 * 28 * layer + head + 6 * 28 * 2 * 16 * 128);
    assert_true(bench_cost_decode_macs(&c, 9) == 28 * layer + head + 10 * 28 * 2 * 16 * 128);
    assert_true(bench_cost_kv_bytes(&c, 0) == 28 * 2 * 8 * 128);
    assert_true(bench_cost_kv_bytes(&c, 99) == 100 * 28 * 2 * 8 * 128);
    assert_true(cost_of(ckpt, DTYPE_BF16, true).kv_bytes[LAYER_FULL_ATTENTION] == 2 * c.kv_bytes[LAYER_FULL_ATTENTION]);
    /* the same model with half of its layers sliding: the sum over tokens, one at a time */
    c.window = 5;
    c.num_layers[LAYER_FULL_ATTENTION] = c.num_layers[LAYER_SLIDING_ATTENTION] = 14;
    c.kv_bytes[LAYER_FULL_ATTENTION] /= 2;
    c.kv_bytes[LAYER_SLIDING_ATTENTION] = c.kv_bytes[LAYER_FULL_ATTENTION];
    double sum = head;
    for (int n = 1; n <= 12; n++) {
        sum += bench_cost_decode_macs(&c, n - 1) - head;
        assert_true(bench_cost_prefill_macs(&c, n) == sum);
        assert_true(bench_cost_kv_bytes(&c, n - 1) == (n + MIN(n, 5)) * 14 * 2 * 8 * 128);
    }
    checkpoint_free(ckpt);
}

static void percentiles(void **state)
{
    (void)state;
    double x[] = {4, 1, 3, 2};
    bench_sort(x, 4);
    assert_true(bench_mean(x, 4) == 2.5);
    assert_true(bench_percentile(x, 4, 0) == 1 && bench_percentile(x, 4, 100) == 4);
    assert_true(bench_percentile(x, 4, 50) == 2.5);
    assert_true(fabs(bench_percentile(x, 4, 90) - 3.7) < 1e-12);
    assert_true(bench_percentile(x, 1, 99) == 1);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    configs = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dimensions),
        cmocka_unit_test(costs),
        cmocka_unit_test(percentiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
