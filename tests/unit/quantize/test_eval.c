/* Evaluation as a library: scores against plain arithmetic, windows, agreement with the engine's own logprobs, and that
 * neither batch nor threads show. argv[1]: tests/golden. */
#include "quantize/eval.h"
#include "quantize/eval_score.h"
#include "quantize/eval_text.h"

#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NUM_IDS 3000

static const char *golden;
static int32_t ids[NUM_IDS]; /* below 512, the vocabulary of the golden models */

static const char *path(char out[512], const char *name)
{
    snprintf(out, 512, "%s/%s", golden, name);
    return out;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static float random_logit(uint32_t *state, float spread)
{
    return ((float)(next_random(state) & 0xffff) / 65536.0f - 0.5f) * spread;
}

/* ---- scores ---- */

static long double log_sum(const float *z, int n)
{
    long double sum = 0, max = (long double)z[0];
    for (int i = 1; i < n; i++)
        max = fmaxl(max, (long double)z[i]);
    for (int i = 0; i < n; i++)
        sum += expl((long double)z[i] - max);
    return max + logl(sum);
}

static void check_score(int n, float spread, float shift, float noise)
{
    float *q = mem_alloc((size_t)n * sizeof(float)), *p = mem_alloc((size_t)n * sizeof(float));
    uint32_t state = (uint32_t)n;
    for (int i = 0; i < n; i++) {
        q[i] = random_logit(&state, spread);
        p[i] = q[i] + random_logit(&state, noise) + shift;
    }
    struct eval_score s;
    int32_t token = n / 3;
    assert_int_equal(eval_score_row(q, p, n, token, &s), 0);
    long double zq = log_sum(q, n), zp = log_sum(p, n), kld = 0;
    for (int i = 0; i < n; i++)
        kld += expl((long double)p[i] - zp) * (((long double)p[i] - zp) - ((long double)q[i] - zq));
    assert_true(fabsl((long double)s.nll - (zq - (long double)q[token])) < 1e-12L);
    assert_true(fabsl((long double)s.against_nll - (zp - (long double)p[token])) < 1e-12L);
    assert_true(fabsl((long double)s.kld - kld) < 1e-12L);
    assert_true(s.kld >= 0);
    free(q);
    free(p);
}

static void test_score(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 7, 8, 9, 511, 4096, 151936};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        check_score(sizes[i], 20, 0, 0.1f);
        check_score(sizes[i], 20, 37.5f, 0);       /* a shift is no difference */
        check_score(sizes[i], 3000, -1000, 10.0f); /* most probabilities are 0 */
    }
}

static void test_score_top(void **state)
{
    (void)state;
    float q[] = {1, 3, 3, 2}, p[] = {0, 3, 1, 3}, other[] = {4, 3, 1, 3};
    struct eval_score s;
    assert_int_equal(eval_score_row(q, p, 4, 0, &s), 0);
    assert_true(s.same_top); /* the lowest of equals */
    assert_int_equal(eval_score_row(q, other, 4, 0, &s), 0);
    assert_false(s.same_top);
    assert_int_equal(eval_score_row(q, q, 4, 0, &s), 0);
    assert_true(s.kld == 0 && s.nll == s.against_nll);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        for (int at = 0; at < 4; at++) {
            float broken[] = {1, 3, 3, 2};
            broken[at] = bad[i];
            assert_int_equal(eval_score_row(broken, p, 4, 0, &s), 1);
            assert_int_equal(eval_score_row(q, broken, 4, 0, &s), 2);
        }
}

/* ---- runs ---- */

static void run(const struct eval_options *o, const struct eval_document *docs, size_t n, struct eval_result *res)
{
    struct octavo_error err = {0};
    struct eval *e = NULL;
    if (eval_open(o, &e, &err) < 0 || eval_run(e, docs, n, res, &err) < 0)
        fail_msg("%s", err.msg);
    eval_close(e);
}

static void test_windows(void **state)
{
    (void)state;
    char model[512];
    const struct eval_document docs[] = {{ids, 33}, {ids, 0}, {ids, 1}, {ids, 16}, {ids, 2}};
    static const struct {
        int stride;
        int64_t windows, positions;
    } cases[] = {{16, 4, 15 + 15 + 15 + 1}, /* token 32 begins a window of one, which predicts nothing */
                 {0, 4, 15 + 15 + 15 + 1},
                 {8, 6, 32 + 15 + 1},
                 {1, 20, 32 + 15 + 1}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct eval_options o = {.model = {.model = path(model, "models/qwen3-tied")},
                                 .window = 16,
                                 .stride = cases[i].stride,
                                 .num_threads = 1};
        struct eval_result res;
        run(&o, docs, ARRAY_LEN(docs), &res);
        assert_int_equal(res.num_tokens, 52);
        assert_int_equal(res.num_windows, cases[i].windows);
        assert_int_equal(res.num_positions, cases[i].positions);
        int64_t at = 0;
        for (int64_t w = 0; w < res.num_windows; w++) {
            const struct eval_window *x = &res.windows[w];
            assert_int_equal(x->first_position, at);
            assert_true(x->begin < x->first_predicted && x->first_predicted < x->end && x->end - x->begin <= 16);
            at += x->end - x->first_predicted;
        }
        assert_int_equal(at, res.num_positions);
        assert_null(res.kld);
        assert_true(fabs(res.perplexity - exp(res.mean_nll)) < 1e-9 * res.perplexity);
        eval_result_release(&res);
    }
}

