/* The public API on a small dummy model: same request, same bytes whatever runs beside it; aborts everywhere; limits;
 * prompt logprobs; the prefix cache; no allocation in a steady step. */
#include <octavo/octavo.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/octavo-test-engine-XXXXXX";

#define CONFIG(more)                                                                                                   \
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_size\":64,"                           \
    "\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"            \
    "\"head_dim\":32,\"vocab_size\":300,\"max_position_embeddings\":512,\"rope_theta\":10000.0,"                       \
    "\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"rms_norm_eps\":1e-6,\"eos_token_id\":2" more "}"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNT_ALLOCATIONS 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef COUNT_ALLOCATIONS
#endif
#endif

#ifdef COUNT_ALLOCATIONS
extern void *__libc_malloc(size_t n);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_calloc(size_t n, size_t m);
/* visible, so that calls in shared libraries come here too */
OCTAVO_API void *malloc(size_t n);
OCTAVO_API void *realloc(void *p, size_t n);
OCTAVO_API void *calloc(size_t n, size_t m);
static _Atomic long allocations;

void *malloc(size_t n)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(n);
}
void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(p, n);
}
void *calloc(size_t n, size_t m)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(n, m);
}
#endif

static void write_config(const char *text)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    write_config(CONFIG(""));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    return rmdir(dir);
}

/* What the dummy model is made of: BF16, or integers throughout. */
static struct {
    const char *quantization, *kv_cache_dtype;
    int kv_elem_bytes;
} flavour = {NULL, "auto", 2};

static struct octavo_engine *open_engine_with(int max_num_seqs, int budget, int blocks, int threads, const char *isa,
                                              bool prefix_caching)
{
    struct octavo_engine_options o;
    struct octavo_engine *e = NULL;
    struct octavo_error err = {0};
    octavo_engine_options_init(&o);
    o.model = dir;
    o.load_format = "dummy";
    o.seed = 11;
    o.max_num_seqs = max_num_seqs;
    o.max_num_batched_tokens = budget;
    o.num_threads = threads;
    o.isa = isa;
    o.max_logprobs = -1;
    o.disable_prefix_caching = !prefix_caching;
    o.quantization = flavour.quantization;
    o.kv_cache_dtype = flavour.kv_cache_dtype;
    /* 2 layers, K and V, 2 heads, 32 tokens, 32 channels */
    o.kv_cache_memory_bytes = (int64_t)blocks * 2 * 2 * 2 * 32 * 32 * flavour.kv_elem_bytes;
    if (octavo_engine_open(&o, &e, &err) < 0)
        fail_msg("%s", err.msg);
    return e;
}

static struct octavo_engine *open_engine(int max_num_seqs, int budget, int blocks, int threads, const char *isa)
{
    return open_engine_with(max_num_seqs, budget, blocks, threads, isa, true);
}

struct result {
    int32_t tokens[512];
    float logprobs[512];
    int n;
    int num_cached_tokens;
    enum octavo_finish_reason reason;
};

static struct octavo_request_params params(const int32_t *prompt, size_t n, int64_t max_tokens)
{
    struct octavo_request_params p = {.prompt_token_ids = prompt, .num_prompt_tokens = n};
    octavo_sampling_params_init(&p.sampling);
    p.sampling.max_tokens = max_tokens;
    p.sampling.ignore_eos = true;
    p.sampling.logprobs = 1;
    p.sampling.seeded = true;
    p.sampling.seed = 42;
    p.sampling.top_k = 50;
    p.sampling.top_p = 0.9f;
    p.sampling.repetition_penalty = 1.1f;
    return p;
}

static struct octavo_request *submit(struct octavo_engine *e, const struct octavo_request_params *p)
{
    struct octavo_request *r = NULL;
    struct octavo_error err = {0};
    if (octavo_submit(e, p, &r, &err) < 0)
        fail_msg("%s", err.msg);
    return r;
}

