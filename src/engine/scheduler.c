/* The scheduler: see scheduler.h. */
#include "engine/scheduler.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

static void list_push_tail(struct request_list *l, struct request *r)
{
    r->prev = l->tail;
    r->next = NULL;
    *(l->tail ? &l->tail->next : &l->head) = r;
    l->tail = r;
    l->count++;
}

static void list_push_head(struct request_list *l, struct request *r)
{
    r->prev = NULL;
    r->next = l->head;
    *(l->head ? &l->head->prev : &l->tail) = r;
    l->head = r;
    l->count++;
}

static void list_remove(struct request_list *l, struct request *r)
{
    *(r->prev ? &r->prev->next : &l->head) = r->next;
    *(r->next ? &r->next->prev : &l->tail) = r->prev;
    r->prev = r->next = NULL;
    l->count--;
}

void scheduler_init(struct scheduler *s, int max_num_seqs, int max_num_batched_tokens, int64_t num_blocks,
                    int block_size)
{
    *s = (struct scheduler){.max_num_seqs = max_num_seqs, .max_num_batched_tokens = max_num_batched_tokens};
    kv_manager_init(&s->kv, num_blocks, block_size);
    s->entries = mem_calloc((size_t)max_num_seqs, sizeof(*s->entries));
}

int scheduler_enable_prefix_caching(struct scheduler *s, const char *cache_kind, struct octavo_error *err)
{
    return kv_manager_enable_caching(&s->kv, cache_kind, err);
}

void scheduler_release(struct scheduler *s)
{
    assert(!s->waiting.count && !s->running.count);
    kv_manager_release(&s->kv);
    free(s->entries);
}

void scheduler_add(struct scheduler *s, struct request *r)
{
    r->status = REQUEST_WAITING;
    list_push_tail(&s->waiting, r);
}

void scheduler_remove(struct scheduler *s, struct request *r)
{
    /* A preempted request waits; whoever has blocks runs. Its status may already say how it ended. */
    bool running = r->num_blocks > 0;
    list_remove(running ? &s->running : &s->waiting, r);
    kv_manager_free(&s->kv, r);
}

static void preempt(struct scheduler *s, struct request *r)
{
    list_remove(&s->running, r);
    kv_manager_free(&s->kv, r);
    r->num_computed_tokens = 0;
    r->status = REQUEST_PREEMPTED;
    r->num_preemptions++;
    s->num_preemptions++;
    list_push_head(&s->waiting, r);
}

/* Adds up to *budget tokens of r to the step, if their slots can be had, after those of the cached blocks that
 * kv_manager_get_computed_blocks has just found for it. */
static bool add_to_step(struct scheduler *s, struct request *r, int64_t num_new_computed_blocks,
                        struct sched_output *out, int *budget)
{
    int64_t first = r->num_computed_tokens + num_new_computed_blocks * s->kv.block_size;
    int64_t left = r->num_tokens - first;
    int n = left < *budget ? (int)left : *budget;
    assert(n > 0);
    if (!kv_manager_allocate_slots(&s->kv, r, num_new_computed_blocks, first + n))
        return false;
    out->entries[out->num_entries++] = (struct sched_entry){r, first, n};
    out->num_tokens += n;
    *budget -= n;
    r->num_computed_tokens = first + n;
    return true;
}

/* Lets r, the first of those that wait, run. Its prefix is looked up again each time: blocks come and go. */
static bool admit(struct scheduler *s, struct request *r, struct sched_output *out, int *budget)
{
    if (s->kv.pool.num_free == 0) /* the last token is never found, so it takes a block at least */
        return false;
    int64_t num_new_computed_blocks = kv_manager_get_computed_blocks(&s->kv, r);
    if (!add_to_step(s, r, num_new_computed_blocks, out, budget))
        return false;
    list_remove(&s->waiting, r);
    list_push_tail(&s->running, r);
    r->status = REQUEST_RUNNING;
    if (r->num_preemptions == 0 && s->kv.cache_kind && request_reads_prefix_cache(r)) {
        r->num_cached_tokens = num_new_computed_blocks * s->kv.block_size;
        s->prefix_cache_queries += (uint64_t)r->num_tokens;
        s->prefix_cache_hits += (uint64_t)r->num_cached_tokens;
    }
    return true;
}

struct sched_output scheduler_schedule(struct scheduler *s)
{
    struct sched_output out = {.entries = s->entries};
    int budget = s->max_num_batched_tokens;
    bool preempted = false;
    struct request *next;
    for (struct request *r = s->running.head; r && budget > 0; r = next) {
        bool self = false;
        while (!self && !add_to_step(s, r, 0, &out, &budget)) {
            struct request *last = s->running.tail;
            self = last == r;
            preempt(s, last);
            preempted = true;
        }
        next = self ? NULL : r->next;
    }
    /* Who was just put out must not be let in again by the blocks that it freed for others. */
    while (!preempted && budget > 0 && s->waiting.head && s->running.count < s->max_num_seqs)
        if (!admit(s, s->waiting.head, &out, &budget))
            break;
    return out;
}

void scheduler_update_from_output(struct scheduler *s, const struct sched_output *out)
{
    for (int i = 0; i < out->num_entries; i++) {
        const struct sched_entry *e = &out->entries[i];
        kv_manager_cache_blocks(&s->kv, e->request, e->first_token + e->num_tokens);
    }
}
