/* The engine: the public API, one thread that owns scheduler, blocks and KV, and two mailboxes between it and its
 * callers: new requests and aborts in, events out. No other locks. */
#include "base/cpu.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/model_runner.h"
#include "engine/scheduler.h"
#include "model/model.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define MAX_PROMPT_LOGPROBS_BYTES ((size_t)1 << 30)

/* Two owners: the caller and, until it ends, the engine. The last to let go frees it. */
struct octavo_request {
    struct request r; /* engine thread only */
    struct octavo_engine *engine;
    struct octavo_request *next_in; /* in the engine's inbox */
    _Atomic int refs;
    _Atomic bool aborted;
    /* The outbox, under lock: a ring of events, cap a power of two. */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct octavo_event *events;
    size_t cap, head, len;
    bool finished;
    void (*notify)(void *arg);
    void *notify_arg;
    struct octavo_logprob *taken_top; /* of the event taken last; caller's side */
};

struct octavo_engine {
    struct octavo_engine_info info;
    char *model_dir;
    struct checkpoint *ckpt;
    struct pool *pool;
    struct model *model;
    struct model_runner *runner;
    struct scheduler sched;
    bool sched_ready, thread_ready;
    pthread_t thread;
    uint64_t next_id;
    /* The inbox, under lock. */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct octavo_request *inbox_head, *inbox_tail;
    bool abort_pending, quit;
    /* Gauges and counters, written by the engine thread. */
    _Atomic int64_t running, waiting;
    _Atomic int64_t blocks_used;
    _Atomic uint64_t prompt_tokens, generation_tokens, finished, steps, preemptions;
};

static struct octavo_request *outer(struct request *r)
{
    return (struct octavo_request *)((char *)r - offsetof(struct octavo_request, r));
}

static void cond_init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* ---- outbox ---- */

static void request_unref(struct octavo_request *q)
{
    if (atomic_fetch_sub(&q->refs, 1) != 1)
        return;
    for (; q->len; q->len--, q->head++)
        free((void *)(uintptr_t)q->events[q->head & (q->cap - 1)].top);
    free(q->events);
    free(q->taken_top);
    request_release(&q->r);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->cond);
    free(q);
}

/* Queues an event; its top array becomes the request's. notify runs under the lock, which is what lets
 * octavo_request_free promise that no call comes after it. */
static void request_post(struct octavo_request *q, const struct octavo_event *event)
{
    pthread_mutex_lock(&q->lock);
    if (q->len == q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 16;
        struct octavo_event *events = mem_alloc(cap * sizeof(*events));
        for (size_t i = 0; i < q->len; i++)
            events[i] = q->events[(q->head + i) & (q->cap - 1)];
        free(q->events);
        q->events = events;
        q->cap = cap;
        q->head = 0;
    }
    q->events[(q->head + q->len++) & (q->cap - 1)] = *event;
    if (event->finish_reason != OCTAVO_FINISH_NONE)
        q->finished = true;
    pthread_cond_signal(&q->cond);
    if (q->notify)
        q->notify(q->notify_arg);
    pthread_mutex_unlock(&q->lock);
}

int octavo_request_next(struct octavo_request *q, struct octavo_event *ret_event, int timeout_ms)
{
    struct timespec until;
    if (timeout_ms > 0) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += timeout_ms / 1000;
        until.tv_nsec += timeout_ms % 1000 * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
    }
    free(q->taken_top);
    q->taken_top = NULL;
    int r = 0;
    pthread_mutex_lock(&q->lock);
    while (!q->len && !q->finished && timeout_ms != 0) {
        if (timeout_ms < 0)
            pthread_cond_wait(&q->cond, &q->lock);
        else if (pthread_cond_timedwait(&q->cond, &q->lock, &until) == ETIMEDOUT)
            break;
    }
    if (q->len) {
        *ret_event = q->events[q->head++ & (q->cap - 1)];
        q->len--;
        q->taken_top = (struct octavo_logprob *)(uintptr_t)ret_event->top;
        r = 1;
    }
    pthread_mutex_unlock(&q->lock);
    return r;
}

