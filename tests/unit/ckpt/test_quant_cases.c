/* The checkpoints of tests/golden/quant, opened, against what an independent reader recorded of them (linears.json):
 * every linear's kind, integers, scales, zero points and biases, every layer's cache scales, every norm's bias.
 * usage: test_quant_cases GOLDEN_QUANT */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "ckpt/values.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *golden;

/* The sums of record.py. */
static double reals(const float *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)(i % 31 + 1);
    return sum;
}

static double tensor_reals(const struct tensor *t)
{
    double sum = 0;
    for (size_t i = 0; i < tensor_count(t); i++)
        sum += (double)tensor_value(t, i) * (double)(i % 31 + 1);
    return sum;
}

static void add_integers(int64_t *sum, size_t at, const int8_t *q, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *sum += q[i] * (int64_t)((at + i) * 7 % 251 + 1);
}

static double number(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    if (!json_is_number(v))
        fail_msg("linears.json has no number %s", key);
    return json_number_value(v);
}

static void near(const char *name, const char *what, double found, double want)
{
    if (!(fabs(found - want) <= 1e-9 * (1 + fabs(want))))
        fail_msg("%s: %s: %.17g, recorded %.17g", name, what, found, want);
}

static void bias_check(const char *name, const json_t *want, const struct tensor *bias)
{
    const json_t *v = json_object_get(want, "bias");
    assert_int_equal(json_is_number(v), bias != NULL);
    if (bias)
        near(name, "bias", tensor_reals(bias), json_number_value(v));
}

/* Rows in pieces of 1 to 5, as threads would ask for them. */
static void integers_check(const struct checkpoint *c, const char *name, const json_t *want,
                           const struct linear_spec *s)
{
    int64_t sum = 0;
    int8_t *q = mem_alloc((size_t)s->k * 5);
    for (int row = 0, rows = 1; row < s->n; row += rows, rows = rows % 5 + 1) {
        rows = MIN(rows, s->n - row);
        assert_int_equal(checkpoint_linear_rows(c, s, row, rows, q), 0);
        add_integers(&sum, (size_t)row * (size_t)s->k, q, (size_t)rows * (size_t)s->k);
    }
    free(q);
    near(name, "integers", (double)sum, number(want, "q"));
}

static void scales_check(const struct checkpoint *c, const char *name, const json_t *want, const struct linear_spec *s)
{
    size_t count = (size_t)s->n * (size_t)(s->k / s->group_size);
    assert_int_equal(s->k / s->group_size, (int)number(want, "groups"));
    float *scale = mem_alloc(count * sizeof(float)), *zero = mem_alloc(count * sizeof(float));
    checkpoint_linear_scales(c, s, scale, zero);
    near(name, "scales", reals(scale, count), number(want, "scale"));
    near(name, "zeros", reals(zero, count), json_object_get(want, "zero") ? number(want, "zero") : 0);
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any |= zero[i] != 0;
    assert_int_equal(any, s->has_zero);
    free(scale);
    free(zero);
}

static void folded_check(const struct checkpoint *c, const char *name, const json_t *want, const struct linear_spec *s)
{
    int64_t sum = 0;
    int32_t *bias = mem_alloc((size_t)s->n * sizeof(*bias));
    float *deq = mem_alloc((size_t)s->n * sizeof(*deq));
    checkpoint_linear_folded(c, s, bias, deq);
    for (size_t i = 0; i < (size_t)s->n; i++)
        sum += bias[i] * (int64_t)(i * 7 % 251 + 1);
    near(name, "quant_bias", (double)sum, number(want, "quant_bias"));
    near(name, "deq_scale", reals(deq, (size_t)s->n), number(want, "deq_scale"));
    assert_null(s->bias);
    free(bias);
    free(deq);
}

static const struct {
    const char *recorded, *kind;
    int bits;
    enum activation_kind activation;
} kinds[] = {
    {"W8A8", "W8A8", 8, ACTIVATION_INT8_STATIC},
    {"W8A8_DYNAMIC", "W8A8_DYNAMIC", 8, ACTIVATION_INT8_DYNAMIC},
    {"W8A8_MIX", "W8A8_MIX", 8, ACTIVATION_INT8_DYNAMIC},
    {"W8A16", "W8A16", 8, ACTIVATION_FLOAT},
    {"W4A8_DYNAMIC", "W4A8_DYNAMIC", 4, ACTIVATION_INT8_DYNAMIC},
    {"CT_W8A8", "compressed-tensors W8A8", 8, ACTIVATION_INT8_STATIC},
    {"CT_W8A8_DYNAMIC", "compressed-tensors W8A8 dynamic", 8, ACTIVATION_INT8_DYNAMIC},
    {"CT_W4A16", "compressed-tensors W4A16", 4, ACTIVATION_FLOAT},
};

