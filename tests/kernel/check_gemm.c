/* GEMMs against ref: float weights, integer ones with every epilogue, two weights in a byte, float activations. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

/* rows, k, n */
static const int shapes[][3] = {{1, 1, 1},      {1, 16, 31},   {2, 7, 32},     {3, 64, 33},   {4, 100, 48},
                                {8, 33, 64},    {9, 80, 97},   {12, 33, 64},   {13, 80, 97},  {16, 136, 64},
                                {29, 1000, 17}, {65, 48, 40},  {70, 17, 95},   {97, 48, 40},  {131, 20, 65},
                                {50, 520, 40},  {2, 33000, 8}, {17, 1300, 40}, {24, 2084, 33}};

/* y with a gap behind each row, which has to stay as it is. */
static struct area area_y(struct check *c, int rows, size_t ldy, int n)
{
    return check_area(c, ((size_t)(rows - 1) * ldy + (size_t)n) * 4);
}

/* ---- float weights ---- */

typedef void gemm_fn(float *y, size_t ldy, const float *x, size_t ldx, int rows, const void *w, int k, int n,
                     int panel_begin, int panel_end, const float *bias);

static void check_float(struct check *c, int elem_bytes, gemm_fn *ref, gemm_fn *fn)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            int m = shapes[s][0], k = shapes[s][1], n = shapes[s][2], panels = (n + GEMM_NR - 1) / GEMM_NR;
            check_case(c, "rows=%d k=%d n=%d%s", m, k, n, with_bias ? " bias" : "");
            size_t ldx = (size_t)k + 3, ldy = (size_t)n + 5;
            struct area x = check_floats(c, (size_t)(m - 1) * ldx + (size_t)k);
            struct area w = check_weights(c, gemm_packed_elems(n, k), elem_bytes), bias = check_floats(c, (size_t)n);
            struct area want = area_y(c, m, ldy, n), got = area_y(c, m, ldy, n);
            const float *b = with_bias ? bias.p : NULL;
            ref(want.p, ldy, x.p, ldx, m, w.p, k, n, 0, panels, b);
            fn(got.p, ldy, x.p, ldx, m, w.p, k, n, 0, panels / 2, b); /* in two calls, as two workers would */
            fn(got.p, ldy, x.p, ldx, m, w.p, k, n, panels / 2, panels, b);
            check_same_f32(c, "y", &want, &got, ldy);
        }
}

static void check_gemm_bf16(struct check *c)
{
    check_float(c, 2, c->ref->gemm_bf16, c->ops->gemm_bf16);
}

static void check_gemm_f16(struct check *c)
{
    check_float(c, 2, c->ref->gemm_f16, c->ops->gemm_f16);
}

static void check_gemm_f32(struct check *c)
{
    check_float(c, 4, c->ref->gemm_f32, c->ops->gemm_f32);
}

/* ---- integer weights and activations ---- */

enum { WITH_ROW_SCALE = 1, WITH_BIAS = 2, WITH_COL_ADD = 4, WITH_ROW_ZERO = 8, WITH_COL_ZERO = 16, WITH_SWIGLU = 32 };

static size_t packed_at(int k4, int j, int k)
{
    return ((size_t)(j / GEMM_NR) * (size_t)k4 + (size_t)(k / 4 * 4)) * GEMM_NR + (size_t)(j % GEMM_NR * 4 + k % 4);
}

/* Everything but y and w, of which sums are taken; padding beyond k is zero. */
static struct gemm_i8_args integer_args(struct check *c, int rows, int k, int k4, int n, unsigned with, int8_t *w)
{
    int nr = with & WITH_SWIGLU ? SWIGLU_NR : GEMM_NR, cols = (n + nr - 1) / nr * GEMM_NR;
    struct gemm_i8_args a = {.ldy = (size_t)n + 3,
                             .ldx = (size_t)k4 + 4,
                             .rows = rows,
                             .k4 = k4,
                             .n = n,
                             .swiglu = (with & WITH_SWIGLU) != 0,
                             .w = w};
    struct area x = check_u8(c, (size_t)(rows - 1) * a.ldx + (size_t)k4), w_sum = check_area(c, (size_t)cols * 4);
    int32_t *sum = w_sum.p;
    for (int j = 0; j < cols; j++) {
        sum[j] = 0;
        for (int i = 0; i < k4; i++) {
            int8_t *q = &w[packed_at(k4, j, i)];
            *q = i < k ? *q : 0;
            sum[j] += *q;
        }
    }
    a.x = x.p;
    a.w_sum = sum;
    a.col_scale = check_floats(c, (size_t)cols).p;
    if (with & WITH_ROW_SCALE)
        a.row_scale = check_floats(c, (size_t)rows).p;
    if (with & WITH_BIAS)
        a.bias = check_floats(c, (size_t)cols).p;
    if (with & WITH_COL_ADD)
        a.col_add = check_i32(c, (size_t)cols).p;
    if (with & WITH_ROW_ZERO) {
        a.row_zero = check_i32(c, (size_t)rows).p;
        a.col_sum = check_i32(c, (size_t)cols).p;
    }
    if (with & WITH_COL_ZERO) {
        a.col_zero = check_i32(c, (size_t)cols).p;
        a.row_sum = check_i32(c, (size_t)rows).p;
    }
    return a;
}

