/* What benchmarks share: see bench.h. */
#include "cli/bench.h"

#include "base/log.h"
#include "base/mem.h"
#include "cli/model_path.h"
#include "cli/profile.h"
#include "engine/block_pool.h"
#include "model/choose.h"
#include "model/kv_cache.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS 10000000 /* between looks at requests: rarely enough not to be seen in what is measured */

static atomic_bool stop;

static void on_interrupt(int sig)
{
    (void)sig;
    atomic_store(&stop, true);
}

bool bench_interrupted(void)
{
    return atomic_load(&stop);
}

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the engine ---- */

void bench_flags_init(struct engine_flags *flags)
{
    engine_flags_init(flags);
    flags->enable_prefix_caching = false;
    flags->log_level = "warning";
}

int bench_command(int argc, char **argv, const char *name, const char *intro, const struct option_set *own,
                  struct engine_flags *flags, int (*run)(void *values, struct octavo_error *err))
{
    const struct option_set sets[] = {*own, engine_flags_set(flags)};
    struct option_list words = {0};
    struct octavo_error err = {0};
    int r = options_parse(sets, ARRAY_LEN(sets), argc, argv, &words, 1, &err);
    if (r == 1) {
        fputs(intro, stdout);
        options_print_help(stdout, sets, ARRAY_LEN(sets));
        r = 0;
    } else if (r == 0) {
        if (words.len)
            flags->model = words.items[0];
        struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
        sigaction(SIGINT, &sa, NULL);
        r = run(own->values, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo bench %s: %s\n", name, err.msg);
    option_list_release(&words);
    return r < 0 ? 1 : r == BENCH_INTERRUPTED ? 130 : 0;
}

/* Sizes the engine for the need, where flags leave that open. */
static int fit(struct octavo_engine_options *opts, const struct model_config *c, const enum dtype *dtypes,
               const struct bench_need *need, struct octavo_error *err)
{
    if (need->len > c->max_model_len)
        return error_set_param(err, OCTAVO_EINVAL, "max-model-len",
                               "%s come to %lld tokens, but this checkpoint takes at most %lld "
                               "(max_position_embeddings and RoPE scaling in config.json); lower them",
                               need->flags, (long long)need->len, (long long)c->max_model_len);
    if (opts->max_model_len && need->len > opts->max_model_len)
        return error_set_param(err, OCTAVO_EINVAL, "max-model-len",
                               "%s come to %lld tokens, more than --max-model-len %lld; lower them or raise it",
                               need->flags, (long long)need->len, (long long)opts->max_model_len);
    if (!opts->max_model_len)
        opts->max_model_len = need->len;
    if (!opts->max_num_seqs)
        opts->max_num_seqs = (int)MIN(need->num_seqs, 65536);
    if (!opts->kv_cache_memory_bytes && need->all_in_cache) {
        int64_t bs = opts->block_size ? opts->block_size : ATTN_TILE, bytes, blocks;
        /* Room to grow in place for each, as there is in a server's cache. */
        int64_t room = MAX(BLOCK_POOL_EXTENT * ATTN_TILE / bs, 1);
        int64_t block =
            (int64_t)kv_cache_block_bytes(dtypes, c->num_hidden_layers, c->num_key_value_heads, c->head_dim, (int)bs);
        if (__builtin_mul_overflow((opts->max_model_len + bs * room - 1) / (bs * room) * room, need->num_seqs,
                                   &blocks) ||
            __builtin_mul_overflow(blocks, block, &bytes))
            return error_set_param(err, OCTAVO_ENOMEM, "kv-cache-memory-bytes",
                                   "%lld requests of %lld tokens need more KV cache than there are addresses",
                                   (long long)need->num_seqs, (long long)need->len);
        opts->kv_cache_memory_bytes = bytes;
    }
    return 0;
}

/* The checkpoint is opened on its own first: what does not fit is said before anything is loaded. */
static int plan(struct bench *b, const struct engine_flags *flags, struct octavo_engine_options *opts,
                const struct bench_need *need, struct octavo_error *err)
{
    struct checkpoint *ckpt = NULL;
    enum dtype *dtypes = NULL;
    bool dummy = !strcmp(opts->load_format, "dummy"), w8a8;
    int r;
    if ((r = checkpoint_open(opts->model, dummy ? LOAD_DUMMY : LOAD_AUTO, opts->seed, &ckpt, err)) < 0 ||
        (r = model_choose_quantization(ckpt, "quantization", flags->quantization, &w8a8, err)) < 0 ||
        (r = model_choose_kv_dtypes(ckpt, need->kv_dtype ? "kv-cache-dtypes" : "kv-cache-dtype", opts->kv_cache_dtype,
                                    dummy, &dtypes, err)) < 0 ||
        (r = fit(opts, checkpoint_config(ckpt), dtypes, need, err)) < 0)
        goto out;
    bench_cost_init(&b->cost, ckpt, dtypes, w8a8);
out:
    free(dtypes);
    checkpoint_free(ckpt);
    return r;
}

int bench_open(struct bench *b, const struct engine_flags *flags, const struct bench_need *need,
               struct octavo_error *err)
{
    struct octavo_engine_options opts;
    struct load_progress progress = {0};
    int r;
    *b = (struct bench){0};
    if ((r = model_path_find(flags->model, &b->model, err)) < 0 ||
        (r = engine_flags_apply(flags, b->model, &opts, err)) < 0)
        goto out;
    if (need->kv_dtype)
        opts.kv_cache_dtype = need->kv_dtype;
    if ((r = plan(b, flags, &opts, need, err)) < 0)
        goto out;
    if (isatty(STDERR_FILENO)) {
        opts.progress = load_progress_update;
        opts.progress_arg = &progress;
    }
    r = octavo_engine_open(&opts, &b->engine, err);
    if (progress.open)
        fputs("\r\033[K", stderr);
out:
    if (r < 0)
        bench_close(b);
    return r;
}

void bench_close(struct bench *b)
{
    profile_print(b->engine, stderr);
    octavo_engine_close(b->engine);
    free(b->model);
    *b = (struct bench){0};
}

int bench_peak(const struct bench *b, double seconds, struct machine_peak *ret, struct octavo_error *err)
{
    const struct octavo_engine_info *info = octavo_engine_info(b->engine);
    enum cpu_isa isa;
    cpu_isa_parse(info->isa, &isa);
    struct pool *pool = pool_new(info->num_threads);
    if (!pool)
        return error_set_param(err, OCTAVO_ENOMEM, "threads", "cannot start %d compute threads; lower --threads",
                               info->num_threads);
    int r = machine_peak_measure(pool, isa, seconds, ret, err);
    pool_free(pool);
    return r;
}

/* ---- requests ---- */

static uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

/* On the engine's thread: no event of a benchmark's request but a token's comes before the last. */
static void on_event(void *arg)
{
    struct bench_request *q = arg;
    int64_t n = atomic_load_explicit(&q->num_tokens, memory_order_relaxed);
    if (n < q->output_len) {
        q->token_seconds[n] = bench_now();
        atomic_store_explicit(&q->num_tokens, n + 1, memory_order_release);
    }
}

static int submit(struct bench_run *run, const struct bench *b, const struct bench_load *load, int64_t i,
                  int32_t *prompt, struct octavo_error *err)
{
    struct bench_request *q = &run->requests[i];
    uint32_t vocab = (uint32_t)octavo_engine_info(b->engine)->vocab_size;
    uint64_t key = mix64(load->seed * 0x9e3779b97f4a7c15u + (uint64_t)i + 1);
    for (int64_t t = 0; t < load->input_len; t++)
        prompt[t] = (int32_t)((mix64(key + (uint64_t)t) >> 32) * vocab >> 32);
    struct octavo_request_params params = {
        .prompt_token_ids = prompt, .num_prompt_tokens = (size_t)load->input_len, .notify = on_event, .notify_arg = q};
    octavo_sampling_params_init(&params.sampling);
    params.sampling.temperature = load->temperature;
    params.sampling.seeded = true;
    params.sampling.seed = (int64_t)(key >> 1);
    params.sampling.ignore_eos = true;
    params.sampling.max_tokens = load->output_len;
    q->output_len = load->output_len;
    q->token_seconds = run->token_seconds + i * load->output_len;
    q->submitted = bench_now();
    return octavo_submit(b->engine, &params, &q->handle, err);
}

/* Takes what has come. */
static int drain(struct bench_request *q, struct octavo_error *err)
{
    struct octavo_event event;
    while (!q->finished && octavo_request_next(q->handle, &event, 0)) {
        q->finished = event.finish_reason != OCTAVO_FINISH_NONE;
        if (event.finish_reason == OCTAVO_FINISH_ERROR)
            return error_set(err, OCTAVO_EINTERNAL, "the model's output is not a number; is the checkpoint damaged?");
    }
    return 0;
}

/* Whether the last request to answer has done so for long enough. */
static bool is_steady(const struct bench_run *run, int64_t steady_tokens)
{
    int64_t last = 0;
    for (int64_t i = 0; i < run->num_requests; i++) {
        int64_t n = atomic_load_explicit(&run->requests[i].num_tokens, memory_order_acquire);
        if (n == 0)
            return false;
        if (run->requests[i].token_seconds[0] > run->requests[last].token_seconds[0])
            last = i;
    }
    return atomic_load_explicit(&run->requests[last].num_tokens, memory_order_acquire) > steady_tokens;
}

static int wait_all(struct bench_run *run, const struct bench_load *load, struct octavo_error *err)
{
    for (bool all = false; !all;) {
        if (bench_interrupted())
            return BENCH_INTERRUPTED;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        all = true;
        for (int64_t i = 0; i < run->num_requests; i++) {
            int r = drain(&run->requests[i], err);
            if (r < 0)
                return r;
            all = all && run->requests[i].finished;
        }
        if (load->steady_tokens && is_steady(run, load->steady_tokens))
            all = true;
        if (load->tick)
            load->tick(load->tick_arg);
    }
    return 0;
}

/* Requests of the run before that were stopped may be in a step still. */
static void wait_idle(struct octavo_engine *engine)
{
    struct octavo_engine_stats stats;
    for (;;) {
        octavo_engine_get_stats(engine, &stats);
        if (!stats.num_requests_running && !stats.num_requests_waiting)
            return;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS / 10}, NULL);
    }
}

