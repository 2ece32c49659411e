/* Row kernels against ref: norms, rotation, activation, softmax, quantisation. */
#include "check.h"

#include <stdlib.h>
#include <math.h>
#include <string.h>

static const int sizes[] = {1,  2,  3,  15, 16,  17,  31,  32,  33,  48,   63,
                            64, 65, 80, 96, 127, 128, 129, 255, 256, 1000, 1024};
#define FOR_EACH_SIZE(n) for (size_t i_ = 0, n; i_ < ARRAY_LEN(sizes) && (n = (size_t)sizes[i_], true); i_++)

static struct area copy_of(struct check *c, const struct area *a)
{
    struct area b = check_area(c, a->bytes);
    memcpy(b.p, a->p, a->bytes);
    return b;
}

static void check_rmsnorm(struct check *c)
{
    FOR_EACH_SIZE(n)
    for (int in_place = 0; in_place < 2; in_place++) {
        check_case(c, "n=%zu%s", n, in_place ? ", in place" : "");
        float eps = check_pick(c, 0, 1) ? 1e-6f : 1e-5f;
        struct area x = check_floats(c, n), w = check_floats(c, n), want = copy_of(c, &x), got = copy_of(c, &x);
        c->ref->rmsnorm(want.p, in_place ? want.p : x.p, w.p, (int)n, eps);
        c->ops->rmsnorm(got.p, in_place ? got.p : x.p, w.p, (int)n, eps);
        check_same_f32(c, "y", &want, &got, 0);
    }
}

static void check_rope(struct check *c)
{
    FOR_EACH_SIZE(half)
    {
        check_case(c, "d=%zu", 2 * half);
        struct area cosine = check_floats(c, half), sine = check_floats(c, half), want = check_floats(c, 2 * half);
        struct area got = copy_of(c, &want);
        c->ref->rope(want.p, cosine.p, sine.p, (int)(2 * half));
        c->ops->rope(got.p, cosine.p, sine.p, (int)(2 * half));
        check_same_f32(c, "x", &want, &got, 0);
    }
}

static void check_add(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        check_case(c, "n=%zu", n);
        struct area x = check_floats(c, n), want = check_floats(c, n), got = copy_of(c, &want);
        c->ref->add(want.p, x.p, (int)n);
        c->ops->add(got.p, x.p, (int)n);
        check_same_f32(c, "y", &want, &got, 0);
    }
}

static void check_silu_mul(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        check_case(c, "n=%zu", n);
        struct area gate = check_floats(c, n), up = check_floats(c, n), want = check_area(c, n * 4);
        struct area got = check_area(c, n * 4);
        c->ref->silu_mul(want.p, gate.p, up.p, (int)n);
        c->ops->silu_mul(got.p, gate.p, up.p, (int)n);
        check_same_f32(c, "y", &want, &got, 0);
    }
}

static void check_softmax_stats(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        check_case(c, "n=%zu", n);
        struct area x = check_floats(c, n), want = check_area(c, 8), got = check_area(c, 8);
        c->ref->softmax_stats(x.p, (int)n, want.p, (float *)want.p + 1);
        c->ops->softmax_stats(x.p, (int)n, got.p, (float *)got.p + 1);
        check_same_f32(c, "max, sum", &want, &got, 0);
    }
}

static void check_block_max(struct check *c)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f};
    FOR_EACH_SIZE(n)
    for (size_t o = 0; o <= ARRAY_LEN(odd); o++) {
        check_case(c, "n=%zu%s", n, o < ARRAY_LEN(odd) ? ", one odd number" : "");
        size_t blocks = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
        struct area x = check_floats(c, n), want = check_area(c, blocks * 4), got = check_area(c, blocks * 4);
        if (o < ARRAY_LEN(odd))
            memcpy((float *)x.p + check_random(c) % n, &odd[o], 4);
        c->ref->block_max(want.p, x.p, (int)n);
        c->ops->block_max(got.p, x.p, (int)n);
        check_same_f32(c, "y", &want, &got, 0);
    }
}

static void check_block_sum(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        check_case(c, "n=%zu", n);
        size_t blocks = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
        struct area x = check_floats(c, n), want = check_area(c, blocks * 8), got = check_area(c, blocks * 8);
        c->ref->block_sum(want.p, x.p, (int)n);
        c->ops->block_sum(got.p, x.p, (int)n);
        check_same_bytes(c, "y", &want, &got, 0);
    }
}

static void check_exp_sub(struct check *c)
{
    FOR_EACH_SIZE(n)
    for (int in_place = 0; in_place < 2; in_place++) {
        check_case(c, "n=%zu%s", n, in_place ? ", in place" : "");
        float sub = (float)check_pick(c, -100, 100) / 10;
        struct area x = check_floats(c, n), want = copy_of(c, &x), got = copy_of(c, &x);
        c->ref->exp_sub(want.p, in_place ? want.p : x.p, (int)n, sub);
        c->ops->exp_sub(got.p, in_place ? got.p : x.p, (int)n, sub);
        check_same_f32(c, "y", &want, &got, 0);
    }
}

static void check_quant_dynamic(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        check_case(c, "n=%zu", n);
        size_t padded = (n + 3) / 4 * 4;
        struct area x = check_floats(c, n), want = check_area(c, padded), got = check_area(c, padded);
        struct area want_scale = check_area(c, 4), got_scale = check_area(c, 4);
        c->ref->quant_dynamic(want.p, want_scale.p, x.p, (int)n);
        c->ops->quant_dynamic(got.p, got_scale.p, x.p, (int)n);
        check_same_f32(c, "scale", &want_scale, &got_scale, 0);
        check_same_bytes(c, "xq", &want, &got, 0);
    }
}