void octavo_request_abort(struct octavo_request *q)
{
    if (atomic_exchange(&q->aborted, true))
        return;
    pthread_mutex_lock(&q->lock);
    bool finished = q->finished;
    pthread_mutex_unlock(&q->lock);
    if (finished)
        return;
    struct octavo_engine *e = q->engine;
    pthread_mutex_lock(&e->lock);
    e->abort_pending = true;
    pthread_cond_signal(&e->cond);
    pthread_mutex_unlock(&e->lock);
}

void octavo_request_free(struct octavo_request *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->notify = NULL;
    pthread_mutex_unlock(&q->lock);
    octavo_request_abort(q);
    request_unref(q);
}

/* ---- inbox ---- */

int octavo_submit(struct octavo_engine *e, const struct octavo_request_params *params,
                  struct octavo_request **ret_request, struct octavo_error *err)
{
    const struct octavo_engine_info *info = &e->info;
    const struct octavo_sampling_params *sp = &params->sampling;
    int64_t n = (int64_t)params->num_prompt_tokens, max_len = info->max_model_len;
    int r = sampling_params_check(sp, info->vocab_size, info->max_logprobs, err);
    if (r < 0)
        return r;
    if (n < 1)
        return error_set_param(err, OCTAVO_EINVAL, "prompt", "the prompt is empty; it needs at least one token");
    int64_t need = sp->max_tokens < 0 ? 1 : sp->max_tokens;
    if (params->num_prompt_tokens > (size_t)max_len || need > max_len - n)
        return error_set_param(
            err, OCTAVO_EINVAL, params->num_prompt_tokens >= (size_t)max_len ? "prompt" : "max_tokens",
            "this model's maximum context length is %lld tokens, but the request needs %zu (%zu in the prompt, %lld "
            "for "
            "the output); shorten the prompt or lower max_tokens",
            (long long)max_len, params->num_prompt_tokens + (size_t)need, params->num_prompt_tokens, (long long)need);
    for (int64_t i = 0; i < n; i++)
        if (params->prompt_token_ids[i] < 0 || params->prompt_token_ids[i] >= info->vocab_size)
            return error_set_param(err, OCTAVO_EINVAL, "prompt", "token id %d at position %lld is not in [0, %d)",
                                   (int)params->prompt_token_ids[i], (long long)i, (int)info->vocab_size);
    size_t top =
        sp->prompt_logprobs == OCTAVO_LOGPROBS_ALL ? (size_t)info->vocab_size : (size_t)MAX(sp->prompt_logprobs, 0);
    if (top * (size_t)n > MAX_PROMPT_LOGPROBS_BYTES / sizeof(struct octavo_logprob))
        return error_set_param(err, OCTAVO_EINVAL, "prompt_logprobs",
                               "%zu prompt logprobs for %lld tokens need more than %zu MiB; ask for fewer", top,
                               (long long)n, MAX_PROMPT_LOGPROBS_BYTES >> 20);

    struct octavo_request *q = mem_calloc(1, sizeof(*q));
    r = request_init(&q->r, params->prompt_token_ids, n, sp, max_len, info->block_size, err);
    if (r < 0) {
        free(q);
        return r;
    }
    if (!sp->seeded && getrandom(&q->r.sampling.seed, sizeof(q->r.sampling.seed), 0) < 0)
        q->r.sampling.seed = (int64_t)time(NULL);
    q->engine = e;
    q->notify = params->notify;
    q->notify_arg = params->notify_arg;
    atomic_init(&q->refs, 2);
    pthread_mutex_init(&q->lock, NULL);
    cond_init_monotonic(&q->cond);
    pthread_mutex_lock(&e->lock);
    bool quit = e->quit;
    if (!quit) {
        q->r.id = e->next_id++;
        *(e->inbox_tail ? &e->inbox_tail->next_in : &e->inbox_head) = q;
        e->inbox_tail = q;
        pthread_cond_signal(&e->cond);
    }
    pthread_mutex_unlock(&e->lock);
    if (quit) {
        atomic_store(&q->refs, 1);
        request_unref(q);
        return error_set(err, OCTAVO_EBUSY, "the engine is shutting down");
    }
    *ret_request = q;
    return 0;
}

