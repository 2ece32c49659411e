/* Who runs in the next step, and how many tokens each. There are no prefill and decode phases: every request lets
 * num_computed_tokens catch up with num_tokens under one token budget (vLLM V1's rule). First come, first served;
 * when blocks run out the last to come gives its own back and is computed again later. Knows no model, no threads and
 * no clock. A request that comes in starts after what the prefix cache has of it. Engine thread only. */
#ifndef OCTAVO_ENGINE_SCHEDULER_H
#define OCTAVO_ENGINE_SCHEDULER_H

#include "engine/kv_manager.h"
#include "engine/request.h"

struct sched_entry {
    struct request *request;
    int64_t first_token; /* index of the first token to compute */
    int num_tokens;
};

/* What sched_schedule decided; the arrays belong to the scheduler and last until its next call. */
struct sched_output {
    struct sched_entry *entries; /* (num_entries) in order of arrival */
    int num_entries;
    int num_tokens; /* sum of the entries' */
};

struct request_list {
    struct request *head, *tail;
    int64_t count;
};

struct scheduler {
    int max_num_seqs;
    int max_num_batched_tokens;
    struct kv_manager kv;
    struct request_list waiting, running;
    struct sched_entry *entries; /* (max_num_seqs) */
    uint64_t num_preemptions;
    /* Tokens of requests at their first admission that were looked up in the prefix cache, and those found. */
    uint64_t prefix_cache_queries, prefix_cache_hits;
};

void scheduler_init(struct scheduler *s, int max_num_seqs, int max_num_batched_tokens, int64_t num_blocks,
                    int block_size);
/* Turns prefix caching on; cache_kind as in block_hash_root, copied. Before the first request. */
int scheduler_enable_prefix_caching(struct scheduler *s, const char *cache_kind, struct octavo_error *err);
void scheduler_release(struct scheduler *s); /* no request may be left */
/* Queues r, which the scheduler then borrows until scheduler_remove. A request alone must fit in the cache. */
void scheduler_add(struct scheduler *s, struct request *r);
/* Takes a request out, wherever it is, and frees its blocks. */
void scheduler_remove(struct scheduler *s, struct request *r);
/* Decides a step and advances num_computed_tokens of those in it. No entries: nothing can run. */
struct sched_output scheduler_schedule(struct scheduler *s);
/* The step has run: what it wrote may now be read by others. Before any of its requests is removed. */
void scheduler_update_from_output(struct scheduler *s, const struct sched_output *out);

#endif
