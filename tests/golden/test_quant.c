/* Quantised checkpoints in every layout against an independent float64 reading of them (quant/: recorded logits, INT8
 * cache bytes and tolerances), and the promise that chunks, blocks, threads and tiers do not show.
 * usage: test_quant FOLDER [CASE...] */
#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "rig.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *folder;

static double relative_l2(const float *got, const float *want, size_t n)
{
    double err = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        err += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        norm += (double)want[i] * (double)want[i];
    }
    return isfinite(err) ? sqrt(err / norm) : INFINITY;
}

static int by_value(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}

/* The integer that layer 0's cache holds for a channel of a token. */
static int cached(const struct rig *rig, const struct seq *s, bool v, int token, int channel)
{
    int d = rig->kv.head_dim, head = channel / d, i = channel % d, t = token % ATTN_TILE;
    int64_t slot = s->blocks[token / BLOCK_SIZE] * BLOCK_SIZE + token % BLOCK_SIZE;
    if (v)
        return ((const int8_t *)kv_cache_v(&rig->kv, 0, slot, head))[(t / 4 * d + i) * 4 + t % 4];
    return kv_cache_k(&rig->kv, 0, slot, head)[(i / 4 * ATTN_TILE + t) * 4 + i % 4] - 128;
}

/* At most one entry in 1,000 may differ, by 1: a value that lies on the border between two integers. */
static void compare_cache(const struct rig *rig, const struct seq *s, const struct tensor *want, bool v)
{
    int width = rig->kv.num_kv_heads * rig->kv.head_dim, off = 0;
    if (!want)
        return;
    assert_int_equal(want->shape[0], s->len);
    assert_int_equal(want->shape[1], width);
    for (int t = 0; t < s->len; t++)
        for (int c = 0; c < width; c++) {
            int diff = cached(rig, s, v, t, c) - ((const int8_t *)want->data)[t * width + c];
            assert_true(diff >= -1 && diff <= 1);
            off += diff != 0;
        }
    assert_true(off * 1000 <= s->len * width);
}

static void matches_oracle(void **state)
{
    const char *name = *state;
    struct octavo_error err;
    struct safetensors_file f;
    struct rig rig;
    json_t *spec = NULL;
    double tolerance = 0, tolerance_median = 0, worst = 0;
    char *dir = path_join(folder, name), *path = path_join(dir, "expected.st"), *json = path_join(dir, "expected.json");
    if (safetensors_open(path, &f, &err) < 0 || json_parse_file(json, 1 << 20, 0, &spec, &err) < 0)
        fail_msg("%s", err.msg);
    json_get_double(spec, json, "tolerance", &tolerance, &err);
    json_get_double(spec, json, "tolerance_median", &tolerance_median, &err);
    rig_open(&rig, dir, 2, cpu_isa_best(), DTYPE_F32, true);
    size_t vocab = (size_t)rig.model->config.vocab_size;
    int prompts = 0;
    for (; expected_find(&f, "ids", prompts); prompts++) {
        const struct tensor *want_t = expected_find(&f, "logits", prompts),
                            *at_t = expected_find(&f, "positions", prompts);
        int32_t *ids = expected_ints(expected_find(&f, "ids", prompts)), *at = expected_ints(at_t);
        size_t n = (size_t)at_t->shape[0];
        struct seq s;
        seq_init(&rig, &s, ids, (int)expected_find(&f, "ids", prompts)->shape[0], 3, 7);
        while (s.done < s.len)
            rig_step(&rig, &s, (int[]){50}, 1);
        float *want = mem_alloc(n * vocab * sizeof(float)), *got = mem_alloc(n * vocab * sizeof(float));
        double *each = mem_alloc(n * sizeof(double));
        memcpy(want, want_t->data, n * vocab * sizeof(float));
        for (size_t i = 0; i < n; i++) {
            memcpy(got + i * vocab, s.logits + (size_t)at[i] * vocab, vocab * sizeof(float));
            each[i] = relative_l2(got + i * vocab, want + i * vocab, vocab);
        }
        double all = relative_l2(got, want, n * vocab);
        qsort(each, n, sizeof(*each), by_value);
        double median = n % 2 ? each[n / 2] : (each[n / 2 - 1] + each[n / 2]) / 2;
        worst = fmax(worst, all);
        if (!(all <= tolerance && median <= tolerance_median))
            fail_msg("%s, prompt %d: relative L2 %.1e (tolerance %.1e), median position %.1e (%.1e)", name, prompts,
                     all, tolerance, median, tolerance_median);
        compare_cache(&rig, &s, expected_find(&f, "k_cache", prompts), false);
        compare_cache(&rig, &s, expected_find(&f, "v_cache", prompts), true);
        free(want), free(got), free(each), free(ids), free(at), free(s.logits);
    }
    assert_true(prompts > 0 && tolerance > 0);
    print_message("%-28s relative L2 at most %.1e (tolerance %.1e)\n", name, worst, tolerance);
    rig_close(&rig);
    json_decref(spec);
    safetensors_close(&f);
    free(dir), free(path), free(json);
}

/* What the INT8 layers hold for the first len tokens of a sequence in blocks first, first + step, ..., wherever those
 * lie. */