/* ---- the engine thread ---- */

/* The engine lets go of a request that has ended: its blocks are free and its last event is out. */
static void request_end(struct octavo_engine *e, struct octavo_request *q)
{
    scheduler_remove(&e->sched, &q->r);
    atomic_fetch_add(&e->finished, 1);
    request_unref(q);
}

static void finish_without_token(struct octavo_engine *e, struct octavo_request *q, enum octavo_finish_reason reason)
{
    request_post(q, &(struct octavo_event){.type = OCTAVO_EVENT_FINISHED, .finish_reason = reason, .token_id = -1});
    request_end(e, q);
}

static void abort_listed(struct octavo_engine *e, struct request_list *list, bool all)
{
    struct request *next;
    for (struct request *r = list->head; r; r = next) {
        next = r->next;
        if (all || atomic_load(&outer(r)->aborted))
            finish_without_token(e, outer(r), OCTAVO_FINISH_ABORT);
    }
}

/* One row of the step's logits has become a token or a prompt logprob. */
static void on_row(void *arg, struct runner_row *row)
{
    struct octavo_engine *e = arg;
    struct request *r = row->request;
    struct octavo_event event = {
        .token_id = row->token, .logprob = row->logprob, .top = row->top, .num_top = (size_t)row->num_top};
    if (request_finished(r)) { /* an earlier row of this step ended it */
        free(row->top);
        return;
    }
    if (row->token == SAMPLER_NOT_FINITE) {
        free(row->top);
        log_error("request %llu: the model's logits are not finite; is the checkpoint damaged?",
                  (unsigned long long)r->id);
        r->status = REQUEST_FINISHED_ERROR;
        event =
            (struct octavo_event){.type = OCTAVO_EVENT_FINISHED, .finish_reason = OCTAVO_FINISH_ERROR, .token_id = -1};
    } else if (row->prompt_position >= 0) {
        event.type = OCTAVO_EVENT_PROMPT_TOKEN;
        event.position = (int32_t)row->prompt_position;
        r->num_prompt_logprobs_done = row->prompt_position;
    } else {
        event.type = OCTAVO_EVENT_TOKEN;
        event.position = (int32_t)(r->num_tokens - r->num_prompt_tokens);
        enum request_status status =
            request_append(r, row->token, e->info.eos_token_ids, e->info.num_eos_token_ids, &event.eos);
        event.finish_reason = status == REQUEST_FINISHED_STOPPED  ? OCTAVO_FINISH_STOP
                              : status == REQUEST_FINISHED_LENGTH ? OCTAVO_FINISH_LENGTH
                                                                  : OCTAVO_FINISH_NONE;
        atomic_fetch_add_explicit(&e->generation_tokens, 1, memory_order_relaxed);
    }
    request_post(outer(r), &event);
}

static void step(struct octavo_engine *e)
{
    struct sched_output out = scheduler_schedule(&e->sched);
    assert(out.num_entries > 0); /* whoever is alone fits, so somebody always runs */
    for (int i = 0; i < out.num_entries; i++) {
        const struct sched_entry *entry = &out.entries[i];
        int64_t prompt_left = MAX(entry->request->num_prompt_tokens - entry->first_token, 0);
        atomic_fetch_add_explicit(&e->prompt_tokens, (uint64_t)MIN(prompt_left, entry->num_tokens),
                                  memory_order_relaxed);
    }
    model_runner_execute(e->runner, &out, on_row, e);
    for (int i = 0; i < out.num_entries; i++) {
        struct request *r = out.entries[i].request;
        if (request_finished(r)) {
            request_end(e, outer(r));
        } else if (r->num_computed_tokens == r->max_len) { /* echo: the prompt was all there is to do */
            r->status = REQUEST_FINISHED_LENGTH;
            finish_without_token(e, outer(r), OCTAVO_FINISH_LENGTH);
        }
    }
    atomic_fetch_add_explicit(&e->steps, 1, memory_order_relaxed);
}