static void linear_check(const struct checkpoint *c, const json_t *want)
{
    const char *name = json_string_value(json_object_get(want, "module"));
    const char *kind = json_string_value(json_object_get(want, "kind"));
    struct linear_spec s;
    checkpoint_linear(c, name, &s);
    assert_int_equal(s.n, (int)number(want, "n"));
    assert_int_equal(s.k, (int)number(want, "k"));
    assert_int_equal(s.quantised, strcmp(kind, "FLOAT") != 0);
    if (!s.quantised) {
        assert_string_equal(s.kind, "FLOAT");
        bias_check(name, want, s.bias);
        return;
    }
    size_t i = 0;
    while (i < ARRAY_LEN(kinds) && strcmp(kinds[i].recorded, kind))
        i++;
    assert_true(i < ARRAY_LEN(kinds));
    assert_string_equal(s.kind, kinds[i].kind);
    assert_int_equal(s.bits, kinds[i].bits);
    assert_int_equal(s.activation, kinds[i].activation);
    integers_check(c, name, want, &s);
    assert_int_equal(s.folded, !strcmp(kind, "W8A8"));
    if (s.folded) {
        folded_check(c, name, want, &s);
    } else {
        scales_check(c, name, want, &s);
        bias_check(name, want, s.bias);
    }
    if (s.activation == ACTIVATION_INT8_STATIC) {
        near(name, "input_scale", (double)s.input_scale, number(want, "input_scale"));
        near(name, "input_offset", (double)s.input_offset, number(want, "input_offset"));
    }
}

static void cache_check(const struct checkpoint *c, int layer, const json_t *want)
{
    const struct kv_scales *kv = checkpoint_kv_scales(c, layer);
    size_t n = (size_t)checkpoint_config(c)->num_key_value_heads * (size_t)checkpoint_config(c)->head_dim;
    assert_int_equal(kv != NULL, json_is_array(want));
    if (!kv)
        return;
    const float *const found[] = {kv->k_scale, kv->k_offset, kv->v_scale, kv->v_offset};
    for (size_t i = 0; i < 4; i++)
        near("cache", "scales", reals(found[i], n), json_number_value(json_array_get(want, i)));
}

static void cases(void **state)
{
    (void)state;
    struct octavo_error err;
    json_t *all = NULL;
    char *path = path_join(golden, "linears.json");
    assert_int_equal(json_parse_file(path, 1 << 20, 0, &all, NULL), 0);
    free(path);
    const char *name, *norm;
    json_t *want, *v;
    size_t i, num = 0;
    json_object_foreach (all, name, want) {
        struct checkpoint *c = NULL;
        path = path_join(golden, name);
        if (checkpoint_open(path, LOAD_AUTO, 0, &c, &err) < 0)
            fail_msg("%s", err.msg);
        assert_string_equal(checkpoint_format(c), strstr(name, "-ct-") ? "compressed-tensors" : "ModelSlim");
        assert_int_equal(checkpoint_num_unused(c), 0);
        json_array_foreach (json_object_get(want, "linears"), i, v)
            linear_check(c, v);
        json_array_foreach (json_object_get(want, "caches"), i, v)
            cache_check(c, (int)i, v);
        const json_t *biases = json_object_get(want, "norm_biases");
        size_t found = 0;
        for (i = 0; i < checkpoint_num_tensors(c); i++)
            found += strstr(checkpoint_tensor(c, i)->name, "norm.bias") != NULL;
        assert_int_equal(found, json_object_size(biases));
        json_object_foreach ((json_t *)(uintptr_t)biases, norm, v) {
            assert_non_null(checkpoint_norm_bias(c, norm));
            near(norm, "norm bias", tensor_reals(checkpoint_norm_bias(c, norm)), json_number_value(v));
        }
        checkpoint_free(c);
        free(path);
        num++;
    }
    json_decref(all);
    assert_int_equal(num, 11);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    golden = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(cases)};
    return cmocka_run_group_tests_name("quant_cases", tests, NULL, NULL);
}
