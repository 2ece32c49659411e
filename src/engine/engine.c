/* The engine's life: one thread that owns scheduler, blocks and KV, and two mailboxes between it and its callers: new
 * requests and aborts in, events out. No other locks. Callers' functions run on any thread; engine_main on its own. */
#include "engine/engine.h"

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/topology.h"

#include <assert.h>
#include <errno.h>
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
    if (q->len == q->cap) { /* the caller lags behind */
        size_t cap = q->cap * 2;
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

/* Dynamic RoPE turns the tokens of a prompt that is longer than the model was trained for by an angle that depends on
 * the prompt's length (see rope_angles): such a prompt shares KV with prompts of its own length only. */
static uint64_t kv_salt(const struct model_config *c, int64_t num_prompt_tokens)
{
    bool dynamic = false;
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        dynamic |= c->rope[i].type == ROPE_DYNAMIC;
    return dynamic && num_prompt_tokens > c->max_position_embeddings ? (uint64_t)num_prompt_tokens : 0;
}

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
    q->r.kv_salt = kv_salt(&e->model->config, n);
    q->engine = e;
    q->notify = params->notify;
    q->notify_arg = params->notify_arg;
    for (q->cap = 16; q->cap < 1024 && (int64_t)q->cap <= q->r.sampling.max_tokens;)
        q->cap *= 2;
    q->events = mem_alloc(q->cap * sizeof(*q->events));
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
    request_post(q, &(struct octavo_event){.type = OCTAVO_EVENT_FINISHED,
                                           .finish_reason = reason,
                                           .token_id = -1,
                                           .num_cached_tokens = (int32_t)q->r.num_cached_tokens});
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
    if (event.type != OCTAVO_EVENT_PROMPT_TOKEN)
        event.num_cached_tokens = (int32_t)r->num_cached_tokens;
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
    scheduler_update_from_output(&e->sched, &out);
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
    if (e->profiling) {
        pthread_mutex_lock(&e->lock);
        e->profile_seen = e->profile;
        pthread_mutex_unlock(&e->lock);
    }
}

static void publish_gauges(struct octavo_engine *e)
{
    atomic_store(&e->running, e->sched.running.count);
    atomic_store(&e->waiting, e->sched.waiting.count);
    atomic_store(&e->blocks_used, e->sched.kv.pool.num_blocks - e->sched.kv.pool.num_free);
    atomic_store(&e->preemptions, e->sched.num_preemptions);
    atomic_store(&e->prefix_cache_queries, e->sched.prefix_cache_queries);
    atomic_store(&e->prefix_cache_hits, e->sched.prefix_cache_hits);
}

void *engine_main(void *arg)
{
    struct octavo_engine *e = arg;
    topology_bind_worker(0, e->info.num_threads);
    for (;;) {
        bool busy = e->sched.running.count || e->sched.waiting.count;
        pthread_mutex_lock(&e->lock);
        while (!busy && !e->inbox_head && !e->abort_pending && !e->quit) {
            e->profile.last_ns = 0; /* idling is no phase */
            pthread_cond_wait(&e->cond, &e->lock);
        }
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

void octavo_engine_get_stats(struct octavo_engine *e, struct octavo_engine_stats *ret)
{
    *ret = (struct octavo_engine_stats){
        .num_requests_running = atomic_load(&e->running),
        .num_requests_waiting = atomic_load(&e->waiting),
        .kv_cache_usage = (double)atomic_load(&e->blocks_used) / (double)e->info.num_blocks,
        .prompt_tokens = atomic_load(&e->prompt_tokens),
        .generation_tokens = atomic_load(&e->generation_tokens),
        .num_preemptions = atomic_load(&e->preemptions),
        .prefix_cache_queries = atomic_load(&e->prefix_cache_queries),
        .prefix_cache_hits = atomic_load(&e->prefix_cache_hits),
        .requests_finished = atomic_load(&e->finished),
        .steps = atomic_load(&e->steps),
    };
}

size_t octavo_engine_profile(struct octavo_engine *e, struct octavo_profile_phase *ret, size_t max)
{
    if (!e->profiling)
        return 0;
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < PROFILE_PHASE_COUNT && i < max; i++)
        ret[i] = (struct octavo_profile_phase){
            .name = profile_phase_name((enum profile_phase)i),
            .seconds = (double)e->profile_seen.ns[i] / 1e9,
            .macs = e->profile_seen.macs[i],
            .bytes = e->profile_seen.bytes[i],
        };
    pthread_mutex_unlock(&e->lock);
    return PROFILE_PHASE_COUNT;
}