static void publish_gauges(struct octavo_engine *e)
{
    atomic_store(&e->running, e->sched.running.count);
    atomic_store(&e->waiting, e->sched.waiting.count);
    atomic_store(&e->blocks_used, e->sched.kv.pool.num_blocks - e->sched.kv.pool.num_free);
    atomic_store(&e->preemptions, e->sched.num_preemptions);
}

static void *engine_main(void *arg)
{
    struct octavo_engine *e = arg;
    for (;;) {
        bool busy = e->sched.running.count || e->sched.waiting.count;
        pthread_mutex_lock(&e->lock);
        while (!busy && !e->inbox_head && !e->abort_pending && !e->quit)
            pthread_cond_wait(&e->cond, &e->lock);
        struct octavo_request *in = e->inbox_head;
        e->inbox_head = e->inbox_tail = NULL;
        bool aborts = e->abort_pending, quit = e->quit;
        e->abort_pending = false;
        pthread_mutex_unlock(&e->lock);

        for (struct octavo_request *next; in; in = next) {
            next = in->next_in;
            scheduler_add(&e->sched, &in->r);
        }
        if (aborts || quit) {
            abort_listed(e, &e->sched.waiting, quit);
            abort_listed(e, &e->sched.running, quit);
        }
        if (!quit && (e->sched.running.count || e->sched.waiting.count))
            step(e);
        publish_gauges(e);
        if (quit)
            return NULL;
    }
}

/* ---- opening ---- */

const char *octavo_version(void)
{
    return OCTAVO_VERSION;
}

void octavo_engine_options_init(struct octavo_engine_options *opts)
{
    *opts = (struct octavo_engine_options){
        .load_format = "auto", .kv_cache_dtype = "auto", .isa = "auto", .max_logprobs = 20};
}

void octavo_sampling_params_init(struct octavo_sampling_params *params)
{
    sampling_params_init(params);
}

static const struct {
    const char *name;
    enum dtype dtype;
} kv_dtypes[] = {{"bfloat16", DTYPE_BF16}, {"float16", DTYPE_F16}, {"float32", DTYPE_F32}};

static const char *kv_dtype_name(enum dtype dtype)
{
    for (size_t i = 0; i < ARRAY_LEN(kv_dtypes); i++)
        if (kv_dtypes[i].dtype == dtype)
            return kv_dtypes[i].name;
    return "?";
}

static int kv_dtype_parse(const char *name, enum dtype checkpoint_dtype, enum dtype *ret, struct octavo_error *err)
{
    if (!strcmp(name, "auto")) {
        *ret = checkpoint_dtype;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(kv_dtypes); i++)
        if (!strcmp(name, kv_dtypes[i].name)) {
            *ret = kv_dtypes[i].dtype;
            return 0;
        }
    return error_set_param(err, OCTAVO_EINVAL, "kv_cache_dtype",
                           "--kv-cache-dtype must be auto, bfloat16, float16 or float32, not '%s'", name);
}

static int isa_parse(const char *name, enum cpu_isa *ret, struct octavo_error *err)
{
    if (cpu_isa_parse(name, ret) < 0)
        return error_set_param(err, OCTAVO_EINVAL, "isa", "--isa must be auto, ref, avx2 or avx512, not '%s'", name);
    if (*ret > cpu_isa_best())
        return error_set_param(err, OCTAVO_EINVAL, "isa", "--isa %s: this CPU goes up to %s", name,
                               cpu_isa_name(cpu_isa_best()));
    return 0;
}