int bench_run(struct bench_run *run, const struct bench *b, const struct bench_load *load, struct octavo_error *err)
{
    size_t n = (size_t)load->num_requests;
    *run = (struct bench_run){.num_requests = load->num_requests};
    run->requests = mem_try_calloc(n, sizeof(*run->requests));
    run->token_seconds = mem_try_calloc(n, (size_t)load->output_len * sizeof(double));
    int32_t *prompt = mem_try_array((size_t)load->input_len, sizeof(*prompt));
    int r = 0;
    if (!run->requests || !run->token_seconds || !prompt) {
        r = error_set(err, OCTAVO_ENOMEM, "no memory to follow %zu requests", n);
        goto out;
    }
    wait_idle(b->engine);
    run->start = bench_now();
    for (int64_t i = 0; i < load->num_requests; i++) {
        if ((r = submit(run, b, load, i, prompt, err)) < 0)
            goto out;
        if (bench_interrupted())
            break;
    }
    r = wait_all(run, load, err);
    for (int64_t i = 0; i < load->num_requests && r == 0; i++) {
        const struct bench_request *q = &run->requests[i];
        int64_t tokens = atomic_load(&q->num_tokens);
        if (!load->steady_tokens && tokens < load->output_len)
            r = error_set(err, OCTAVO_EINTERNAL, "a request ended after %lld of %lld tokens", (long long)tokens,
                          (long long)load->output_len);
        else
            run->end = MAX(run->end, q->token_seconds[tokens - 1]);
    }
out:
    free(prompt);
    return r;
}

