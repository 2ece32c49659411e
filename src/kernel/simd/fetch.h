/* Asking for memory before it is wanted. All lines by one instruction, never unrolled: a CPU looks at the addresses of
 * each instruction for what comes next, and finds most when they follow one another. */
#ifndef OCTAVO_KERNEL_SIMD_FETCH_H
#define OCTAVO_KERNEL_SIMD_FETCH_H

#include "base/cpu.h"
#include "kernel/ops.h"
#include "kernel/simd/math.h"

/* Where to stop, which no compiler may know: it would have an instruction for each line. */
ALWAYS_INLINE const char *fetch_end(const void *p, int bytes)
{
    const char *end = (const char *)p + bytes;
    __asm__("" : "+r"(end));
    return end;
}

/* What is asked for comes into all caches, or into that one alone. */
enum cache { CACHE_ALL, CACHE_L1, CACHE_L2 };

/* Where what is read once is best asked for. Zen 5: it needs no place in L2, nor time to leave it, 43 GB/s a core that
 * way, 38 to 41 otherwise. Zen 4: tiles of K and V from all over the memory 15 GB/s into L2, 8 to 9 into L1 alone. */
static inline enum cache cache_once(void)
{
    return cpu_ahead == CPU_AHEAD_ONCE ? CACHE_L1 : cpu_ahead == CPU_AHEAD_ALONE ? CACHE_L2 : CACHE_ALL;
}

ALWAYS_INLINE void fetch_line(enum cache cache, const void *p)
{
    if (cache == CACHE_L1)
        __builtin_prefetch(p, 0, 0);
    else if (cache == CACHE_L2)
        __builtin_prefetch(p, 0, 2);
    else
        __builtin_prefetch(p);
}

ALWAYS_INLINE void fetch_into(enum cache cache, const void *p, int bytes)
{
    const char *at = p, *end = fetch_end(p, bytes);
    NO_UNROLL
    for (; at < end; at += 64)
        fetch_line(cache, at);
}

ALWAYS_INLINE void fetch_lines(const void *p, int bytes)
{
    fetch_into(CACHE_ALL, p, bytes);
}

ALWAYS_INLINE void fetch_once(const void *p, int bytes)
{
    enum cache cache = cache_once();
    if (cache == CACHE_L1)
        fetch_into(CACHE_L1, p, bytes);
    else if (cache == CACHE_L2)
        fetch_into(CACHE_L2, p, bytes);
    else
        fetch_into(CACHE_ALL, p, bytes);
}

#define FETCH_RUN 8 /* tiles that follow one another, from which on CPU_AHEAD_ALONE finds them sooner by itself */

/* Whether fewer than that follow one another from the one at t0 on; in whole blocks, its own from the beginning on. */
static inline bool fetch_run_is_short(const struct attn_args *a, int64_t t0)
{
    int64_t first = t0 / a->block_size, enough = first + (FETCH_RUN * ATTN_TILE + a->block_size - 1) / a->block_size;
    int64_t last = (attn_end(a, a->tokens - 1) - 1) / a->block_size, i = first + 1;
    while (i < enough && i <= last && a->block_table[i] == a->block_table[i - 1] + 1)
        i++;
    return i < enough;
}

#endif