/* Takes an option's value, or its default when it is 0; checks the range. */
static int option(const char *param, int64_t value, int64_t def, int64_t lo, int64_t hi, struct octavo_error *err,
                  int64_t *ret)
{
    *ret = value ? value : def;
    if (*ret < lo || *ret > hi)
        return error_set_param(err, OCTAVO_EINVAL, param, "--%s must be between %lld and %lld, not %lld", param,
                               (long long)lo, (long long)hi, (long long)*ret);
    return 0;
}

static int limits_init(struct octavo_engine *e, const struct octavo_engine_options *o, struct octavo_error *err)
{
    struct octavo_engine_info *info = &e->info;
    const struct model_config *c = checkpoint_config(e->ckpt);
    int64_t seqs, tokens, block, threads, len;
    int r;
    if ((r = option("max-num-seqs", o->max_num_seqs, 128, 1, 65536, err, &seqs)) < 0 ||
        (r = option("max-num-batched-tokens", o->max_num_batched_tokens, 2048, 1, 1 << 20, err, &tokens)) < 0 ||
        (r = option("block-size", o->block_size, 32, ATTN_TILE, 4096, err, &block)) < 0 ||
        (r = option("threads", o->num_threads, cpu_num_usable(), 1, 1024, err, &threads)) < 0 ||
        (r = option("max-model-len", o->max_model_len, c->max_model_len, 1, INT32_MAX, err, &len)) < 0)
        return r;
    if (block % ATTN_TILE)
        return error_set_param(err, OCTAVO_EINVAL, "block-size", "--block-size must be a multiple of %d, not %lld",
                               ATTN_TILE, (long long)block);
    if (len > c->max_model_len)
        return error_set_param(err, OCTAVO_EINVAL, "max-model-len",
                               "--max-model-len %lld is more than the %lld tokens this checkpoint is made for "
                               "(max_position_embeddings and RoPE scaling in config.json)",
                               (long long)len, (long long)c->max_model_len);
    if (o->max_logprobs < -1)
        return error_set_param(err, OCTAVO_EINVAL, "max-logprobs", "--max-logprobs must be -1 or more, not %d",
                               o->max_logprobs);
    info->max_num_seqs = (int)seqs;
    info->max_num_batched_tokens = (int)tokens;
    info->block_size = (int)block;
    info->num_threads = (int)threads;
    info->max_model_len = len;
    info->max_logprobs = o->max_logprobs;
    return 0;
}

/* Decides the number of KV blocks. Asked for: exactly that, and it must hold one full request. Otherwise enough for
 * every sequence at full length but at most 4 GiB, at least one full request, and no more than the memory left;
 * where not even that is there and the user named no length, the length gives way. */
