/* The sampler against definitions worked out here in double, and against counts of many draws. */
#include "engine/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 1000

static float logits[N];
static struct sampler_scratch scratch;
static struct sampler sampler;
static const int32_t eos[] = {3};

static int setup(void **state)
{
    (void)state;
    uint64_t x = 5;
    for (int i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        logits[i] = (float)(x >> 40) / (float)(1 << 24) * 8.0f - 4.0f;
    }
    logits[77] = 6, logits[500] = 5.5f, logits[501] = 5.5f, logits[3] = 5;
    sampler = (struct sampler){kernel_ops_get(cpu_isa_best()), N, N, eos, 1};
    return sampler_scratch_init(&scratch, N);
}

static int teardown(void **state)
{
    (void)state;
    sampler_scratch_release(&scratch);
    return 0;
}

static struct request make(int32_t *tokens, int64_t prompt, int64_t num)
{
    struct request r = {.token_ids = tokens, .num_prompt_tokens = prompt, .num_tokens = num};
    sampling_params_init(&r.sampling);
    return r;
}

static void greedy(void **state)
{
    (void)state;
    int32_t tokens[4] = {77, 77, 500, 500};
    struct request r = make(tokens, 2, 4);
    r.sampling.temperature = 0;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), 77);
    r.sampling.repetition_penalty = 1.2f; /* 77 -> 5.0 and 500 -> 4.58; 501 stays */
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), 501);
    r.sampling.repetition_penalty = 1.0f;
    r.sampling.frequency_penalty = 1.0f; /* over output only: 77 stands in the prompt */
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), 77);
    r.sampling.frequency_penalty = 0;
    const int32_t ids[] = {77, 9};
    const float bias[] = {-100, 1000}; /* clamped to 100 */
    r.sampling.logit_bias_ids = ids, r.sampling.logit_bias = bias, r.sampling.num_logit_bias = 2;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), 9);
    r.sampling.num_logit_bias = 1;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), 500); /* a tie goes to the lower id */
    for (int i = 0; i < N; i++)
        assert_int_equal(scratch.counts[i], 0);
    sampler.num_sampled = 77;
    r.sampling.num_logit_bias = 0;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), 3);
    r.sampling.min_tokens = 3; /* no EOS yet */
    assert_true(sampler_sample(&sampler, &scratch, logits, &r) != 3);
    sampler.num_sampled = N;
}

/* Frequencies of many seeds against the probabilities of the kept set. */
static void frequencies(struct request *r, const double *want)
{
    enum { DRAWS = 20000 };
    static int hits[N];
    memset(hits, 0, sizeof(hits));
    for (int i = 0; i < DRAWS; i++) {
        r->sampling.seed = i;
        int32_t t = sampler_sample(&sampler, &scratch, logits, r);
        assert_true(t >= 0 && t < N);
        hits[t]++;
    }
    for (int i = 0; i < N; i++) {
        double sigma = sqrt(DRAWS * want[i] * (1 - want[i]));
        if (want[i] == 0)
            assert_int_equal(hits[i], 0);
        assert_true(fabs(hits[i] - DRAWS * want[i]) <= 5 * sigma + 1);
    }
}

static int by_logit(const void *a, const void *b)
{
    float x = logits[*(const int *)a], y = logits[*(const int *)b];
    return x > y ? -1 : x < y ? 1 : *(const int *)a - *(const int *)b;
}