static void integer_case(struct check *c, int rows, int k, int n, unsigned with)
{
    check_case(c, "rows=%d k=%d n=%d%s%s%s%s%s%s", rows, k, n, with & WITH_SWIGLU ? " swiglu" : "",
               with & WITH_ROW_SCALE ? " row_scale" : "", with & WITH_BIAS ? " bias" : "",
               with & WITH_COL_ADD ? " col_add" : "", with & WITH_ROW_ZERO ? " row_zero" : "",
               with & WITH_COL_ZERO ? " col_zero" : "");
}

static int num_panels(int n, unsigned with)
{
    int nr = with & WITH_SWIGLU ? SWIGLU_NR : GEMM_NR;
    return (n + nr - 1) / nr;
}

static void check_gemm_i8(struct check *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (unsigned with = 0; with < 64; with += 1 + (unsigned)check_pick(c, 0, 2)) {
            int rows = shapes[s][0], k = shapes[s][1], n = shapes[s][2], k4 = (k + 3) / 4 * 4;
            int panels = num_panels(n, with);
            integer_case(c, rows, k, n, with);
            struct area w = check_i8(c, (size_t)panels * GEMM_NR * (size_t)k4);
            struct gemm_i8_args a = integer_args(c, rows, k, k4, n, with, w.p);
            struct area want = area_y(c, rows, a.ldy, n), got = area_y(c, rows, a.ldy, n);
            a.y = want.p;
            c->ref->gemm_i8(&a, 0, panels);
            a.y = got.p;
            c->ops->gemm_i8(&a, 0, panels / 2);
            c->ops->gemm_i8(&a, panels / 2, panels);
            check_same_f32(c, "y", &want, &got, a.ldy);
        }
}

/* Against gemm_i8 of the reference on the same weights, a byte each; ref's own gemm_w4a8 as well. */
static void check_gemm_w4a8(struct check *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (unsigned with = 0; with < 64; with += 1 + (unsigned)check_pick(c, 0, 4)) {
            int rows = shapes[s][0], k = shapes[s][1], n = shapes[s][2], k8 = (k + 7) / 8 * 8;
            int panels = num_panels(n, with), cols = panels * GEMM_NR;
            integer_case(c, rows, k, n, with);
            struct area w8 = check_i8(c, (size_t)cols * (size_t)k8), w4 = check_area(c, w8.bytes / 2);
            int8_t *wide = w8.p;
            for (size_t i = 0; i < w8.bytes; i++)
                wide[i] = (int8_t)(wide[i] >> 4);
            struct gemm_i8_args a = integer_args(c, rows, k, k8, n, with, wide);
            for (int j = 0; j < cols; j++)
                for (int i = 0; i < k8; i += 8)
                    for (int b = 0; b < 4; b++)
                        ((uint8_t *)w4.p)[((size_t)(j / GEMM_NR) * (size_t)k8 / 8 + (size_t)(i / 8)) * GEMM_NR * 4 +
                                          (size_t)(j % GEMM_NR * 4 + b)] =
                            (uint8_t)((wide[packed_at(k8, j, i + b)] + 8) | (wide[packed_at(k8, j, i + 4 + b)] + 8)
                                                                                << 4);
            struct area want = area_y(c, rows, a.ldy, n), ref = area_y(c, rows, a.ldy, n);
            struct area got = area_y(c, rows, a.ldy, n);
            a.y = want.p;
            c->ref->gemm_i8(&a, 0, panels);
            a.w = w4.p;
            a.y = ref.p;
            c->ref->gemm_w4a8(&a, 0, panels);
            check_same_f32(c, "y of ref", &want, &ref, a.ldy);
            a.y = got.p;
            c->ops->gemm_w4a8(&a, 0, panels / 2);
            c->ops->gemm_w4a8(&a, panels / 2, panels);
            check_same_f32(c, "y", &want, &got, a.ldy);
        }
}