static void collect(struct octavo_request *r, struct result *res)
{
    struct octavo_event ev;
    memset(res, 0, sizeof(*res));
    while (octavo_request_next(r, &ev, 60000) == 1) {
        if (ev.type == OCTAVO_EVENT_TOKEN) {
            assert_int_equal(ev.position, res->n);
            assert_int_equal(ev.num_top, 1);
            res->tokens[res->n] = ev.token_id;
            res->logprobs[res->n++] = ev.logprob.logprob;
        }
        if (ev.type != OCTAVO_EVENT_PROMPT_TOKEN)
            res->num_cached_tokens = ev.num_cached_tokens;
        res->reason = ev.finish_reason;
    }
    octavo_request_free(r);
}

static void make_prompt(int32_t *prompt, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        prompt[i] = (int32_t)(seed >> 8) % 300;
    }
}

static void same_bytes(void **state)
{
    (void)state;
    static struct result want, got;
    int32_t prompt[100], other[300];
    make_prompt(prompt, 100, 1);
    struct octavo_request_params p = params(prompt, 100, 120);
    struct octavo_engine *e = open_engine(1, 2048, 16, 1, "ref");
    collect(submit(e, &p), &want);
    assert_int_equal(want.n, 120);
    assert_int_equal(want.reason, OCTAVO_FINISH_LENGTH);
    octavo_engine_close(e);

    /* many tiers and threads, small budgets, a cache so small that requests are put out and computed again */
    static const struct {
        int seqs, budget, blocks, threads;
        const char *isa;
    } cases[] = {{8, 37, 400, 2, "auto"}, {8, 2048, 18, 2, "auto"}, {4, 5, 17, 3, "auto"}, {3, 64, 20, 1, "ref"}};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        e = open_engine(cases[c].seqs, cases[c].budget, cases[c].blocks, cases[c].threads, cases[c].isa);
        struct octavo_request *others[6], *mine[3];
        for (int i = 0; i < 6; i++) {
            make_prompt(other, 300, (uint32_t)i + 7);
            struct octavo_request_params q = params(other, (size_t)(20 + 50 * i), 30 + 20 * i);
            q.sampling.seed = i;
            others[i] = submit(e, &q);
            if (i % 2)
                mine[i / 2] = submit(e, &p);
        }
        octavo_request_abort(others[2]);
        for (int i = 0; i < 3; i++) {
            collect(mine[i], &got);
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.tokens, want.tokens, sizeof(want.tokens));
            assert_memory_equal(got.logprobs, want.logprobs, sizeof(want.logprobs));
        }
        for (int i = 0; i < 6; i++)
            octavo_request_free(others[i]);
        struct octavo_engine_stats stats;
        octavo_engine_get_stats(e, &stats);
        if (c == 1)
            assert_true(stats.num_preemptions > 0);
        octavo_engine_close(e);
    }
}

/* The same with W8A8 weights and an INT8 cache, which takes exactly half of BF16's memory. */
static void same_bytes_w8a8c8(void **state)
{
    struct octavo_engine *e = open_engine(1, 64, 16, 1, "auto");
    int64_t bf16 = octavo_engine_info(e)->kv_bytes_per_token;
    octavo_engine_close(e);
    flavour.quantization = "w8a8", flavour.kv_cache_dtype = "int8", flavour.kv_elem_bytes = 1;
    e = open_engine(1, 64, 16, 1, "auto");
    assert_int_equal(octavo_engine_info(e)->kv_bytes_per_token * 2, bf16);
    assert_int_equal(octavo_engine_info(e)->num_blocks, 16);
    assert_string_equal(octavo_engine_info(e)->kv_cache_dtype, "int8");
    octavo_engine_close(e);
    same_bytes(state);
    flavour.quantization = NULL, flavour.kv_cache_dtype = "auto", flavour.kv_elem_bytes = 2;
}

