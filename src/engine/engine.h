/* Inside the engine: what engine.c (mailboxes, the thread) and engine_open.c (options, sizes, loading) share. */
#ifndef OCTAVO_ENGINE_ENGINE_H
#define OCTAVO_ENGINE_ENGINE_H

#include "engine/model_runner.h"
#include "engine/scheduler.h"
#include "model/model.h"
#include "model/profile.h"

#include <pthread.h>
#include <stdatomic.h>

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
    struct profile profile_seen; /* as of the last step */
    bool abort_pending, quit;
    /* Gauges and counters, written by the engine thread. */
    bool profiling;
    struct profile profile; /* engine thread only */
    _Atomic int64_t running, waiting;
    _Atomic int64_t blocks_used;
    _Atomic uint64_t prompt_tokens, generation_tokens, finished, steps, preemptions, prefix_cache_queries,
        prefix_cache_hits;
};

/* Runs scheduler and model until engine->quit; arg is the engine. */
void *engine_main(void *arg);

#endif