static void filters(void **state)
{
    (void)state;
    static const struct {
        float temperature, top_p, min_p;
        int top_k;
    } cases[] = {{1, 1, 0, 0},         {0.7f, 1, 0, 5},      {1, 0.5f, 0, 0},  {1.5f, 0.9f, 0, 40},
                 {1, 1, 0.3f, 0},      {1, 0.95f, 0.1f, 3},  {1, 1e-6f, 0, 0}, {2, 1, 1, 0},
                 {1, 0.999f, 0, 2000}, {0.8f, 0.95f, 0, 50}, {1, 1, 0, 2}};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        int order[N];
        double p[N] = {0}, sum = 0;
        for (int i = 0; i < N; i++)
            order[i] = i;
        qsort(order, N, sizeof(int), by_logit);
        int keep = N;
        if (cases[c].top_k > 0 && cases[c].top_k < N)
            for (keep = cases[c].top_k; keep < N && logits[order[keep]] == logits[order[keep - 1]];)
                keep++; /* ties with the last stay */
        double max = (double)logits[order[0]] / (double)cases[c].temperature;
        for (int i = 0; i < keep; i++) {
            p[i] = exp((double)logits[order[i]] / (double)cases[c].temperature - max);
            if (p[i] < (double)cases[c].min_p * 0.999999)
                p[i] = 0;
            sum += p[i];
        }
        double before = 0, kept = 0, want[N] = {0};
        for (int i = 0; i < keep && (i == 0 || before < (double)cases[c].top_p * sum); i++) {
            want[order[i]] = p[i];
            before += p[i];
            kept += p[i];
        }
        for (int i = 0; i < N; i++)
            want[i] /= kept;
        int32_t token = 1;
        struct request r = make(&token, 1, 1);
        r.sampling.temperature = cases[c].temperature, r.sampling.top_p = cases[c].top_p;
        r.sampling.min_p = cases[c].min_p, r.sampling.top_k = cases[c].top_k;
        frequencies(&r, want);
    }
}

/* What min_tokens masks is never drawn, first, last and among others, whether all are summed or the best come first. */
static void masked(void **state)
{
    (void)state;
    static const int32_t stop[] = {0, N - 2, N - 1};
    static const float top_p[] = {1, 0.9999999f};
    double want[N], sum = 0;
    for (int i = 0; i < N; i++)
        sum += want[i] = i == 3 || i == 0 || i >= N - 2 ? 0 : exp((double)logits[i]);
    for (int i = 0; i < N; i++)
        want[i] /= sum;
    int32_t token = 1;
    struct request r = make(&token, 1, 1);
    r.sampling.temperature = 1, r.sampling.min_tokens = 1;
    r.sampling.stop_token_ids = stop, r.sampling.num_stop_token_ids = 3;
    for (size_t i = 0; i < sizeof(top_p) / sizeof(top_p[0]); i++) {
        r.sampling.top_p = top_p[i];
        frequencies(&r, want);
    }
}

static void seeds(void **state)
{
    (void)state;
    int32_t tokens[64] = {0};
    int first[2][40];
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 40; i++) {
            struct request r = make(tokens, 1, 1 + i);
            r.sampling.seed = 1234;
            first[round][i] = sampler_sample(&sampler, &scratch, logits, &r);
        }
    assert_memory_equal(first[0], first[1], sizeof(first[0]));
    int same = 0;
    for (int i = 1; i < 40; i++)
        same += first[0][i] == first[0][0];
    assert_true(same < 30); /* the index matters */
}

static void logprobs(void **state)
{
    (void)state;
    struct octavo_logprob own, top[N];
    double z = 0;
    for (int i = 0; i < N; i++)
        z += exp((double)logits[i]);
    assert_int_equal(sampler_logprobs(&sampler, &scratch, logits, 501, 3, &own, top), 3);
    assert_int_equal(own.rank, 2);
    assert_true(fabs((double)own.logprob - (5.5 - log(z))) < 1e-5);
    assert_int_equal(top[0].token_id, 77);
    assert_int_equal(top[1].token_id, 500);
    assert_int_equal(top[2].token_id, 501);
    assert_int_equal(sampler_logprobs(&sampler, &scratch, logits, 1, OCTAVO_LOGPROBS_ALL, &own, top), N);
    double mass = 0;
    for (int i = 0; i < N; i++) {
        mass += exp((double)top[i].logprob);
        assert_true(i == 0 || top[i].logprob <= top[i - 1].logprob);
        assert_true(fabs((double)top[i].logprob - ((double)logits[top[i].token_id] - log(z))) < 2e-5);
    }
    assert_true(fabs(mass - 1) < 1e-5);
}