static void prompt_logprobs(void **state)
{
    (void)state;
    int32_t prompt[80];
    make_prompt(prompt, 80, 3);
    double first[80] = {0};
    for (int budget = 3; budget < 200; budget *= 8) {
        struct octavo_engine *e = open_engine(2, budget, 40, 2, "auto");
        struct octavo_request_params p = params(prompt, 80, 0);
        p.sampling.prompt_logprobs = OCTAVO_LOGPROBS_ALL;
        struct octavo_request *r = submit(e, &p);
        struct octavo_event ev;
        int next = 1;
        while (octavo_request_next(r, &ev, 60000) == 1 && ev.type == OCTAVO_EVENT_PROMPT_TOKEN) {
            assert_int_equal(ev.position, next++);
            assert_int_equal(ev.token_id, prompt[ev.position]);
            assert_int_equal(ev.num_top, 300);
            double mass = 0;
            for (size_t i = 0; i < ev.num_top; i++)
                mass += exp((double)ev.top[i].logprob);
            assert_true(fabs(mass - 1) < 1e-4);
            assert_true(ev.top[ev.logprob.rank - 1].logprob == ev.logprob.logprob);
            if (budget == 3)
                first[ev.position] = (double)ev.logprob.logprob;
            assert_true((double)ev.logprob.logprob == first[ev.position]);
        }
        assert_int_equal(next, 80);
        assert_int_equal(ev.type, OCTAVO_EVENT_FINISHED);
        assert_int_equal(ev.finish_reason, OCTAVO_FINISH_LENGTH);
        assert_int_equal(octavo_request_next(r, &ev, 0), 0);
        octavo_request_free(r);
        octavo_engine_close(e);
    }
}

static void assert_same(const struct result *got, const struct result *want)
{
    assert_int_equal(got->n, want->n);
    assert_memory_equal(got->tokens, want->tokens, sizeof(want->tokens));
    assert_memory_equal(got->logprobs, want->logprobs, sizeof(want->logprobs));
    assert_int_equal(got->reason, want->reason);
}

/* Prompts that share beginnings, answered without a prefix cache, and then with one: beside each other, while the first
 * still runs, put out and computed again, and one after another. */
static void prefix_cache(void **state)
{
    (void)state;
    enum { N = 6 };
    static struct result want[N], got;
    static int32_t prompts[N][400];
    static const int len[N] = {200, 230, 200, 330, 64, 31};
    static const int found[N] = {192, 224, 192, 320, 32, 0}; /* by the second time */
    struct octavo_request_params p[N];
    struct octavo_engine *e = open_engine_with(1, 2048, 16, 2, "auto", false);
    for (int i = 0; i < N; i++) {
        make_prompt(prompts[i], 400, 1);
        if (i == 1)
            make_prompt(prompts[i] + 150, 100, 2);
        if (i == 3) /* what was asked and answered, and the next question */
            memcpy(prompts[i] + 200, want[0].tokens, 100 * sizeof(int32_t));
        p[i] = params(prompts[i], (size_t)len[i], 120);
        collect(submit(e, &p[i]), &want[i]);
        assert_int_equal(want[i].n, 120);
        assert_int_equal(want[i].num_cached_tokens, 0);
    }
    struct octavo_engine_stats stats;
    octavo_engine_get_stats(e, &stats);
    assert_true(stats.prefix_cache_queries == 0 && stats.prefix_cache_hits == 0);
    octavo_engine_close(e);
    static const struct {
        int seqs, budget, blocks, threads;
        const char *isa;
    } cases[] = {{8, 2048, 400, 2, "auto"}, {8, 37, 400, 2, "auto"}, {8, 2048, 18, 2, "auto"}, {3, 5, 20, 1, "ref"}};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        e = open_engine(cases[c].seqs, cases[c].budget, cases[c].blocks, cases[c].threads, cases[c].isa);
        struct octavo_request *first = submit(e, &p[0]), *r[N];
        struct octavo_event ev;
        assert_int_equal(octavo_request_next(first, &ev, 60000), 1);
        assert_int_equal(ev.num_cached_tokens, 0);
        for (int i = 0; i < N; i++)
            r[i] = submit(e, &p[i]);
        for (int i = 0; i < N; i++) {
            collect(r[i], &got);
            assert_same(&got, &want[i]);
            if (i == 0 || i == 2) /* first is there, running or just done, and its blocks are the last to go */
                assert_int_equal(got.num_cached_tokens, 192);
        }
        octavo_request_free(first);
        for (int i = 0; i < N; i++) {
            collect(submit(e, &p[i]), &got);
            assert_same(&got, &want[i]);
            if (c < 2)
                assert_int_equal(got.num_cached_tokens, found[i]);
        }
        octavo_engine_get_stats(e, &stats);
        assert_true(stats.prefix_cache_hits > 192 && stats.prefix_cache_hits < stats.prefix_cache_queries);
        if (c == 2)
            assert_true(stats.num_preemptions > 0);

        /* max_tokens 0 ends without a token, and prompt logprobs do not read the cache */
        struct octavo_request_params echo = p[0];
        echo.sampling.max_tokens = 0;
        echo.sampling.prompt_logprobs = 0;
        struct octavo_request *q = submit(e, &echo);
        int positions = 0;
        while (octavo_request_next(q, &ev, 60000) == 1 && ev.type == OCTAVO_EVENT_PROMPT_TOKEN)
            positions++;
        assert_int_equal(positions, len[0] - 1);
        assert_int_equal(ev.type, OCTAVO_EVENT_FINISHED);
        assert_int_equal(ev.num_cached_tokens, 0);
        octavo_request_free(q);
        octavo_engine_close(e);
    }
}