static void check_quant_dynamic_asym(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        check_case(c, "n=%zu", n);
        size_t padded = (n + 3) / 4 * 4;
        struct area x = check_floats(c, n), want = check_area(c, padded), got = check_area(c, padded);
        struct area want_row = check_area(c, 8), got_row = check_area(c, 8);
        c->ref->quant_dynamic_asym(want.p, want_row.p, (int32_t *)want_row.p + 1, x.p, (int)n);
        c->ops->quant_dynamic_asym(got.p, got_row.p, (int32_t *)got_row.p + 1, x.p, (int)n);
        check_same_f32(c, "scale, zero", &want_row, &got_row, 0);
        check_same_bytes(c, "xq", &want, &got, 0);
    }
}

static void check_quant_static(struct check *c)
{
    FOR_EACH_SIZE(n)
    {
        float inv = (float)check_pick(c, 1, 600) / 10, offset = (float)check_pick(c, -128, 127);
        check_case(c, "n=%zu, inv_scale=%g, offset=%g", n, (double)inv, (double)offset);
        size_t padded = (n + 3) / 4 * 4;
        struct area x = check_floats(c, n), want = check_area(c, padded), got = check_area(c, padded);
        c->ref->quant_static(want.p, x.p, (int)n, inv, offset);
        c->ops->quant_static(got.p, x.p, (int)n, inv, offset);
        check_same_bytes(c, "xq", &want, &got, 0);
    }
}

/* ---- timing: rows that stream from memory and back ---- */

enum { ROW = 4096 };

struct rows {
    const struct kernel_ops *ops;
    int num_rows;
    float *x, *y, *small; /* (num_rows, ROW), the same, (ROW) */
    uint8_t *xq;          /* (num_rows, ROW) */
    void (*row)(const struct rows *r, float *x, float *y, uint8_t *xq);
};

static void rows_run(void *arg, int iteration, int worker, int num_workers)
{
    (void)iteration;
    const struct rows *r = arg;
    int begin, end;
    pool_slice(r->num_rows, 1, worker, num_workers, &begin, &end);
    for (int i = begin; i < end; i++)
        r->row(r, r->x + (size_t)i * ROW, r->y + (size_t)i * ROW, r->xq + (size_t)i * ROW);
}

/* bytes: of memory that an element is read from and written to. */
static void bench_rows(struct bench *b, void (*row)(const struct rows *, float *, float *, uint8_t *), double bytes)
{
    struct rows r = {.ops = b->ops, .num_rows = bench_copies(ROW * sizeof(float)), .row = row};
    size_t n = (size_t)r.num_rows * ROW;
    r.x = bench_floats(n);
    r.y = bench_floats(n);
    r.small = bench_floats(ROW);
    r.xq = bench_memory(n);
    bench_time(b, &(struct bench_cost){.bytes = bytes * (double)n}, rows_run, &r, "%d rows of %d", r.num_rows, ROW);
    mem_unmap(r.x, n * 4);
    mem_unmap(r.y, n * 4);
    mem_unmap(r.small, ROW * 4);
    mem_unmap(r.xq, n);
}

static void rmsnorm_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    r->ops->rmsnorm(y, x, r->small, ROW, 1e-6f);
}

static void rope_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)y;
    (void)xq;
    for (int head = 0; head < ROW / 128; head++)
        r->ops->rope(x + head * 128, r->small, r->small + 64, 128);
}

static void add_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    r->ops->add(y, x, ROW);
}

static void silu_mul_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    r->ops->silu_mul(y, x, y, ROW);
}

static void softmax_stats_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    (void)y;
    float max, sum;
    r->ops->softmax_stats(x, ROW, &max, &sum);
    __asm__ volatile("" : : "r"(&max), "r"(&sum) : "memory");
}

static void block_max_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    r->ops->block_max(y, x, ROW);
}

static void block_sum_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    r->ops->block_sum((double *)y, x, ROW);
}

static void exp_sub_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)xq;
    r->ops->exp_sub(y, x, ROW, 1.5f);
}

static void quant_dynamic_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)y;
    float scale;
    r->ops->quant_dynamic(xq, &scale, x, ROW);
}

static void quant_dynamic_asym_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)y;
    float scale;
    int32_t zero;
    r->ops->quant_dynamic_asym(xq, &scale, &zero, x, ROW);
}

static void quant_static_row(const struct rows *r, float *x, float *y, uint8_t *xq)
{
    (void)y;
    r->ops->quant_static(xq, x, ROW, 30, -7);
}

#define BENCH(name, bytes)                                                                                             \
    static void bench_##name(struct bench *b)                                                                          \
    {                                                                                                                  \
        bench_rows(b, name##_row, bytes);                                                                              \
    }
BENCH(rmsnorm, 8)
BENCH(rope, 8)
BENCH(add, 12)
BENCH(silu_mul, 12)
BENCH(softmax_stats, 4)
BENCH(block_max, 4)
BENCH(block_sum, 4)
BENCH(exp_sub, 8)
BENCH(quant_dynamic, 5)
BENCH(quant_dynamic_asym, 5)
BENCH(quant_static, 5)

#define ENTRY(name)                                                                                                    \
    {                                                                                                                  \
#name, check_##name, bench_##name                                                                              \
    }
const struct kernel_entry entries_rows[] = {
    ENTRY(rmsnorm),       ENTRY(rope),
    ENTRY(add),           ENTRY(silu_mul),
    ENTRY(softmax_stats), ENTRY(block_max),
    ENTRY(block_sum),     ENTRY(exp_sub),
    ENTRY(quant_dynamic), ENTRY(quant_dynamic_asym),
    ENTRY(quant_static),  {0},
};
