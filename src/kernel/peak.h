/* What this machine can do at most: the limits that the figures of kernels and of whole runs stand beside. Measured,
 * not looked up, with all workers at once, because clocks and memory controllers are shared. Any thread. */
#ifndef OCTAVO_KERNEL_PEAK_H
#define OCTAVO_KERNEL_PEAK_H

#include "base/cpu.h"
#include "base/err.h"
#include "base/pool.h"

#include <stddef.h>
#include <stdint.h>

/* Per second, all workers together. */
struct machine_peak {
    double int8_macs;  /* u8 x s8 multiply-adds into int32, with the instructions of the tier */
    double f32_macs;   /* float32 multiply-adds */
    double read_bytes; /* read from memory, far more than the caches hold */
};

/* Takes about `seconds` for each of the three, and the best repetition: what else runs on the machine only slows. Maps
 * 512 MiB for a while, or four times the last-level caches; fails when that memory is not there. */
int machine_peak_measure(struct pool *pool, enum cpu_isa isa, double seconds, struct machine_peak *ret,
                         struct octavo_error *err);

/* Each limit of *a becomes the better of the two. */
void machine_peak_max(struct machine_peak *a, const struct machine_peak *b);

/* ---- the loops of a tier ---- */

/* A round is a fixed number of multiply-adds on independent accumulators. a and b are 64 bytes, used over and over; the
 * sum of all accumulators comes back, so that no product can be left out. */
struct peak_ops {
    int int8_macs, f32_macs; /* of a round */
    int64_t (*int8)(const uint8_t *a, const int8_t *b, int64_t rounds);
    double (*f32)(const float *a, const float *b, int64_t rounds);
    /* Reads p (bytes, a multiple of 256 * streams; 64-byte aligned) as streams runs side by side, 1, 2, 4 or 8 of them,
     * and returns the sum of its 64-bit words. */
    uint64_t (*read)(const void *p, size_t bytes, int streams);
};

#define PEAK_MAX_STREAMS 8

extern const struct peak_ops peak_ref;
/* Where kernel_ops_get has them. */
extern const struct peak_ops peak_avx2, peak_avx512, peak_avxvnni, peak_avx512vnni, peak_avx512amx, peak_dotprod,
    peak_i8mm;
const struct peak_ops *peak_ops_get(enum cpu_isa isa);

/* read, from a function that reads 256 bytes at p into a tier's accumulators. */
#define PEAK_READ_STREAMS(READ, acc, p, bytes, streams)                                                                \
    for (size_t part_ = (bytes) / (size_t)(streams), at_ = 0; at_ < part_; at_ += 256)                                 \
        for (int s_ = 0; s_ < (streams); s_++)                                                                         \
    READ((acc), (const uint8_t *)(p) + (size_t)s_ * part_ + at_)

#endif