static uint8_t *cache_bytes(const struct rig *rig, int len, int first, int step, size_t *ret_bytes)
{
    struct buf out = {0};
    int d = rig->kv.head_dim;
    for (int l = 0; l < rig->kv.num_layers; l++)
        for (int h = 0; h < rig->kv.num_kv_heads && rig->kv.layers[l].dtype == DTYPE_I8; h++)
            for (int p = 0; p < len; p++) {
                int64_t block = (first + p / BLOCK_SIZE * step) & (NUM_BLOCKS - 1);
                int64_t slot = block * BLOCK_SIZE + p % BLOCK_SIZE;
                const uint8_t *k = kv_cache_k(&rig->kv, l, slot, h), *v = kv_cache_v(&rig->kv, l, slot, h);
                int t = p % ATTN_TILE;
                for (int i = 0; i < d; i++) {
                    buf_putc(&out, (char)k[(i / 4 * ATTN_TILE + t) * 4 + i % 4]);
                    buf_putc(&out, (char)v[(t / 4 * d + i) * 4 + t % 4]);
                }
            }
    return (uint8_t *)buf_steal(&out, ret_bytes);
}

static void same_bytes(void **state)
{
    struct octavo_error err;
    struct safetensors_file f;
    struct rig rig;
    char *dir = path_join(folder, *state), *path = path_join(dir, "expected.st");
    assert_int_equal(safetensors_open(path, &f, &err), 0);
    int longest = 0;
    for (int i = 0; expected_find(&f, "ids", i); i++)
        if (expected_find(&f, "ids", i)->shape[0] > expected_find(&f, "ids", longest)->shape[0])
            longest = i;
    int32_t *ids = expected_ints(expected_find(&f, "ids", longest));
    int len = (int)MIN(expected_find(&f, "ids", longest)->shape[0], 150);
    rig_open(&rig, dir, 1, CPU_ISA_REF, DTYPE_BF16, true);
    size_t bytes = (size_t)len * (size_t)rig.model->config.vocab_size * sizeof(float);
    float *want = rig_run(&rig, ids, len, len, 0, 1);
    size_t cache_len, got_len;
    uint8_t *want_cache = cache_bytes(&rig, len, 0, 1, &cache_len);
    rig_close(&rig);
    for (int isa = CPU_ISA_REF + 1; isa < CPU_ISA_COUNT; isa++)
        for (int threads = 1; threads <= 3 && cpu_isa_supported((enum cpu_isa)isa); threads++) {
            static const int chunks[] = {1, 7, 32, 100, MAX_TOKENS};
            rig_open(&rig, dir, threads, (enum cpu_isa)isa, DTYPE_BF16, true);
            for (size_t c = threads == 2 ? 0 : 3; c < ARRAY_LEN(chunks); c++) { /* one and three repeat a few */
                float *got = rig_run(&rig, ids, len, chunks[c], 17, 5);
                if (memcmp(want, got, bytes))
                    fail_msg("%s: isa %s, %d threads, chunks of %d differ from the prompt at once", (char *)*state,
                             cpu_isa_name((enum cpu_isa)isa), threads, chunks[c]);
                free(got);
                uint8_t *got_cache = cache_bytes(&rig, len, 17, 5, &got_len);
                assert_int_equal(got_len, cache_len);
                assert_memory_equal(want_cache, got_cache, cache_len);
                free(got_cache);
            }
            struct seq s[2]; /* with a neighbour */
            seq_init(&rig, &s[0], ids, len, 0, 1);
            seq_init(&rig, &s[1], ids + 1, len - 1, 30, 1);
            for (int i = 0; s[0].done < len || s[1].done < len - 1; i++)
                rig_step(&rig, s, (int[]){1 + i * 7 % 40, i & 1 ? 60 : 1}, 2);
            assert_memory_equal(want, s[0].logits, bytes);
            free(s[0].logits), free(s[1].logits);
            rig_close(&rig);
        }
    free(want), free(want_cache), free(ids), free(dir), free(path);
    safetensors_close(&f);
}

static int is_case(const struct dirent *d)
{
    char *path = mem_printf("%s/%s/expected.st", folder, d->d_name);
    bool is = file_exists(path);
    free(path);
    return is;
}

int main(int argc, char **argv)
{
    struct dirent **found;
    folder = argc > 1 ? argv[1] : ".";
    int n = scandir(folder, &found, is_case, alphasort), count = 0;
    if (n <= 0) {
        fprintf(stderr, "usage: %s FOLDER [CASE...]; there are no cases in %s\n", argv[0], folder);
        return 2;
    }
    struct CMUnitTest *tests = calloc((size_t)n * 2, sizeof(*tests));
    for (int i = 0; i < n; i++) {
        char *name = found[i]->d_name;
        bool wanted = argc <= 2;
        for (int a = 2; a < argc; a++)
            wanted = wanted || !strcmp(argv[a], name);
        if (!wanted)
            continue;
        tests[count++] =
            (struct CMUnitTest){mem_printf("%s matches the oracle", name), matches_oracle, NULL, NULL, name};
        tests[count++] = (struct CMUnitTest){mem_printf("%s same bytes", name), same_bytes, NULL, NULL, name};
    }
    int failed = _cmocka_run_group_tests("quantised", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < count; i++)
        free((void *)(uintptr_t)tests[i].name);
    for (int i = 0; i < n; i++)
        free(found[i]);
    free(found);
    free(tests);
    return failed;
}
