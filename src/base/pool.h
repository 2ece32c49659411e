/* A pool of compute workers that run one function together (SPMD), with barriers inside. The thread that calls
 * pool_run is worker 0. One pool_run at a time. Waiting spins for a moment, then sleeps on a futex. */
#ifndef OCTAVO_BASE_POOL_H
#define OCTAVO_BASE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;

typedef void pool_fn(void *arg, int worker, int num_workers);

/* num_workers >= 1, the caller included. NULL when threads cannot be started. */
struct pool *pool_new(int num_workers);
void pool_free(struct pool *pool);
int pool_num_workers(const struct pool *pool);
/* Runs fn on every worker and returns when all have. */
void pool_run(struct pool *pool, pool_fn *fn, void *arg);
/* Inside fn: returns when every worker has called it. */
void pool_barrier(struct pool *pool);

/* The part [*ret_begin, *ret_end) of n items that is worker's, in multiples of grain. */
static inline void pool_slice(int n, int grain, int worker, int num_workers, int *ret_begin, int *ret_end)
{
    int pieces = (n + grain - 1) / grain;
    int begin = (int)((long long)pieces * worker / num_workers) * grain;
    int end = (int)((long long)pieces * (worker + 1) / num_workers) * grain;
    *ret_begin = begin < n ? begin : n;
    *ret_end = end < n ? end : n;
}

/* Shares out n items between two barriers: a worker takes its own slice, piece by piece, and then pieces of those who
 * are behind, because a core is slower, or has other work as well. A piece is half of what is left of a slice, at most
 * `most` items. Which worker an item goes to is up to chance. Inside fn, by every worker with the same numbers, at most
 * once between two barriers. */
struct pool_turn {
    struct pool *pool;
    int worker, n, most;
    int victim, begin, end; /* whose slice is taken from, and the slice */
    uint32_t phase;
};
void pool_turn_begin(struct pool_turn *turn, struct pool *pool, int worker, int n, int most);
/* The next piece; false when nothing is left. */
bool pool_turn_next(struct pool_turn *turn, int *ret_begin, int *ret_end);

#endif
