/* Logits of small random-weight models against transformers in float32 (models/record.py), and the promise that they
 * do not depend on how they were computed: chunks, batch mates, block tables, threads, instruction sets.
 * usage: test_models FOLDER [MODEL...] */
#include "base/file.h"
#include "base/mem.h"
#include "rig.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MAX_ABS_ERROR 1e-3 /* float32 cache, against transformers */
#define MAX_MEAN_KLD 1e-4  /* BF16 cache, against the float32 cache's reference */

static const char *folder;

static void model_open(struct rig *rig, const char *name, int threads, enum cpu_isa isa, enum dtype kv_dtype)
{
    char *dir = path_join(folder, name);
    rig_open(rig, dir, threads, isa, kv_dtype, false);
    free(dir);
}

static double kld(const float *want, const float *got, int n)
{
    double zw = 0, zg = 0, d = 0;
    for (int i = 0; i < n; i++) {
        zw += exp((double)want[i]);
        zg += exp((double)got[i]);
    }
    for (int i = 0; i < n; i++) {
        double lw = (double)want[i] - log(zw), lg = (double)got[i] - log(zg);
        d += exp(lw) * (lw - lg);
    }
    return d;
}

/* Largest error and mean divergence of one model with one cache type, over all its prompts. */
static void compare(const char *name, enum dtype kv_dtype, double *ret_max, double *ret_kld)
{
    struct octavo_error err;
    struct rig rig;
    struct safetensors_file f;
    char *path = mem_printf("%s/%s/expected.st", folder, name);
    if (safetensors_open(path, &f, &err) < 0)
        fail_msg("%s", err.msg);
    model_open(&rig, name, 2, cpu_isa_best(), kv_dtype);
    int vocab = rig.model->config.vocab_size, rows = 0, prompts = 0;
    *ret_max = *ret_kld = 0;
    for (; expected_find(&f, "ids", prompts); prompts++) {
        int32_t *ids = expected_ints(expected_find(&f, "ids", prompts)),
                *at = expected_ints(expected_find(&f, "positions", prompts));
        int len = (int)expected_find(&f, "ids", prompts)->shape[0],
            n = (int)expected_find(&f, "positions", prompts)->shape[0];
        const uint8_t *want = expected_find(&f, "logits", prompts)->data;
        float *got = rig_run(&rig, ids, len, MAX_TOKENS, 0, 1), *row = mem_alloc((size_t)vocab * sizeof(float));
        for (int i = 0; i < n; i++, rows++) {
            memcpy(row, want + (size_t)i * (size_t)vocab * 4, (size_t)vocab * 4);
            const float *g = got + (size_t)at[i] * (size_t)vocab;
            for (int j = 0; j < vocab; j++)
                *ret_max = fmax(*ret_max, isnan(g[j]) ? INFINITY : fabs((double)g[j] - (double)row[j]));
            *ret_kld += kld(row, g, vocab);
        }
        free(ids), free(at), free(got), free(row);
    }
    assert_true(prompts > 0 && rows > 0);
    *ret_kld /= rows;
    rig_close(&rig);
    safetensors_close(&f);
    free(path);
}

static void matches_transformers(void **state)
{
    double max, mean_kld;
    compare(*state, DTYPE_F32, &max, &mean_kld);
    print_message("%-20s float32 cache: max |logit error| %.1e", (const char *)*state, max);
    assert_true(max <= MAX_ABS_ERROR);
    compare(*state, DTYPE_BF16, &max, &mean_kld);
    print_message(", bfloat16 cache: mean KLD %.1e\n", mean_kld);
    assert_true(mean_kld <= MAX_MEAN_KLD);
}

/* ---- invariance ---- */

