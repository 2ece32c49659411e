/* ckpt/dummy: weights from a config alone. Same bytes for the same seed, whoever asks and in which order; the right
 * distribution; and a checksum, so that they stay the same from one version to the next. */
#include "base/file.h"
#include "base/mem.h"
#include "ckpt/arch.h"
#include "ckpt/checkpoint.h"
#include "ckpt/dummy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define assert_near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))

static float read_element(const uint8_t *p, size_t i, enum dtype dtype)
{
    uint32_t u;
    float f;
    if (dtype == DTYPE_F32) {
        memcpy(&u, p + 4 * i, 4);
    } else {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        if (dtype == DTYPE_F16)
            return ldexpf((float)(h & 1023) + (h >> 10 & 31 ? 1024.f : 0), (h >> 10 & 31 ? (h >> 10 & 31) : 1) - 25) *
                   (h >> 15 ? -1.f : 1.f);
        u = (uint32_t)h << 16;
    }
    memcpy(&f, &u, 4);
    return f;
}

static void distribution(void **state)
{
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    const size_t n = 300001; /* several chunks and a tail */
    uint8_t *p = mem_alloc(4 * n), *f32 = mem_alloc(4 * n);
    dummy_fill(f32, n, DTYPE_F32, ARCH_LINEAR, "w", 3);
    for (size_t d = 0; d < ARRAY_LEN(dtypes); d++) {
        double sum = 0, squares = 0, fourth = 0, neighbours = 0, before = 0;
        dummy_fill(p, n, dtypes[d], ARCH_LINEAR, "w", 3);
        for (size_t i = 0; i < n; i++) {
            double x = read_element(p, i, dtypes[d]), exact = read_element(f32, i, DTYPE_F32);
            assert_true(fabs(x) < 0.08 && fabs(x - exact) <= fabs(exact) / 256); /* one value, rounded to the type */
            sum += x;
            squares += x * x;
            fourth += x * x * x * x;
            neighbours += x * before;
            before = x;
        }
        double deviation = sqrt(squares / (double)n);
        assert_true(fabs(sum / (double)n) < 2e-4);
        assert_near(deviation, 0.02, 2e-4);
        assert_near(fourth / (double)n / (deviation * deviation * deviation * deviation), 2.7, 0.1); /* kurtosis */
        assert_true(fabs(neighbours / squares) < 0.01);
    }
    free(p);
    free(f32);
}

static void roles(void **state)
{
    (void)state;
    uint16_t h[4], other[4];
    float f[4];
    dummy_fill(f, 4, DTYPE_F32, ARCH_NORM, "n", 1);
    assert_true(f[0] == 1 && f[3] == 1);
    dummy_fill(h, 4, DTYPE_BF16, ARCH_NORM, "n", 1);
    assert_int_equal(h[3], 0x3f80);
    dummy_fill(h, 4, DTYPE_F16, ARCH_NORM, "n", 1);
    assert_int_equal(h[3], 0x3c00);
    dummy_fill(h, 4, DTYPE_BF16, ARCH_LINEAR, "a", 1);
    dummy_fill(other, 4, DTYPE_BF16, ARCH_LINEAR, "b", 1);
    assert_memory_not_equal(h, other, sizeof(h));
    dummy_fill(other, 4, DTYPE_BF16, ARCH_LINEAR, "a", 2);
    assert_memory_not_equal(h, other, sizeof(h));
    dummy_fill(other, 2, DTYPE_BF16, ARCH_LINEAR, "a", 1); /* the length does not matter */
    assert_memory_equal(h, other, 4);
}

static uint64_t checksum(const struct checkpoint *c, const char *name)
{
    const struct tensor *t = checkpoint_find(c, name);
    assert_non_null(t);
    assert_null(t->data);
    const uint8_t *p = checkpoint_tensor_pin(c, t);
    assert_non_null(p);
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < t->bytes; i++)
        h = (h ^ p[i]) * 1099511628211u;
    checkpoint_tensor_unpin(c, t, p);
    return h;
}

static void folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/octavo_dummy_XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = path_join(dir, "config.json");
    FILE *f = fopen(path, "w");
    fputs(
        "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100,\"torch_dtype\":\"float16\"}",
        f);
    fclose(f);
    struct checkpoint *a = NULL, *b = NULL;
    struct octavo_error err;
    assert_int_equal(checkpoint_open(dir, LOAD_DUMMY, 42, &a, &err), 0);
    assert_int_equal(checkpoint_open(dir, LOAD_DUMMY, 43, &b, &err), 0);
    /* embedding, norm, head; per layer 2 norms, 7 linears, and Qwen2's q, k, v biases; no q/k norms, no o bias */
    assert_int_equal(checkpoint_num_tensors(a), 3 + 2 * (2 + 7 + 3));
    assert_int_equal(checkpoint_num_unused(a), 0);
    assert_null(checkpoint_find(a, "model.layers.0.self_attn.o_proj.bias"));
    const struct tensor *t = checkpoint_find(a, "model.layers.1.self_attn.k_proj.weight");
    assert_true(t->dtype == DTYPE_F16 && t->num_dims == 2 && t->shape[0] == 32 && t->shape[1] == 64);
    assert_int_equal(t->bytes, 32 * 64 * 2);
    const char *q = "model.layers.1.self_attn.q_proj.weight";
    uint64_t first = checksum(a, q);
    assert_true(first == checksum(a, q));
    assert_true(first != checksum(b, q));
    assert_true(first != checksum(a, "model.layers.0.self_attn.q_proj.weight"));
    assert_true(first == UINT64_C(14275694058092110473)); /* the same from numpy's uint32 and float16 */
    checkpoint_free(a);
    checkpoint_free(b);
    unlink(path);
    rmdir(dir);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distribution),
        cmocka_unit_test(roles),
        cmocka_unit_test(folder),
    };
    return cmocka_run_group_tests_name("dummy", tests, NULL, NULL);
}