static void not_finite(void **state)
{
    (void)state;
    int32_t token = 1;
    struct request r = make(&token, 1, 1);
    struct octavo_logprob own;
    float old = logits[10];
    logits[10] = NAN;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), SAMPLER_NOT_FINITE);
    r.sampling.temperature = 0;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), SAMPLER_NOT_FINITE);
    assert_int_equal(sampler_logprobs(&sampler, &scratch, logits, 1, 0, &own, NULL), SAMPLER_NOT_FINITE);
    logits[10] = INFINITY;
    assert_int_equal(sampler_logprobs(&sampler, &scratch, logits, 1, 0, &own, NULL), SAMPLER_NOT_FINITE);
    r.sampling.temperature = 1;
    assert_int_equal(sampler_sample(&sampler, &scratch, logits, &r), SAMPLER_NOT_FINITE);
    static float nothing[N]; /* may be drawn */
    for (int i = 0; i < N; i++)
        nothing[i] = -INFINITY;
    assert_int_equal(sampler_sample(&sampler, &scratch, nothing, &r), SAMPLER_NOT_FINITE);
    logits[10] = old;
}

static void ranges(void **state)
{
    (void)state;
    struct octavo_sampling_params p;
    struct octavo_error err;
#define REFUSED(field, value)                                                                                          \
    sampling_params_init(&p);                                                                                          \
    p.field = value;                                                                                                   \
    assert_int_equal(sampling_params_check(&p, N, 20, &err), OCTAVO_EINVAL);                                           \
    assert_string_equal(err.param, #field)
    REFUSED(temperature, -0.1f);
    REFUSED(temperature, NAN);
    REFUSED(temperature, INFINITY);
    REFUSED(top_p, 0.0f);
    REFUSED(top_p, 1.1f);
    REFUSED(top_k, -2);
    REFUSED(min_p, 1.5f);
    REFUSED(presence_penalty, 2.1f);
    REFUSED(frequency_penalty, -2.1f);
    REFUSED(repetition_penalty, 0.0f);
    REFUSED(max_tokens, 0);
    REFUSED(max_tokens, -7);
    REFUSED(min_tokens, -1);
    REFUSED(logprobs, 21);
    REFUSED(prompt_logprobs, OCTAVO_LOGPROBS_ALL);
    sampling_params_init(&p);
    p.logprobs = OCTAVO_LOGPROBS_ALL;
    assert_int_equal(sampling_params_check(&p, N, -1, &err), 0);
}

/* What a sampler that looks at everything keeps, against what comes out of one that looks at few: the same set, on
 * logits with ties and masks and of lengths that leave a part of a block. */
enum { MOST_IDS = 5000 };

static const float *order_z;

static int best_first(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return order_z[i] != order_z[j] ? (order_z[i] > order_z[j] ? -1 : 1) : i < j ? -1 : i > j;
}

/* kept (n) is 1 for ids that may be drawn. Returns how many. */
static int keep_all(const float *z, int n, int top_k, float top_p, float min_p, bool *kept)
{
    static int32_t ids[MOST_IDS];
    int count = 0, left = 0;
    memset(kept, 0, MOST_IDS);
    for (int i = 0; i < n; i++)
        if (z[i] > -INFINITY)
            ids[count++] = i;
    order_z = z;
    qsort(ids, (size_t)count, sizeof(*ids), best_first);
    float best = z[ids[0]], kth = top_k > 0 && top_k < count ? z[ids[top_k - 1]] : -INFINITY;
    double total = 0, sum = 0;
    for (; left < count && z[ids[left]] >= kth && z[ids[left]] >= best + logf(min_p); left++)
        total += exp((double)(z[ids[left]] - best));
    int m = 0;
    for (; m < left && (m == 0 || sum < (double)top_p * total * (1 - 1e-6)); m++)
        sum += exp((double)(z[ids[m]] - best));
    for (int i = 0; i < m; i++)
        kept[ids[i]] = true;
    return m;
}

static void sets(void **state)
{
    (void)state;
    static float z[MOST_IDS];
    static bool kept[MOST_IDS], seen[MOST_IDS];
    static const struct {
        int n, top_k;
        float top_p, min_p, spread;
    } cases[] = {{5000, 20, 1, 0, 2},       {5000, 3, 1, 0, 0.1f}, {4999, 0, 0.05f, 0, 1}, {4097, 60, 0.9f, 0, 1},
                 {3000, 0, 1, 0.3f, 3},     {200, 5, 0.5f, 0, 1},  {65, 64, 1, 0.05f, 1},  {64, 1, 1, 0, 1},
                 {5000, 500, 0.3f, 0, .1f}, {1, 7, 0.5f, 0, 1},    {4000, 4, 1, 0.01f, 0}, {3000, 0, 0.9f, 0.2f, 2}};
    struct sampler_scratch big;
    assert_int_equal(sampler_scratch_init(&big, MOST_IDS), 0);
    uint64_t x = 9;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        int n = cases[c].n;
        for (int i = 0; i < n; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            z[i] = (float)(x >> 54) / 256 * cases[c].spread; /* 1,024 values: ties */
            if (i % 7 == 3 && n > 64)
                z[i] = -INFINITY;
        }
        int left = keep_all(z, n, cases[c].top_k, cases[c].top_p, cases[c].min_p, kept), found = 0;
        memset(seen, 0, sizeof(seen));
        struct sampler s = {kernel_ops_get(cpu_isa_best()), n, n, eos, 1};
        int32_t tokens[1] = {0};
        struct request r = make(tokens, 1, 1);
        r.sampling.temperature = 1;
        r.sampling.top_k = cases[c].top_k, r.sampling.top_p = cases[c].top_p, r.sampling.min_p = cases[c].min_p;
        for (r.sampling.seed = 0; r.sampling.seed < 4000; r.sampling.seed++) {
            int32_t token = sampler_sample(&s, &big, z, &r);
            assert_in_range(token, 0, n - 1);
            if (!kept[token])
                fail_msg("case %zu draws %d, of logit %g", c, token, (double)z[token]);
            found += !seen[token];
            seen[token] = true;
        }
        if (left <= 40) /* few enough that each comes */
            assert_int_equal(found, left);
        assert_true(found > left / 8);
    }
    sampler_scratch_release(&big);
}