/* ---- integer weights, float activations ---- */

static const int group_sizes[] = {32, 128, 4, 64, 1, 13, 8, 1000};

/* Everything but y and w. */
static struct gemm_w8a16_args weight_only_args(struct check *c, int rows, int k, int n, int group, unsigned with)
{
    int panels = num_panels(n, 0), groups = (k + group - 1) / group;
    size_t per_column = (size_t)panels * (size_t)groups * GEMM_NR;
    struct gemm_w8a16_args a = {.ldy = (size_t)n + 2,
                                .ldx = (size_t)k + 1,
                                .rows = rows,
                                .k = k,
                                .n = n,
                                .group_size = group,
                                .x = check_floats(c, (size_t)(rows - 1) * ((size_t)k + 1) + (size_t)k).p,
                                .scale = check_floats(c, per_column).p};
    if (with & 1)
        a.zero = check_floats(c, per_column).p;
    if (with & 2)
        a.bias = check_floats(c, (size_t)n).p;
    return a;
}

typedef void weight_only_fn(const struct gemm_w8a16_args *, int, int);

static void weight_only_same(struct check *c, struct gemm_w8a16_args *a, const struct area *want, weight_only_fn *fn,
                             const char *what)
{
    struct area got = area_y(c, a->rows, a->ldy, a->n);
    int panels = num_panels(a->n, 0);
    a->y = got.p;
    fn(a, 0, panels / 2);
    fn(a, panels / 2, panels);
    check_same_f32(c, what, want, &got, a->ldy);
}

static void weight_only_case(struct check *c, int rows, int k, int n, int group, unsigned with)
{
    check_case(c, "rows=%d k=%d n=%d group=%d%s%s", rows, k, n, group, with & 1 ? " zero" : "",
               with & 2 ? " bias" : "");
}

static void check_gemm_w8a16(struct check *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (unsigned with = 0; with < 8; with++) {
            int rows = shapes[s][0], k = shapes[s][1], n = shapes[s][2];
            int group = group_sizes[check_pick(c, 0, ARRAY_LEN(group_sizes) - 1)];
            weight_only_case(c, rows, k, n, group, with);
            struct gemm_w8a16_args a = weight_only_args(c, rows, k, n, group, with);
            struct area want = area_y(c, rows, a.ldy, n);
            a.w = check_i8(c, gemm_packed_elems(n, k)).p;
            a.y = want.p;
            c->ref->gemm_w8a16(&a, 0, num_panels(n, 0));
            weight_only_same(c, &a, &want, c->ops->gemm_w8a16, "y");
        }
}

/* Against gemm_w8a16 of the reference on the same weights, a byte each; ref's own gemm_w4a16 as well. */
static void check_gemm_w4a16(struct check *c)
{
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (unsigned with = 0; with < 8; with++) {
            int rows = shapes[s][0], k = shapes[s][1], n = shapes[s][2], cols = num_panels(n, 0) * GEMM_NR;
            int group = group_sizes[check_pick(c, 0, ARRAY_LEN(group_sizes) - 1)], k8 = (k + 7) / 8 * 8;
            weight_only_case(c, rows, k, n, group, with);
            struct gemm_w8a16_args a = weight_only_args(c, rows, k, n, group, with);
            struct area w8 = check_i8(c, gemm_packed_elems(n, k)), w4 = check_area(c, (size_t)cols * (size_t)k8 / 2);
            struct area want = area_y(c, rows, a.ldy, n);
            memset(w4.p, 0, w4.bytes);
            for (int j = 0; j < cols; j++)
                for (int i = 0; i < k8; i++) {
                    int8_t *wide = (int8_t *)w8.p + ((size_t)(j / GEMM_NR) * (size_t)k + (size_t)i) * GEMM_NR;
                    int q = i < k ? (wide[j % GEMM_NR] >>= 4) : check_pick(c, -8, 7); /* beyond k: not to count */
                    ((uint8_t *)w4.p)[((size_t)(j / GEMM_NR) * (size_t)k8 / 8 + (size_t)(i / 8)) * GEMM_NR * 4 +
                                      (size_t)(j % GEMM_NR * 4 + i % 4)] |= (uint8_t)((q + 8) << (i % 8 < 4 ? 0 : 4));
                }
            a.w = w8.p;
            a.y = want.p;
            c->ref->gemm_w8a16(&a, 0, num_panels(n, 0));
            a.w = w4.p;
            weight_only_same(c, &a, &want, c->ref->gemm_w4a16, "y of ref");
            weight_only_same(c, &a, &want, c->ops->gemm_w4a16, "y");
        }
}