static void test_self(void **state)
{
    (void)state;
    char model[512];
    static const char *const names[] = {"quant/qwen3-w8a8-c8", "models/qwen3-tied"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        path(model, names[i]);
        struct eval_options o = {.model = {.model = model}, .against = {.model = model}, .window = 64};
        struct eval_result res;
        run(&o, &(struct eval_document){ids, 200}, 1, &res);
        assert_true(res.kld_mean == 0 && res.kld_max == 0 && res.kld_p999 == 0 && res.kld_median == 0);
        assert_true(res.top1_agreement == 1 && res.perplexity_ratio == 1);
        assert_memory_equal(res.nll, res.against_nll, (size_t)res.num_positions * sizeof(double));
        eval_result_release(&res);
    }
}

static void test_cache_types(void **state)
{
    (void)state;
    char model[512];
    path(model, "quant/llama-c8-float-weights");
    struct eval_options o = {.model = {model, "bfloat16", NULL}, .against = {model, "float32", NULL}, .window = 64};
    struct eval_result bf16, c8;
    run(&o, &(struct eval_document){ids, 400}, 1, &bf16);
    o.model.kv_cache_dtype = "int8";
    run(&o, &(struct eval_document){ids, 400}, 1, &c8);
    assert_true(bf16.kld_mean > 0 && bf16.kld_mean < 1e-3);
    assert_true(c8.kld_mean > bf16.kld_mean && c8.kld_mean < 0.05);
    assert_true(c8.kld_median <= c8.kld_p999 && c8.kld_p999 <= c8.kld_max);
    assert_memory_equal(c8.against_nll, bf16.against_nll, (size_t)c8.num_positions * sizeof(double));
    eval_result_release(&bf16);
    eval_result_release(&c8);
}

/* Folders that differ are loaded separately, and the weights' type shows. */
static void test_weights(void **state)
{
    (void)state;
    char model[512];
    path(model, "models/qwen3-tied");
    struct eval_options o = {
        .model = {model, "float32", "w8a8"}, .against = {model, "float32", "none"}, .window = 64, .stride = 32};
    struct eval_result res;
    struct octavo_error err = {0};
    struct eval *e = NULL;
    assert_int_equal(eval_open(&o, &e, &err), 0);
    assert_string_equal(eval_side_info(e, 0)->weights, "W8A8_DYNAMIC");
    assert_string_equal(eval_side_info(e, 1)->kv_cache_dtype, "float32");
    assert_true(eval_side_info(e, 0)->weights_bytes < eval_side_info(e, 1)->weights_bytes);
    assert_int_equal(eval_run(e, &(struct eval_document){ids, 300}, 1, &res, &err), 0);
    assert_true(res.kld_mean > 0 && res.kld_mean < 0.1);
    eval_result_release(&res);
    eval_close(e);
}

/* 2,800 tokens in flight are more than a pass holds, so that windows are cut between passes as well. */
static void test_invariance(void **state)
{
    (void)state;
    char model[512], against[512];
    path(model, "quant/qwen3-dynamic-c8-asym");
    static const struct {
        int batch, threads;
        const char *isa;
    } cases[] = {{1, 1, "auto"}, {7, 2, "auto"}, {3, 3, "auto"}, {0, 2, "ref"}};
    struct eval_result first, res;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct eval_options o = {.model = {model, "auto", NULL},
                                 .against = {path(against, "quant/qwen3-w8a8-c8"), "bfloat16", NULL},
                                 .isa = cases[i].isa,
                                 .window = 400,
                                 .stride = 300,
                                 .batch = cases[i].batch,
                                 .num_threads = cases[i].threads};
        run(&o, &(struct eval_document){ids, i == 3 ? 700 : NUM_IDS}, 1, i ? &res : &first);
        if (i == 0)
            continue;
        size_t n = (size_t)res.num_positions;
        assert_true(n == (size_t)first.num_positions || i == 3);
        assert_memory_equal(res.nll, first.nll, n * sizeof(double));
        assert_memory_equal(res.against_nll, first.against_nll, n * sizeof(double));
        assert_memory_equal(res.kld, first.kld, n * sizeof(double));
        assert_memory_equal(res.same_top, first.same_top, n);
        eval_result_release(&res);
    }
    eval_result_release(&first);
}