/* The best logprobs of many are the same, and in the same order, as those of a full sort. */
static void best_logprobs(void **state)
{
    (void)state;
    static float z[MOST_IDS];
    static int32_t ids[MOST_IDS];
    static struct octavo_logprob best[MOST_IDS];
    struct sampler_scratch big;
    assert_int_equal(sampler_scratch_init(&big, MOST_IDS), 0);
    struct sampler s = {kernel_ops_get(cpu_isa_best()), MOST_IDS, MOST_IDS, eos, 1};
    for (int i = 0; i < MOST_IDS; i++) {
        z[i] = (float)(i * 7919 % 1013) / 100 - 5;
        ids[i] = i;
    }
    order_z = z;
    qsort(ids, MOST_IDS, sizeof(*ids), best_first);
    static const int counts[] = {1, 2, 20, 78, 79, 80, 1000, MOST_IDS, OCTAVO_LOGPROBS_ALL};
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        struct octavo_logprob own;
        int num = counts[c] < 0 ? MOST_IDS : counts[c];
        assert_int_equal(sampler_logprobs(&s, &big, z, 11, counts[c], &own, best), num);
        for (int i = 0; i < num; i++)
            assert_int_equal(best[i].token_id, ids[i]);
    }
    sampler_scratch_release(&big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy), cmocka_unit_test(filters),  cmocka_unit_test(masked),
        cmocka_unit_test(seeds),  cmocka_unit_test(logprobs), cmocka_unit_test(not_finite),
        cmocka_unit_test(ranges), cmocka_unit_test(sets),     cmocka_unit_test(best_logprobs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