static int kv_size(struct octavo_engine *e, const struct octavo_engine_options *o, enum dtype dtype,
                   struct octavo_error *err)
{
    struct octavo_engine_info *info = &e->info;
    const struct model_config *c = checkpoint_config(e->ckpt);
    const int64_t bs = info->block_size;
    int64_t block_bytes = (int64_t)kv_cache_block_bytes(dtype, c->num_hidden_layers, c->num_key_value_heads,
                                                        c->head_dim, info->block_size);
    int64_t one = (info->max_model_len + bs - 1) / bs, limit = INT32_MAX;
    int64_t available = (int64_t)MIN(mem_available(), (uint64_t)INT64_MAX), blocks;
    int64_t left =
        available - (int64_t)model_runner_workspace_bytes(c, info->max_num_batched_tokens, info->num_threads);
    int64_t fit = left > 0 ? left / 10 * 9 / block_bytes : 0;
    if (o->kv_cache_memory_bytes < 0)
        return error_set_param(err, OCTAVO_EINVAL, "kv-cache-memory-bytes",
                               "--kv-cache-memory-bytes must not be negative");
    if (o->kv_cache_memory_bytes) {
        blocks = MIN(o->kv_cache_memory_bytes / block_bytes, limit);
        if (blocks > fit)
            return error_set_param(err, OCTAVO_ENOMEM, "kv-cache-memory-bytes",
                                   "--kv-cache-memory-bytes asks for %.2f GiB, but only %.2f GiB of memory are left",
                                   (double)(blocks * block_bytes) / (1 << 30), (double)(fit * block_bytes) / (1 << 30));
    } else {
        int64_t wanted = one > limit / info->max_num_seqs ? limit : one * info->max_num_seqs;
        blocks = MIN(wanted, MAX((INT64_C(4) << 30) / block_bytes, one));
        blocks = MIN(blocks, fit);
    }
    if (blocks < one && !o->max_model_len && blocks > 0) {
        info->max_model_len = blocks * bs;
        log_warning("the KV cache holds %lld tokens, fewer than the model's context: --max-model-len is now that",
                    (long long)info->max_model_len);
    } else if (blocks < one) {
        return error_set_param(err, OCTAVO_ENOMEM, "max-model-len",
                               "one request of %lld tokens needs %.2f GiB of KV cache, but there are %.2f GiB; lower "
                               "--max-model-len or raise --kv-cache-memory-bytes",
                               (long long)info->max_model_len, (double)(one * block_bytes) / (1 << 30),
                               (double)(blocks * block_bytes) / (1 << 30));
    }
    info->num_blocks = blocks;
    info->kv_cache_bytes = blocks * block_bytes;
    info->kv_bytes_per_token = block_bytes / bs;
    info->kv_cache_dtype = kv_dtype_name(dtype);
    return 0;
}

static void default_sampling_init(struct octavo_engine_info *info, const struct generation_config *g)
{
    struct octavo_sampling_params *p = &info->default_sampling;
    sampling_params_init(p);
    if (g->has_temperature)
        p->temperature = (float)g->temperature;
    if (g->has_top_p)
        p->top_p = (float)g->top_p;
    if (g->has_top_k)
        p->top_k = (int32_t)g->top_k;
    if (g->has_min_p)
        p->min_p = (float)g->min_p;
    if (g->has_repetition_penalty)
        p->repetition_penalty = (float)g->repetition_penalty;
    if (g->has_max_new_tokens)
        p->max_tokens = g->max_new_tokens;
}