/* ---- timing ---- */

enum gemm_kind { GEMM_FLOAT, GEMM_I8, GEMM_W4A8, GEMM_W8A16, GEMM_W4A16 };

struct gemm_bench {
    const struct kernel_ops *ops;
    enum gemm_kind kind;
    gemm_fn *fn; /* GEMM_FLOAT */
    int rows, k, n, copies;
    bool swiglu;
    size_t weight_bytes; /* of one copy */
    uint8_t *w;          /* (copies, weight_bytes) */
    float *y, *x, *scale;
    uint8_t *xq;
    int32_t *sum;
};

static void gemm_run(void *arg, int iteration, int worker, int num_workers)
{
    const struct gemm_bench *g = arg;
    const uint8_t *w = g->w + (size_t)(iteration % g->copies) * g->weight_bytes;
    size_t n = (size_t)g->n, k = (size_t)g->k;
    int begin, end, nr = g->swiglu ? SWIGLU_NR : GEMM_NR;
    pool_slice(g->n / nr, 1, worker, num_workers, &begin, &end);
    struct gemm_i8_args a = {.y = g->y,
                             .ldy = n,
                             .x = g->xq,
                             .ldx = k,
                             .rows = g->rows,
                             .k4 = g->k,
                             .n = g->n,
                             .swiglu = g->swiglu,
                             .w = (const int8_t *)w,
                             .w_sum = g->sum,
                             .col_scale = g->scale,
                             .row_scale = g->scale};
    switch (g->kind) {
    case GEMM_FLOAT:
        g->fn(g->y, n, g->x, k, g->rows, w, g->k, g->n, begin, end, NULL);
        break;
    case GEMM_I8:
        g->ops->gemm_i8(&a, begin, end);
        break;
    case GEMM_W4A8:
        g->ops->gemm_w4a8(&a, begin, end);
        break;
    case GEMM_W8A16:
    case GEMM_W4A16:
        (g->kind == GEMM_W4A16 ? g->ops->gemm_w4a16
                               : g->ops->gemm_w8a16)(&(struct gemm_w8a16_args){.y = g->y,
                                                                               .ldy = n,
                                                                               .x = g->x,
                                                                               .ldx = k,
                                                                               .rows = g->rows,
                                                                               .k = g->k,
                                                                               .n = g->n,
                                                                               .group_size = g->k,
                                                                               .w = (const int8_t *)w,
                                                                               .scale = g->scale},
                                                     begin, end);
        break;
    }
}

/* Rows as quantisation leaves them: normally distributed, the largest of each 127. */
static uint8_t *bench_activations(struct bench *b, int rows, int k)
{
    size_t len = (size_t)k;
    uint8_t *xq = bench_memory((size_t)rows * len);
    float *uniform = bench_floats(len + 12), *x = bench_floats(len), scale;
    for (int r = 0; r < rows; r++) {
        for (size_t i = 0; i < len; i++) {
            x[i] = 0;
            for (size_t j = 0; j < 12; j++)
                x[i] += uniform[(i * 7 + j * 31 + (size_t)r) % (len + 12)];
        }
        b->ops->quant_dynamic(xq + (size_t)r * len, &scale, x, k);
    }
    mem_unmap(uniform, (len + 12) * sizeof(float));
    mem_unmap(x, len * sizeof(float));
    return xq;
}

