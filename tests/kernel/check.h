/* check_kernels: every kernel of every tier against ref/, bit for bit, and beside the machine's limits. A kernel is one
 * entry in its family's file: a function that runs shapes through struct check, and one that times some. check.c has
 * the program, buffers between guard pages, comparing and timing. */
#ifndef OCTAVO_TESTS_KERNEL_CHECK_H
#define OCTAVO_TESTS_KERNEL_CHECK_H

#include "base/mem.h"
#include "base/pool.h"
#include "kernel/ops.h"
#include "kernel/peak.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct check;
struct bench;

struct kernel_entry {
    const char *name; /* as in kernels.def */
    void (*check)(struct check *c);
    void (*bench)(struct bench *b);
};

extern const struct kernel_entry entries_gemm[], entries_attention[], entries_rows[]; /* end with a NULL name */

/* ---- checking ---- */

/* What inputs look like in a case. */
enum pattern {
    PATTERN_MIXED,   /* ordinary values with zeros, -0, large and tiny ones among them */
    PATTERN_ZERO,    /* all zero */
    PATTERN_EXTREME, /* integers at one end of their range, floats large: the largest sums */
    PATTERN_HOT,     /* ordinary, and one value in a hundred large */
    PATTERN_COUNT,
};

struct check {
    const struct kernel_ops *ops, *ref; /* under test, and what it has to equal */
    enum pattern pattern;               /* of the case */
};

/* Bytes with a page that faults right behind them, or, in every other round, right before them. They begin at any
 * address that their elements allow. */
struct area {
    void *p;
    size_t bytes;
};

/* A new case, named by its shape; what the last one allocated is gone. */
void check_case(struct check *c, const char *shape, ...) __attribute__((format(printf, 2, 3)));
uint32_t check_random(struct check *c);
int check_pick(struct check *c, int lo, int hi);       /* lo..hi, both included */
struct area check_area(struct check *c, size_t bytes); /* filled with 0xa5 */
struct area check_floats(struct check *c, size_t n);   /* of the case's pattern */
struct area check_uniform(struct check *c, size_t n);  /* floats in -1..1, whatever the pattern */
struct area check_u8(struct check *c, size_t n);
struct area check_i8(struct check *c, size_t n);
struct area check_i32(struct check *c, size_t n);                     /* within +-1000 */
struct area check_weights(struct check *c, size_t n, int elem_bytes); /* bf16 and f16 (2) or f32 (4), all finite */
/* A failure names kernel, tier, shape and the first element that differs; row: elements of a row, 0 for one row. */
void check_same_f32(struct check *c, const char *what, const struct area *want, const struct area *got, size_t row);
void check_same_bytes(struct check *c, const char *what, const struct area *want, const struct area *got, size_t row);
void check_true(struct check *c, bool ok, const char *what);

/* ---- timing ---- */

struct bench {
    const struct kernel_ops *ops;
    int max_workers;
};

/* What an ideal machine needs for one call by all workers together. */
struct bench_cost {
    double macs;
    bool integer; /* int8 multiply-adds; else float32 ones */
    double bytes; /* read from memory or written to it */
};

/* The part of a call that is worker's; iteration counts calls, so that they can walk through memory. */
typedef void bench_fn(void *arg, int iteration, int worker, int num_workers);
/* Times calls of fn on one worker and on all, and prints them as shares of the limits. */
void bench_time(struct bench *b, const struct bench_cost *cost, bench_fn *fn, void *arg, const char *shape, ...)
    __attribute__((format(printf, 5, 6)));
/* Copies of something that together are far larger than the caches; at least 1. */
int bench_copies(size_t bytes);
/* Memory of random bytes from mem_map, with its pages in place; the program ends when it is refused. */
void *bench_memory(size_t bytes);
/* The same, of n floats in -1..1. */
float *bench_floats(size_t n);

#endif