/* Dynamic RoPE: the KV of a prompt longer than the model was trained for depends on the prompt's length. */
static void prefix_cache_dynamic_rope(void **state)
{
    (void)state;
    enum { N = 5 };
    static const int len[N] = {600, 700, 600, 500, 510};
    static const int found[N] = {0, 0, 576, 0, 480};
    static struct result want[N], got;
    int32_t prompt[700];
    make_prompt(prompt, 700, 4);
    write_config(CONFIG(",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}"));
    for (int caching = 0; caching < 2; caching++) {
        struct octavo_engine *e = open_engine_with(2, 2048, 100, 2, "auto", caching);
        for (int i = 0; i < N; i++) {
            struct octavo_request_params p = params(prompt, (size_t)len[i], 40);
            collect(submit(e, &p), caching ? &got : &want[i]);
            if (!caching)
                continue;
            assert_same(&got, &want[i]);
            assert_int_equal(got.num_cached_tokens, found[i]);
        }
        octavo_engine_close(e);
    }
    write_config(CONFIG(""));
}

static _Atomic int notified;

static void notify(void *arg)
{
    (void)arg;
    atomic_fetch_add(&notified, 1);
}

static void aborts(void **state)
{
    (void)state;
    int32_t prompt[400];
    make_prompt(prompt, 400, 5);
    struct octavo_engine *e = open_engine(2, 16, 60, 2, "auto");
    struct octavo_request *r[12];
    struct octavo_request_params p = params(prompt, 400, 100);
    p.notify = notify;
    for (int i = 0; i < 12; i++)
        r[i] = submit(e, &p); /* two prefill, ten wait */
    for (int i = 11; i >= 0; i--) {
        if (i % 3 == 0) {
            octavo_request_free(r[i]); /* without a word */
            continue;
        }
        octavo_request_abort(r[i]);
        octavo_request_abort(r[i]);
        struct octavo_event ev = {0};
        while (octavo_request_next(r[i], &ev, 60000) == 1) {
        }
        assert_int_equal(ev.finish_reason, OCTAVO_FINISH_ABORT);
        octavo_request_free(r[i]);
    }
    assert_true(atomic_load(&notified) > 0);
    struct octavo_engine_stats stats;
    for (int i = 0; i < 1000; i++) {
        octavo_engine_get_stats(e, &stats);
        if (stats.requests_finished == 12 && stats.num_requests_running + stats.num_requests_waiting == 0)
            break;
        usleep(5000);
    }
    assert_int_equal(stats.requests_finished, 12);
    assert_true(stats.kv_cache_usage == 0);
    int before = atomic_load(&notified);
    struct octavo_request *left = submit(e, &p);
    octavo_engine_close(e); /* ends what still runs */
    struct octavo_event ev = {0};
    while (octavo_request_next(left, &ev, 0) == 1) {
    }
    assert_int_equal(ev.finish_reason, OCTAVO_FINISH_ABORT);
    octavo_request_free(left);
    assert_true(atomic_load(&notified) > before);
}

