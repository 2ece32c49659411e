/* Measuring limits: see peak.h. The loops of the reference tier are here as well, in plain C. */
#include "kernel/peak.h"

#include "base/mem.h"
#include "base/topology.h"

#include <string.h>
#include <time.h>

#define MIN_BUFFER ((size_t)512 << 20)
#define REPETITION_SECONDS 0.1
#define NUM_REPETITIONS 3 /* at least */

/* ---- plain C ---- */

enum { REF_LANES = 32, REF_PASSES = 16 };

/* Not const to the compiler: it may not multiply once and add the product again. */
#define FORGET(p) __asm__ volatile("" : "+r"(p) : : "memory")

static int64_t int8_ref(const uint8_t *a, const int8_t *b, int64_t rounds)
{
    uint32_t acc = 0; /* wraps */
    for (int64_t r = 0; r < rounds; r++)
        for (int pass = 0; pass < REF_PASSES; pass++) {
            FORGET(a);
            FORGET(b);
            for (int i = 0; i < 64; i++)
                acc += (uint32_t)(a[i] * b[i]);
        }
    return (int32_t)acc;
}

static double f32_ref(const float *a, const float *b, int64_t rounds)
{
    float acc[REF_LANES] = {0};
    for (int64_t r = 0; r < rounds; r++)
        for (int pass = 0; pass < REF_PASSES; pass++) {
            FORGET(a);
            FORGET(b);
            for (int i = 0; i < REF_LANES; i++)
                acc[i] += a[i % 16] * b[i % 16];
        }
    double sum = 0;
    for (int i = 0; i < REF_LANES; i++)
        sum += (double)acc[i];
    return sum;
}

static inline void read_256(uint64_t acc[4], const uint8_t *p)
{
    uint64_t w[32];
    memcpy(w, p, sizeof(w));
    for (int i = 0; i < 32; i++)
        acc[i % 4] += w[i];
}

static uint64_t read_ref(const void *p, size_t bytes, int streams)
{
    uint64_t acc[4] = {0};
    PEAK_READ_STREAMS(read_256, acc, p, bytes, streams);
    return acc[0] + acc[1] + acc[2] + acc[3];
}

const struct peak_ops peak_ref = {
    .int8_macs = 64 * REF_PASSES,
    .f32_macs = REF_LANES * REF_PASSES,
    .int8 = int8_ref,
    .f32 = f32_ref,
    .read = read_ref,
};

const struct peak_ops *peak_ops_get(enum cpu_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case CPU_ISA_AVX2:
        return &peak_avx2;
    case CPU_ISA_AVX512:
        return &peak_avx512;
    case CPU_ISA_AVXVNNI:
        return &peak_avxvnni;
    case CPU_ISA_AVX512VNNI:
        return &peak_avx512vnni;
    case CPU_ISA_AVX512AMX:
        return &peak_avx512amx;
#elif defined(__aarch64__)
    case CPU_ISA_DOTPROD:
        return &peak_dotprod;
    case CPU_ISA_I8MM:
        return &peak_i8mm;
#endif
    default:
        return &peak_ref;
    }
}

/* ---- measuring ---- */

enum peak_kind { PEAK_INT8, PEAK_F32, PEAK_READ };

/* One repetition; what a worker needs to know. */
struct peak_run {
    const struct peak_ops *ops;
    enum peak_kind kind;
    int64_t rounds;
    uint8_t *buffer;
    size_t slice; /* bytes of buffer for each worker */
    int streams;
    _Atomic uint64_t sink;
    _Alignas(64) uint8_t u8[64];
    _Alignas(64) int8_t s8[64];
    _Alignas(64) float f[2][16];
};

static void peak_worker(void *arg, int worker, int num_workers)
{
    (void)num_workers;
    struct peak_run *run = arg;
    uint64_t sum = 0;
    switch (run->kind) {
    case PEAK_INT8:
        sum = (uint64_t)run->ops->int8(run->u8, run->s8, run->rounds);
        break;
    case PEAK_F32:
        sum = run->ops->f32(run->f[0], run->f[1], run->rounds) > 0;
        break;
    case PEAK_READ:
        for (int64_t r = 0; r < run->rounds; r++)
            sum += run->ops->read(run->buffer + (size_t)worker * run->slice, run->slice, run->streams);
        break;
    }
    run->sink += sum;
}

/* Each worker writes what it will read, so that the pages are near it. */
static void touch_worker(void *arg, int worker, int num_workers)
{
    (void)num_workers;
    struct peak_run *run = arg;
    memset(run->buffer + (size_t)worker * run->slice, worker + 1, run->slice);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The best rate, in rounds of one worker per second. */
static double best_rate(struct pool *pool, struct peak_run *run, double seconds)
{
    double best = 0, begin = now(), want = MIN(REPETITION_SECONDS, seconds / NUM_REPETITIONS);
    run->rounds = 1;
    for (int full = 0; full < NUM_REPETITIONS || now() - begin < seconds;) {
        double start = now();
        pool_run(pool, peak_worker, run);
        double took = now() - start;
        if (took < want && run->rounds < INT64_MAX / 4) { /* grow towards the wanted length */
            double factor = took > 0 ? want / took * 1.1 : 2;
            run->rounds = (int64_t)((double)run->rounds * MIN(MAX(factor, 1.1), 100)) + 1;
            continue;
        }
        full++;
        best = MAX(best, (double)run->rounds / took);
    }
    return best;
}

int machine_peak_measure(struct pool *pool, enum cpu_isa isa, double seconds, struct machine_peak *ret,
                         struct octavo_error *err)
{
    int n = pool_num_workers(pool);
    struct peak_run run = {.ops = peak_ops_get(isa)};
    for (int i = 0; i < 64; i++) { /* bits that change, as those of real operands do */
        run.u8[i] = (uint8_t)(i * 151 + 17);
        run.s8[i] = (int8_t)(i * 89 % 251 - 125);
        run.f[0][i % 16] = (float)(i * 37 % 61 - 30) / 31;
        run.f[1][i % 16] = (float)(i * 53 % 59 - 29) / 31;
    }
    run.slice =
        MAX(MIN_BUFFER, 4 * topology_l3_bytes()) / (size_t)n / (256 * PEAK_MAX_STREAMS) * (256 * PEAK_MAX_STREAMS);
    size_t bytes = run.slice * (size_t)n;
    run.buffer = mem_available() > bytes ? mem_map(bytes) : NULL;
    if (!run.buffer)
        return error_set(err, OCTAVO_ENOMEM,
                         "measuring this machine's read bandwidth needs %zu MiB, which are not available", bytes >> 20);
    pool_run(pool, touch_worker, &run);

    run.kind = PEAK_INT8;
    ret->int8_macs = best_rate(pool, &run, seconds) * run.ops->int8_macs * n;
    run.kind = PEAK_F32;
    ret->f32_macs = best_rate(pool, &run, seconds) * run.ops->f32_macs * n;
    run.kind = PEAK_READ;
    ret->read_bytes = 0;
    for (run.streams = 1; run.streams <= PEAK_MAX_STREAMS; run.streams *= 2)
        ret->read_bytes = MAX(ret->read_bytes, best_rate(pool, &run, seconds / 4) * (double)bytes);
    mem_unmap(run.buffer, bytes);
    return 0;
}

void machine_peak_max(struct machine_peak *a, const struct machine_peak *b)
{
    a->int8_macs = MAX(a->int8_macs, b->int8_macs);
    a->f32_macs = MAX(a->f32_macs, b->f32_macs);
    a->read_bytes = MAX(a->read_bytes, b->read_bytes);
}