static void same_bytes(void **state)
{
    const char *name = *state;
    struct octavo_error err;
    struct safetensors_file f;
    char *path = mem_printf("%s/%s/expected.st", folder, name);
    assert_int_equal(safetensors_open(path, &f, &err), 0);
    int last = 0; /* the longest prompt that still leaves blocks for others */
    for (int i = 0; expected_find(&f, "ids", i); i++)
        if (expected_find(&f, "ids", i)->shape[0] <= 700 &&
            expected_find(&f, "ids", i)->shape[0] > expected_find(&f, "ids", last)->shape[0])
            last = i;
    int32_t *ids = expected_ints(expected_find(&f, "ids", last));
    int len = (int)MIN(expected_find(&f, "ids", last)->shape[0], 230);
    struct rig rig;
    model_open(&rig, name, 1, CPU_ISA_REF, DTYPE_BF16);
    size_t bytes = (size_t)len * (size_t)rig.model->config.vocab_size * sizeof(float);
    float *want = rig_run(&rig, ids, len, len, 0, 1);
    rig_close(&rig);

    for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++)
        for (int threads = 1; threads <= 3 && cpu_isa_supported((enum cpu_isa)isa); threads++) {
            static const int chunks[] = {1, 7, 32, 100, MAX_TOKENS};
            if (isa == CPU_ISA_REF && threads != 3)
                continue; /* slow, and the first run already was ref on one */
            model_open(&rig, name, threads, (enum cpu_isa)isa, DTYPE_BF16);
            /* every chunk on two workers; one and three only repeat a few */
            for (size_t c = isa == CPU_ISA_REF || threads != 2 ? 3 : 0; c < ARRAY_LEN(chunks); c++) {
                float *got = rig_run(&rig, ids, len, chunks[c], 17, 5); /* blocks scattered */
                if (memcmp(want, got, bytes))
                    fail_msg("%s: isa %s, %d threads, chunks of %d differ from the prompt at once", name,
                             cpu_isa_name((enum cpu_isa)isa), threads, chunks[c]);
                free(got);
            }
            /* among others that come and go, in uneven pieces */
            struct seq s[3];
            seq_init(&rig, &s[0], ids, len, 0, 1);
            seq_init(&rig, &s[1], ids, len, 20, 1);
            seq_init(&rig, &s[2], ids + 5, len - 5, 40, 1);
            for (int i = 0; s[0].done < len || s[1].done < len || s[2].done < len - 5; i++)
                rig_step(&rig, s, (int[]){1 + i * 7 % 40, i < 3 ? 0 : 13, i & 1 ? 60 : 1}, 3);
            assert_memory_equal(want, s[0].logits, bytes);
            assert_memory_equal(want, s[1].logits, bytes);
            free(s[0].logits), free(s[1].logits), free(s[2].logits);
            rig_close(&rig);
        }
    free(want);
    free(ids);
    safetensors_close(&f);
    free(path);
}

/* A step of more tokens than go through a layer together, of several requests, against a few of each at a time. */
static void same_bytes_long_step(void **state)
{
    static const int len[3] = {700, 601, 300}, first_block[3] = {0, 22, 41};
    struct rig rig;
    model_open(&rig, *state, 2, cpu_isa_best(), DTYPE_BF16);
    int vocab = rig.model->config.vocab_size;
    int32_t ids[701];
    for (int i = 0; i < 701; i++)
        ids[i] = (int32_t)((unsigned)i * 2654435761u >> 8) % vocab;
    struct seq s[3];
    for (int i = 0; i < 3; i++)
        seq_init(&rig, &s[i], ids + i, len[i], first_block[i], 1);
    rig_step(&rig, s, len, 3);
    for (int i = 0; i < 3; i++) {
        float *want = rig_run(&rig, ids + i, len[i], 200, first_block[i], 1);
        assert_int_equal(s[i].done, len[i]);
        assert_memory_equal(want, s[i].logits, (size_t)len[i] * (size_t)vocab * sizeof(float));
        free(want), free(s[i].logits);
    }
    rig_close(&rig);
}

static int is_model(const struct dirent *d)
{
    char *path = mem_printf("%s/%s/expected.st", folder, d->d_name);
    bool is = file_exists(path);
    free(path);
    return is;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [MODEL...]\n", argv[0]);
        return 2;
    }
    folder = argv[1];
    struct dirent **found;
    int n = scandir(folder, &found, is_model, alphasort), count = 0;
    if (n <= 0) {
        fprintf(stderr, "%s: no models\n", folder);
        return 2;
    }
    struct CMUnitTest *tests = calloc((size_t)n * 3, sizeof(*tests));
    for (int i = 0; i < n; i++) {
        char *name = found[i]->d_name;
        bool wanted = argc == 2;
        for (int a = 2; a < argc; a++)
            wanted = wanted || !strcmp(argv[a], name);
        if (!wanted)
            continue;
        tests[count++] =
            (struct CMUnitTest){mem_printf("%s matches transformers", name), matches_transformers, NULL, NULL, name};
        tests[count++] = (struct CMUnitTest){mem_printf("%s same bytes", name), same_bytes, NULL, NULL, name};
        tests[count++] =
            (struct CMUnitTest){mem_printf("%s same bytes, long step", name), same_bytes_long_step, NULL, NULL, name};
    }
    int failed = _cmocka_run_group_tests("models", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < count; i++)
        free((void *)(uintptr_t)tests[i].name);
    for (int i = 0; i < n; i++)
        free(found[i]);
    free(found);
    free(tests);
    return failed;
}