static void refusals(void **state)
{
    (void)state;
    struct octavo_engine *e = open_engine(2, 64, 40, 1, "auto");
    struct octavo_error err;
    struct octavo_request *r;
    int32_t prompt[600] = {0};
    struct octavo_request_params p = params(prompt, 0, 5);
    assert_int_equal(octavo_submit(e, &p, &r, &err), OCTAVO_EINVAL);
    assert_string_equal(err.param, "prompt");
    p = params(prompt, 512, 1);
    assert_int_equal(octavo_submit(e, &p, &r, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "maximum context length is 512"));
    p = params(prompt, 500, 13);
    assert_int_equal(octavo_submit(e, &p, &r, &err), OCTAVO_EINVAL);
    assert_string_equal(err.param, "max_tokens");
    p = params(prompt, 5, INT64_MAX);
    assert_int_equal(octavo_submit(e, &p, &r, &err), OCTAVO_EINVAL);
    prompt[3] = 300;
    p = params(prompt, 5, 5);
    assert_int_equal(octavo_submit(e, &p, &r, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "token id 300 at position 3"));
    octavo_engine_close(e);

    struct octavo_engine_options o;
    octavo_engine_options_init(&o);
    o.model = dir;
    o.load_format = "dummy";
#define REFUSED(field, value, what)                                                                                    \
    do {                                                                                                               \
        struct octavo_engine_options bad = o;                                                                          \
        bad.field = value;                                                                                             \
        assert_true(octavo_engine_open(&bad, &e, &err) < 0);                                                           \
        assert_string_equal(err.param, what);                                                                          \
    } while (0)
    REFUSED(block_size, 48, "block-size");
    REFUSED(max_model_len, 513, "max-model-len");
    REFUSED(max_num_seqs, -1, "max-num-seqs");
    REFUSED(num_threads, 5000, "threads");
    REFUSED(kv_cache_dtype, "int3", "kv_cache_dtype");
    REFUSED(kv_cache_memory_bytes, 1000, "max-model-len");
    REFUSED(kv_cache_memory_bytes, INT64_MAX, "kv-cache-memory-bytes");
    REFUSED(isa, "mmx", "isa");
    REFUSED(load_format, "gguf", "load-format");
}

static void steady_state(void **state)
{
    (void)state;
#ifdef COUNT_ALLOCATIONS
    int32_t prompt[10];
    make_prompt(prompt, 10, 9);
    struct octavo_engine *e = open_engine(4, 64, 40, 2, "auto");
    struct octavo_request_params p = params(prompt, 10, 300);
    p.sampling.logprobs = OCTAVO_LOGPROBS_NONE;
    struct octavo_request *r = submit(e, &p);
    struct octavo_event ev;
    long at = 0;
    for (int i = 0; i < 300; i++) {
        assert_int_equal(octavo_request_next(r, &ev, 60000), 1);
        if (i == 50)
            at = atomic_load(&allocations);
        if (i == 250)
            assert_int_equal(atomic_load(&allocations) - at, 0);
    }
    octavo_request_free(r);
    octavo_engine_close(e);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes),
        cmocka_unit_test(same_bytes_w8a8c8),
        cmocka_unit_test(prompt_logprobs),
        cmocka_unit_test(prefix_cache),
        cmocka_unit_test(prefix_cache_dynamic_rope),
        cmocka_unit_test(aborts),
        cmocka_unit_test(refusals),
        cmocka_unit_test(steady_state),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