/* ---- against the engine ---- */

static void check_window(struct octavo_engine *engine, const struct eval_result *res, int64_t w)
{
    const struct eval_window *x = &res->windows[w];
    struct octavo_request_params p = {.prompt_token_ids = ids + x->begin,
                                      .num_prompt_tokens = (size_t)(x->end - x->begin)};
    octavo_sampling_params_init(&p.sampling);
    p.sampling.max_tokens = 0;
    p.sampling.prompt_logprobs = 0;
    struct octavo_request *request = NULL;
    struct octavo_error err = {0};
    if (octavo_submit(engine, &p, &request, &err) < 0)
        fail_msg("%s", err.msg);
    struct octavo_event ev;
    int64_t seen = 0;
    while (octavo_request_next(request, &ev, -1) == 1) {
        int64_t token = x->begin + ev.position;
        if (ev.type != OCTAVO_EVENT_PROMPT_TOKEN || token < x->first_predicted)
            continue;
        double nll = res->nll[x->first_position + token - x->first_predicted];
        assert_true(fabs(nll + (double)ev.logprob.logprob) < 1e-5);
        seen++;
    }
    assert_int_equal(seen, x->end - x->first_predicted);
    octavo_request_free(request);
}

static void test_engine(void **state)
{
    (void)state;
    static const char *const names[] = {"models/qwen3-tied", "models/qwen2-dynamic", "quant/qwen3-w8a8-c8"};
    char model[512];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        path(model, names[i]);
        struct eval_options o = {.model = {model, "float32", NULL}, .window = 48, .stride = 32, .batch = 4};
        struct eval_result res;
        run(&o, &(struct eval_document){ids, 250}, 1, &res);
        struct octavo_engine_options eo;
        octavo_engine_options_init(&eo);
        eo.model = model;
        eo.kv_cache_dtype = "float32";
        struct octavo_engine *engine = NULL;
        struct octavo_error err = {0};
        if (octavo_engine_open(&eo, &engine, &err) < 0)
            fail_msg("%s", err.msg);
        for (int64_t w = 0; w < res.num_windows; w++)
            check_window(engine, &res, w);
        octavo_engine_close(engine);
        eval_result_release(&res);
    }
}

/* ---- bad input ---- */

static void expect_open(struct eval_options o, const char *message)
{
    struct octavo_error err = {0};
    struct eval *e = NULL;
    assert_true(eval_open(&o, &e, &err) < 0);
    assert_null(e);
    if (!strstr(err.msg, message))
        fail_msg("'%s' does not say '%s'", err.msg, message);
}

static void test_refused(void **state)
{
    (void)state;
    char a[512], b[512];
    path(a, "models/qwen3-tied");
    const struct eval_side_options tied = {.model = a};
    expect_open((struct eval_options){.model = {"/nowhere", NULL, NULL}, .window = 8}, "/nowhere");
    expect_open((struct eval_options){.model = tied, .window = 1}, "--window must be between 2");
    expect_open((struct eval_options){.model = tied, .window = 8, .stride = 9}, "--stride must be between 1 and 8");
    expect_open((struct eval_options){.model = tied, .window = 8, .batch = -1}, "--batch must be");
    expect_open((struct eval_options){.model = tied, .window = 8, .num_threads = -1}, "--threads must be");
    expect_open((struct eval_options){.model = tied, .window = 1 << 20}, "--window 1048576 is more than");
    expect_open((struct eval_options){.model = tied, .window = 8, .isa = "mmx"}, "--isa must be");
    expect_open((struct eval_options){.model = {a, "int8", NULL}, .window = 8}, "--kv-cache-dtype int8 needs");
    expect_open((struct eval_options){.model = tied, .against = {a, "int8", NULL}, .window = 8},
                "--against-kv-cache-dtype int8 needs");
    expect_open((struct eval_options){.model = tied, .against = {a, "int5", NULL}, .window = 8},
                "--against-kv-cache-dtype must be");
    expect_open((struct eval_options){.model = tied, .against = {a, NULL, "w2"}, .window = 8},
                "--against-quantization must be");
    struct eval_options large = {.model = tied, .window = 256, .batch = EVAL_MAX_BATCH + 1};
    expect_open(large, "--batch must be between 0 and 4096");
    path(b, "../../models/storyteller");
    expect_open((struct eval_options){.model = tied, .against = {b, NULL, NULL}, .window = 8}, "cannot be compared");
}