static int engine_load(struct octavo_engine *e, const struct octavo_engine_options *o, struct octavo_error *err)
{
    struct octavo_engine_info *info = &e->info;
    enum cpu_isa isa;
    enum dtype kv_dtype = DTYPE_BF16;
    bool dummy = !strcmp(o->load_format, "dummy");
    if (!dummy && strcmp(o->load_format, "auto") && strcmp(o->load_format, "safetensors"))
        return error_set_param(err, OCTAVO_EINVAL, "load-format",
                               "--load-format must be auto, safetensors or dummy, not '%s'", o->load_format);
    int r = isa_parse(o->isa, &isa, err);
    if (r < 0 || (r = checkpoint_open(o->model, dummy ? LOAD_DUMMY : LOAD_AUTO, o->seed, &e->ckpt, err)) < 0)
        return r;
    const struct model_config *c = checkpoint_config(e->ckpt);
    if ((r = kv_dtype_parse(o->kv_cache_dtype, c->dtype, &kv_dtype, err)) < 0 || (r = limits_init(e, o, err)) < 0)
        return r;
    uint64_t need = model_weights_bytes(e->ckpt), available = mem_available();
    if (need > available)
        return error_set(err, OCTAVO_ENOMEM, "%s: the weights need %.2f GiB of memory, but only %.2f GiB are available",
                         o->model, (double)need / (1 << 30), (double)available / (1 << 30));
    e->pool = pool_new(info->num_threads);
    if (!e->pool)
        return error_set_param(err, OCTAVO_ENOMEM, "threads", "cannot start %d compute threads; lower --threads",
                               info->num_threads);
    if ((r = model_load(e->ckpt, e->pool, isa, o->progress, o->progress_arg, &e->model, err)) < 0 ||
        (r = kv_size(e, o, kv_dtype, err)) < 0)
        return r;
    info->architecture = c->architecture;
    info->isa = cpu_isa_name(isa);
    info->vocab_size = c->vocab_size;
    info->weights_bytes = (int64_t)e->model->weights_bytes;
    info->num_parameters = e->model->num_parameters;
    info->eos_token_ids = c->eos_token_ids;
    info->num_eos_token_ids = (size_t)c->num_eos_token_ids;
    default_sampling_init(info, checkpoint_generation_config(e->ckpt));
    struct sampler sampler = {.ops = e->model->ops,
                              .vocab_size = c->vocab_size,
                              .num_sampled = o->tokenizer_vocab_size > 0 ? MIN(o->tokenizer_vocab_size, c->vocab_size)
                                                                         : c->vocab_size,
                              .eos = c->eos_token_ids,
                              .num_eos = (size_t)c->num_eos_token_ids};
    r = model_runner_new(e->model, kv_dtype, info->block_size, info->num_blocks, info->max_num_batched_tokens, &sampler,
                         &e->runner, err);
    if (r < 0)
        return r;
    scheduler_init(&e->sched, info->max_num_seqs, info->max_num_batched_tokens, info->num_blocks, info->block_size);
    e->sched_ready = true;
    return 0;
}

int octavo_engine_open(const struct octavo_engine_options *opts, struct octavo_engine **ret_engine,
                       struct octavo_error *err)
{
    if (!opts->model)
        return error_set_param(err, OCTAVO_EINVAL, "model", "no model: name the folder of a checkpoint");
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    struct octavo_engine *e = mem_calloc(1, sizeof(*e));
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->cond, NULL);
    e->model_dir = mem_strdup(opts->model);
    e->info.model = e->model_dir;
    int r = engine_load(e, opts, err);
    if (r == 0) {
        sigset_t all, old; /* signals belong to the main program */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        e->thread_ready = pthread_create(&e->thread, NULL, engine_main, e) == 0;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (!e->thread_ready)
            r = error_set(err, OCTAVO_ENOMEM, "cannot start the engine thread");
    }
    if (r < 0) {
        octavo_engine_close(e);
        return r;
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    e->info.load_seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
    *ret_engine = e;
    return 0;
}

void octavo_engine_close(struct octavo_engine *e)
{
    if (!e)
        return;
    if (e->thread_ready) {
        pthread_mutex_lock(&e->lock);
        e->quit = true;
        pthread_cond_signal(&e->cond);
        pthread_mutex_unlock(&e->lock);
        pthread_join(e->thread, NULL);
    }
    if (e->sched_ready)
        scheduler_release(&e->sched);
    model_runner_free(e->runner);
    model_free(e->model);
    pool_free(e->pool);
    checkpoint_free(e->ckpt);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->cond);
    free(e->model_dir);
    free(e);
}

const struct octavo_engine_info *octavo_engine_info(const struct octavo_engine *e)
{
    return &e->info;
}

void octavo_engine_get_stats(struct octavo_engine *e, struct octavo_engine_stats *ret)
{
    *ret = (struct octavo_engine_stats){
        .num_requests_running = atomic_load(&e->running),
        .num_requests_waiting = atomic_load(&e->waiting),
        .kv_cache_usage = (double)atomic_load(&e->blocks_used) / (double)e->info.num_blocks,
        .prompt_tokens = atomic_load(&e->prompt_tokens),
        .generation_tokens = atomic_load(&e->generation_tokens),
        .num_preemptions = atomic_load(&e->preemptions),
        .requests_finished = atomic_load(&e->finished),
        .steps = atomic_load(&e->steps),
    };
}