void bench_run_release(struct bench_run *run)
{
    for (int64_t i = 0; run->requests && i < run->num_requests; i++)
        octavo_request_free(run->requests[i].handle);
    free(run->requests);
    free(run->token_seconds);
    *run = (struct bench_run){0};
}

double bench_first_token_seconds(const struct bench_request *q)
{
    return q->token_seconds[0] - q->submitted;
}

double bench_seconds_per_output_token(const struct bench_request *q)
{
    int64_t n = atomic_load(&q->num_tokens);
    return n > 1 ? (q->token_seconds[n - 1] - q->token_seconds[0]) / (double)(n - 1) : 0;
}

/* ---- progress ---- */

void bench_progress_update(struct bench_progress *p, const char *what, double fraction)
{
    if (!p->started) {
        *p = (struct bench_progress){
            .last_percent = -1, .tty = isatty(STDERR_FILENO) == 1, .started = true, .start = bench_now()};
    }
    int percent = (int)(MIN(fraction, 1) * 100);
    if (percent == p->last_percent)
        return;
    double seconds = bench_now() - p->start;
    if (p->tty) {
        char bar[31], left[32] = "";
        for (int i = 0; i < 30; i++)
            bar[i] = i < percent * 30 / 100 ? '=' : ' ';
        bar[30] = '\0';
        if (fraction > 0.02)
            snprintf(left, sizeof(left), ", %.0f s left", seconds * (1 - MIN(fraction, 1)) / fraction);
        fprintf(stderr, "\r\033[K%-24s [%s] %3d%%%s", what, bar, percent, left);
        fflush(stderr);
        p->open = true;
    } else if (percent / 25 != p->last_percent / 25) {
        log_info("%s: %d%% after %.1f s", what, percent, seconds);
    }
    p->last_percent = percent;
}

void bench_progress_end(struct bench_progress *p)
{
    if (p->open)
        fputs("\r\033[K", stderr); /* the bar has done its work */
    p->open = false;
}