/* Weights come from memory, as they do in a model: enough copies that no cache keeps them. */
static void bench_shape(struct bench *b, struct gemm_bench g, int rows, int k, int n, bool swiglu, double elem_bytes)
{
    double columns = (double)n * (swiglu ? 2 : 1), weights = columns * (double)k;
    bool integer = g.kind == GEMM_I8 || g.kind == GEMM_W4A8;
    size_t m = (size_t)rows;
    g.ops = b->ops;
    g.rows = rows;
    g.k = k;
    g.n = n;
    g.swiglu = swiglu;
    g.weight_bytes = (size_t)(weights * elem_bytes);
    g.copies = bench_copies(g.weight_bytes);
    g.w = bench_memory((size_t)g.copies * g.weight_bytes);
    if (g.kind == GEMM_FLOAT) /* ordinary numbers, in each of the three types */
        for (uint32_t *p = (uint32_t *)(void *)g.w, *end = p + (size_t)g.copies * g.weight_bytes / 4; p < end; p++)
            *p = (*p & 0x807f807f) | 0x38003800;
    g.x = bench_floats(m * (size_t)k);
    g.xq = bench_activations(b, rows, k);
    g.y = bench_floats(m * (size_t)n);
    size_t scales = MAX((size_t)columns, m);
    g.scale = bench_floats(scales);
    g.sum = bench_memory(scales * 4);
    struct bench_cost cost = {.macs = (double)rows * weights,
                              .integer = integer,
                              .bytes = weights * elem_bytes +
                                       (double)rows * ((double)k * (integer ? 1 : 4) + (double)n * 4)};
    bench_time(b, &cost, gemm_run, &g, "M=%d N=%d K=%d%s", rows, n, k, swiglu ? " swiglu" : "");
    mem_unmap(g.w, (size_t)g.copies * g.weight_bytes);
    mem_unmap(g.x, m * (size_t)k * 4);
    mem_unmap(g.xq, m * (size_t)k);
    mem_unmap(g.y, m * (size_t)n * 4);
    mem_unmap(g.scale, scales * 4);
    mem_unmap(g.sum, scales * 4);
}

static void bench_square(struct bench *b, const struct gemm_bench *g, double elem_bytes)
{
    static const int rows[] = {1, 4, 16, 64, 512};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        bench_shape(b, *g, rows[i], 4096, 4096, false, elem_bytes);
}

static void bench_gemm_bf16(struct bench *b)
{
    bench_square(b, &(struct gemm_bench){.kind = GEMM_FLOAT, .fn = b->ops->gemm_bf16}, 2);
}

static void bench_gemm_f16(struct bench *b)
{
    bench_square(b, &(struct gemm_bench){.kind = GEMM_FLOAT, .fn = b->ops->gemm_f16}, 2);
}

static void bench_gemm_f32(struct bench *b)
{
    bench_square(b, &(struct gemm_bench){.kind = GEMM_FLOAT, .fn = b->ops->gemm_f32}, 4);
}

static void bench_gemm_i8(struct bench *b)
{
    const struct gemm_bench g = {.kind = GEMM_I8};
    bench_square(b, &g, 1);
    /* Qwen3-0.6B: q; k or v; o; gate and up; down; lm_head */
    bench_shape(b, g, 512, 1024, 2048, false, 1);
    bench_shape(b, g, 512, 1024, 1024, false, 1);
    bench_shape(b, g, 512, 2048, 1024, false, 1);
    bench_shape(b, g, 512, 1024, 3072, true, 1);
    bench_shape(b, g, 512, 3072, 1024, false, 1);
    bench_shape(b, g, 1, 1024, 151936, false, 1);
}

static void bench_gemm_w4a8(struct bench *b)
{
    bench_square(b, &(struct gemm_bench){.kind = GEMM_W4A8}, 0.5);
}

static void bench_gemm_w8a16(struct bench *b)
{
    bench_square(b, &(struct gemm_bench){.kind = GEMM_W8A16}, 1);
}

static void bench_gemm_w4a16(struct bench *b)
{
    bench_square(b, &(struct gemm_bench){.kind = GEMM_W4A16}, 0.5);
}

#define ENTRY(name)                                                                                                    \
    {                                                                                                                  \
#name, check_##name, bench_##name                                                                              \
    }
const struct kernel_entry entries_gemm[] = {
    ENTRY(gemm_bf16), ENTRY(gemm_f16),   ENTRY(gemm_f32),   ENTRY(gemm_i8),
    ENTRY(gemm_w4a8), ENTRY(gemm_w8a16), ENTRY(gemm_w4a16), {0},
};