static void test_bad_documents(void **state)
{
    (void)state;
    char a[512];
    struct eval_options o = {.model = {.model = path(a, "models/qwen3-tied")}, .window = 8};
    struct octavo_error err = {0};
    struct eval *e = NULL;
    struct eval_result res;
    assert_int_equal(eval_open(&o, &e, &err), 0);
    static const int32_t high[] = {1, 2, 1 << 20}, negative[] = {1, -1};
    assert_int_equal(eval_run(e, &(struct eval_document){high, 3}, 1, &res, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "token 2 of document 0 is 1048576"));
    assert_int_equal(eval_run(e, &(struct eval_document){negative, 2}, 1, &res, &err), OCTAVO_EINVAL);
    assert_int_equal(eval_run(e, &(struct eval_document){ids, 1}, 1, &res, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "nothing to predict"));
    assert_int_equal(eval_run(e, NULL, 0, &res, &err), OCTAVO_EINVAL);
    assert_null(res.nll);
    assert_int_equal(eval_run(e, &(struct eval_document){ids, 9}, 1, &res, &err), 0); /* it still works */
    eval_result_release(&res);
    eval_close(e);
}

/* ---- text ---- */

static const char vocab[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2},\"merges\":[]}}";
static const char other_vocab[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"c\":1,\"b\":2},\"merges\":[]}}";
static const char more_vocab[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3},\"merges\":[]}}";
static const char merging_vocab[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";
static const char unmerging_vocab[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]}}";

static struct tokenizer *parse(const char *json)
{
    struct octavo_error err = {0};
    struct tokenizer *tok = NULL;
    if (tokenizer_parse(json, strlen(json), NULL, 0, &tok, &err) < 0)
        fail_msg("%s", err.msg);
    return tok;
}

static void test_text(void **state)
{
    (void)state;
    struct tokenizer *tok = parse(vocab);
    struct eval_text t;
    struct octavo_error err = {0};
    static const char lines[] = "\xef\xbb\xbf{\"text\": \"abc\"}\n\n  \r\n{\"text\":\"\"}\r\n{\"n\":1,\"text\":\"cb\"}";
    assert_int_equal(eval_text_read(lines, strlen(lines), "x", true, 0, tok, tok, &t, &err), 0);
    assert_int_equal(t.num_documents, 3);
    assert_int_equal(t.documents[0].len, 3);
    assert_int_equal(t.documents[1].len, 0);
    assert_int_equal(t.documents[2].len, 2);
    assert_int_equal(t.documents[2].ids[0], 2);
    eval_text_release(&t);
    assert_int_equal(eval_text_read(lines, strlen(lines), "x", true, 4, tok, NULL, &t, &err), 0);
    assert_int_equal(t.documents[2].len, 1);
    eval_text_release(&t);
    assert_int_equal(eval_text_read("abcabc", 6, "x", false, 5, tok, NULL, &t, &err), 0);
    assert_true(t.num_documents == 1 && t.documents[0].len == 5);
    eval_text_release(&t);
    static const struct {
        const char *text, *message;
    } bad[] = {{"{\"text\":\"a\"}\n{\"text\":1}", "x, line 2"},
               {"[]", "x, line 1"},
               {"{\"txt\":\"a\"}", "\"text\""},
               {"abc", "not valid JSON"},
               {"{\"text\":\"a\"", "not valid JSON"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(eval_text_read(bad[i].text, strlen(bad[i].text), "x", true, 0, tok, NULL, &t, &err),
                         OCTAVO_EINVAL);
        assert_non_null(strstr(err.msg, bad[i].message));
        assert_null(t.documents);
    }
    tokenizer_free(tok);
}

static void test_tokenizers_differ(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b, *message;
    } cases[] = {{vocab, more_vocab, "3 and 4 tokens"},
                 {vocab, other_vocab, "token 1 is 'b' and 'c'"},
                 {merging_vocab, unmerging_vocab, "cut x differently"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tokenizer *a = parse(cases[i].a), *b = parse(cases[i].b);
        struct eval_text t;
        struct octavo_error err = {0};
        assert_int_equal(eval_text_read("abab", 4, "x", false, 0, a, b, &t, &err), OCTAVO_EINVAL);
        if (!strstr(err.msg, cases[i].message))
            fail_msg("'%s' does not say '%s'", err.msg, cases[i].message);
        tokenizer_free(a);
        tokenizer_free(b);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    golden = argv[1];
    uint32_t state = 7;
    for (int i = 0; i < NUM_IDS; i++)
        ids[i] = (int32_t)(next_random(&state) % 250);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_score),       cmocka_unit_test(test_score_top),
        cmocka_unit_test(test_windows),     cmocka_unit_test(test_self),
        cmocka_unit_test(test_cache_types), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_invariance),  cmocka_unit_test(test_engine),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_bad_documents),
        cmocka_unit_test(test_text),        cmocka_unit_test(test_tokenizers_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
