/* The loops of peak.h over a tier's vectors. A file of a tier defines
 *   VEC_BYTES; INT8_DOT and F32_FMA, which add one vector's products to acc; before it includes this (or PEAK_OWN_INT8,
 *   when it has a loop of its own for integers).
 * The sums are assembly: a compiler that sees the same operands again would multiply once. */
#include "kernel/peak.h"

#include <string.h>

typedef int32_t peak_i32 __attribute__((vector_size(VEC_BYTES)));
typedef uint64_t peak_u64 __attribute__((vector_size(VEC_BYTES)));
typedef float peak_f32 __attribute__((vector_size(VEC_BYTES)));

/* Twelve: more than the latency of the sums needs, and as many as fit 16 registers beside the operands. */
#define EACH_ACC(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
enum { NUM_ACC = 12 };

#ifndef PEAK_OWN_INT8
static int64_t int8_loop(const uint8_t *pa, const int8_t *pb, int64_t rounds)
{
    peak_i32 a, b, ones = (peak_i32){0} + 0x00010001, t;
    memcpy(&a, pa, VEC_BYTES);
    memcpy(&b, pb, VEC_BYTES);
#define DECLARE(i) peak_i32 c##i = {0};
    EACH_ACC(DECLARE)
#undef DECLARE
    for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) INT8_DOT(c##i, a, b, ones, t);
        EACH_ACC(STEP)
#undef STEP
    }
    (void)ones;
    (void)t;
    int64_t sum = 0;
#define ADD(i)                                                                                                         \
    for (int j = 0; j < VEC_BYTES / 4; j++)                                                                            \
        sum += c##i[j];
    EACH_ACC(ADD)
#undef ADD
    return sum;
}
#endif

static double f32_loop(const float *pa, const float *pb, int64_t rounds)
{
    peak_f32 a, b;
    memcpy(&a, pa, VEC_BYTES);
    memcpy(&b, pb, VEC_BYTES);
#define DECLARE(i) peak_f32 c##i = {0};
    EACH_ACC(DECLARE)
#undef DECLARE
    for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) F32_FMA(c##i, a, b);
        EACH_ACC(STEP)
#undef STEP
    }
    double sum = 0;
#define ADD(i)                                                                                                         \
    for (int j = 0; j < VEC_BYTES / 4; j++)                                                                            \
        sum += (double)c##i[j];
    EACH_ACC(ADD)
#undef ADD
    return sum;
}

static inline void read_256(peak_u64 acc[4], const uint8_t *p)
{
    const peak_u64 *v = (const peak_u64 *)(const void *)p;
    for (int i = 0; i < 256 / VEC_BYTES; i++)
        acc[i % 4] += v[i];
}

static uint64_t read_loop(const void *p, size_t bytes, int streams)
{
    peak_u64 acc[4] = {0};
    switch (streams) { /* constants, so that the inner loop unrolls */
    case 1:
        PEAK_READ_STREAMS(read_256, acc, p, bytes, 1);
        break;
    case 2:
        PEAK_READ_STREAMS(read_256, acc, p, bytes, 2);
        break;
    case 4:
        PEAK_READ_STREAMS(read_256, acc, p, bytes, 4);
        break;
    default:
        PEAK_READ_STREAMS(read_256, acc, p, bytes, 8);
        break;
    }
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < VEC_BYTES / 8; j++)
            sum += acc[i][j];
    return sum;
}

#define PEAK_OPS                                                                                                       \
    {                                                                                                                  \
        .int8_macs = NUM_ACC * VEC_BYTES, .f32_macs = NUM_ACC * VEC_BYTES / 4, .int8 = int8_loop, .f32 = f32_loop,     \
        .read = read_loop,                                                                                             \
    }
