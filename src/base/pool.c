/* Worker pool: see pool.h. A run is a new value of `epoch`; its end is a barrier. */
#include "base/pool.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/topology.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 4000

/* How many items of a worker's slice have been taken: the phase it is about, and their number. */
struct taken {
    _Alignas(64) _Atomic uint64_t count;
};

struct pool {
    int num_workers;
    pthread_t *threads;  /* (num_workers - 1) */
    struct taken *taken; /* (num_workers) */
    pool_fn *fn;
    void *arg;
    bool quit;
    _Alignas(64) _Atomic uint32_t epoch;    /* counts runs */
    _Alignas(64) _Atomic uint32_t arrived;  /* at the barrier now */
    _Alignas(64) _Atomic uint32_t phase;    /* counts barriers passed */
    _Alignas(64) _Atomic uint32_t sleepers; /* in a futex wait, on either word */
};

struct start {
    struct pool *pool;
    int worker, num_workers; /* as asked for: pool->num_workers still grows */
};

static void wait_change(struct pool *pool, _Atomic uint32_t *word, uint32_t old)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old)
            return;
        cpu_relax();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(word) == old)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void change(struct pool *pool, _Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    if (atomic_load(&pool->sleepers))
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void pool_barrier(struct pool *pool)
{
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (pool->num_workers == 1) {
        atomic_store_explicit(&pool->phase, phase + 1, memory_order_relaxed);
        return;
    }
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == (uint32_t)pool->num_workers) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        change(pool, &pool->phase);
    } else {
        wait_change(pool, &pool->phase, phase);
    }
}

static void *worker_main(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    topology_bind_worker(s.worker, s.num_workers);
    for (uint32_t epoch = 0;; epoch++) {
        wait_change(s.pool, &s.pool->epoch, epoch);
        if (s.pool->quit)
            return NULL;
        s.pool->fn(s.pool->arg, s.worker, s.pool->num_workers);
        pool_barrier(s.pool);
    }
}

struct pool *pool_new(int num_workers)
{
    struct pool *pool = aligned_alloc(64, (sizeof(*pool) + 63) / 64 * 64);
    if (!pool)
        return NULL;
    *pool = (struct pool){.num_workers = 1};
    pool->taken = aligned_alloc(64, (size_t)num_workers * sizeof(*pool->taken));
    if (!pool->taken) {
        free(pool);
        return NULL;
    }
    memset(pool->taken, 0xff, (size_t)num_workers * sizeof(*pool->taken)); /* no phase that comes soon */
    pool->threads = mem_calloc((size_t)num_workers, sizeof(*pool->threads));
    /* Signals belong to the main program: workers block them all. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool ok = true;
    for (int i = 1; i < num_workers && ok; i++) {
        struct start *s = mem_alloc(sizeof(*s));
        *s = (struct start){pool, i, num_workers};
        ok = pthread_create(&pool->threads[i - 1], NULL, worker_main, s) == 0;
        if (ok)
            pool->num_workers++;
        else
            free(s);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!ok) {
        pool_free(pool);
        return NULL;
    }
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pool->quit = true;
    change(pool, &pool->epoch);
    for (int i = 0; i + 1 < pool->num_workers; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    free(pool->taken);
    free(pool);
}

int pool_num_workers(const struct pool *pool)
{
    return pool->num_workers;
}

void pool_run(struct pool *pool, pool_fn *fn, void *arg)
{
    pool->fn = fn;
    pool->arg = arg;
    change(pool, &pool->epoch);
    fn(arg, 0, pool->num_workers);
    pool_barrier(pool);
}

static void turn_of(struct pool_turn *turn, int victim)
{
    turn->victim = victim;
    pool_slice(turn->n, 1, victim, turn->pool->num_workers, &turn->begin, &turn->end);
}

void pool_turn_begin(struct pool_turn *turn, struct pool *pool, int worker, int n, int most)
{
    *turn = (struct pool_turn){.pool = pool, .worker = worker, .n = n, .most = most};
    turn->phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    turn_of(turn, worker);
}

/* The next piece of the victim's slice. */
static bool turn_take(struct pool_turn *turn, int *ret_begin, int *ret_end)
{
    _Atomic uint64_t *count = &turn->pool->taken[turn->victim].count;
    uint64_t old = atomic_load_explicit(count, memory_order_relaxed), next;
    do {
        uint32_t taken = old >> 32 == turn->phase ? (uint32_t)old : 0; /* nobody has begun on it */
        int left = turn->end - turn->begin - (int)taken;
        if (left <= 0)
            return false;
        *ret_begin = turn->end - left;
        *ret_end = *ret_begin + MIN(MAX(left / 2, 1), turn->most);
        next = (uint64_t)turn->phase << 32 | (uint32_t)(*ret_end - turn->begin);
    } while (!atomic_compare_exchange_weak_explicit(count, &old, next, memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool pool_turn_next(struct pool_turn *turn, int *ret_begin, int *ret_end)
{
    int n = turn->pool->num_workers;
    while (!turn_take(turn, ret_begin, ret_end)) {
        int next = (turn->victim + 1) % n;
        if (next == turn->worker)
            return false;
        turn_of(turn, next);
    }
    return true;
}
