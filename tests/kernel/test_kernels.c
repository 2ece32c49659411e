/* Every tier that this CPU runs against ref/, bit for bit, on shaped inputs and odd sizes. Outputs end at a guard page,
 * so that a write past a tail is a crash. OCTAVO_TEST_SEED=N repeats a run. */
#include "base/detmath.h"
#include "base/pool.h"
#include "kernel/ops.h"
#include "kernel/ref/convert.h"
#include "kernel/ref/math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed;

static uint32_t rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

/* Mostly ordinary values, and what breaks things: zeros, huge, tiny, equal runs. */
static float rnd_float(void)
{
    switch (rnd() % 16) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return (float)((int)(rnd() % 2001) - 1000);
    case 3:
        return 1e-30f;
    default:
        return ((float)(rnd() % 20001) - 10000.0f) / 3000.0f;
    }
}

/* Memory whose last byte is the last of a page, followed by one that faults. */
struct guarded {
    void *p, *map;
    size_t bytes, map_bytes;
};

static struct guarded guarded_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), span = (bytes + page - 1) / page * page + page;
    char *map = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    mprotect(map + span - page, page, PROT_NONE);
    return (struct guarded){map + span - page - bytes, map, bytes, span};
}

static void guarded_free(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
}

static struct guarded floats(size_t n)
{
    struct guarded g = guarded_new(n * 4);
    for (size_t i = 0; i < n; i++)
        ((float *)g.p)[i] = rnd_float();
    return g;
}

static void same(const struct guarded *a, const struct guarded *b, const char *what, const char *isa)
{
    if (memcmp(a->p, b->p, a->bytes)) {
        const uint32_t *x = a->p, *y = b->p;
        size_t i = 0;
        while (x[i] == y[i])
            i++;
        fail_msg("%s on %s differs at %zu: %a, ref %a", what, isa, i, (double)f32_from_bits(y[i]),
                 (double)f32_from_bits(x[i]));
    }
}

#define FOR_EACH_TIER(ops)                                                                                             \
    for (int isa_ = CPU_ISA_REF + 1; isa_ < CPU_ISA_COUNT; isa_++)                                                     \
        for (const struct kernel_ops *ops = cpu_isa_supported((enum cpu_isa)isa_) ? kernel_ops_get((enum cpu_isa)isa_) \
                                                                                  : NULL;                              \
             ops; ops = NULL)

static void fill_elems(struct guarded *w, int bytes)
{
    size_t n = w->bytes / (size_t)bytes;
    for (size_t i = 0; i < n; i++) {
        float f = rnd_float();
        if (bytes == 4)
            ((float *)w->p)[i] = f;
        else
            ((uint16_t *)w->p)[i] = (uint16_t)rnd() & 0xbfff; /* any finite bf16, f16 */
    }
}

static void gemm_matches_ref(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 1, 1},   {1, 16, 31},  {2, 7, 32},   {3, 64, 33},  {8, 33, 64},
                                    {9, 80, 97}, {65, 48, 40}, {70, 17, 95}, {131, 20, 65}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (int type = 0; type < 3; type++)
            for (int with_bias = 0; with_bias < 2; with_bias++) {
                int m = shapes[s][0], k = shapes[s][1], n = shapes[s][2], elem = type == 2 ? 4 : 2;
                int panels = (n + GEMM_NR - 1) / GEMM_NR;
                size_t ldx = (size_t)k + 3, ldy = (size_t)n + 5;
                struct guarded x = floats((size_t)(m - 1) * ldx + (size_t)k), bias = floats((size_t)n);
                struct guarded w = guarded_new(gemm_packed_elems(n, k) * (size_t)elem);
                fill_elems(&w, elem);
                struct guarded want = guarded_new(((size_t)(m - 1) * ldy + (size_t)n) * 4);
                struct guarded got = guarded_new(want.bytes);
                const struct kernel_ops *ref = kernel_ops_get(CPU_ISA_REF);
                (type == 0 ? ref->gemm_bf16
                 : type == 1
                     ? ref->gemm_f16
                     : ref->gemm_f32)(want.p, ldy, x.p, ldx, m, w.p, k, n, 0, panels, with_bias ? bias.p : NULL);
                FOR_EACH_TIER(ops)
                {
                    memset(got.p, 0, got.bytes);
                    int cut = panels / 2; /* in two calls, as two workers would */
                    for (int half = 0; half < 2; half++)
                        (type == 0   ? ops->gemm_bf16
                         : type == 1 ? ops->gemm_f16
                                     : ops->gemm_f32)(got.p, ldy, x.p, ldx, m, w.p, k, n, half ? cut : 0,
                                                      half ? panels : cut, with_bias ? bias.p : NULL);
                    same(&want, &got, "gemm", cpu_isa_name(ops->isa));
                }
                guarded_free(&x), guarded_free(&bias), guarded_free(&w), guarded_free(&want), guarded_free(&got);
            }
}

static void rows_match_ref(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 15, 16, 17, 31, 32, 48, 80, 96, 127, 128, 129, 256, 1000};
    const struct kernel_ops *ref = kernel_ops_get(CPU_ISA_REF);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        size_t n = (size_t)sizes[s];
        struct guarded x = floats(n), w = floats(n), u = floats(n), want = guarded_new(n * 4), got = guarded_new(n * 4);
        FOR_EACH_TIER(ops)
        {
            const char *isa = cpu_isa_name(ops->isa);
            ref->rmsnorm(want.p, x.p, w.p, (int)n, 1e-6f);
            ops->rmsnorm(got.p, x.p, w.p, (int)n, 1e-6f);
            same(&want, &got, "rmsnorm", isa);
            ref->silu_mul(want.p, x.p, u.p, (int)n);
            ops->silu_mul(got.p, x.p, u.p, (int)n);
            same(&want, &got, "silu_mul", isa);
            memcpy(want.p, x.p, n * 4), memcpy(got.p, x.p, n * 4);
            ref->add(want.p, u.p, (int)n), ops->add(got.p, u.p, (int)n);
            same(&want, &got, "add", isa);
            ref->rope(want.p, w.p, u.p, (int)n / 2 * 2), ops->rope(got.p, w.p, u.p, (int)n / 2 * 2);
            same(&want, &got, "rope", isa);
            ref->exp_sub(want.p, x.p, (int)n, 1.5f), ops->exp_sub(got.p, x.p, (int)n, 1.5f);
            same(&want, &got, "exp_sub", isa);
            float a[2], b[2];
            ref->softmax_stats(x.p, (int)n, &a[0], &a[1]);
            ops->softmax_stats(x.p, (int)n, &b[0], &b[1]);
            assert_memory_equal(a, b, sizeof(a));
        }
        guarded_free(&x), guarded_free(&w), guarded_free(&u), guarded_free(&want), guarded_free(&got);
    }
}

typedef void write_fn(void *, void *, int, const float *, const float *, int);
typedef void attn_fn(const struct attn_args *);

/* Writes a cache token by token through the tier's own kernel, then attends: the whole path against ref's. */
static void attention_matches_ref(void **state)
{
    (void)state;
    static const int dims[] = {2, 32, 40, 48, 64, 80, 96, 128, 256}, groups[] = {1, 2, 3, 4, 5, 8};
    for (size_t di = 0; di < sizeof(dims) / sizeof(dims[0]); di++)
        for (int type = 0; type < 3; type++) {
            int d = dims[di], group = groups[rnd() % 6], bs = rnd() % 2 ? 32 : 64, elem = type == 2 ? 4 : 2;
            int64_t end = 1 + rnd() % 150, begin = rnd() % 3 ? 0 : rnd() % (uint32_t)end;
            int nblocks = 8;
            size_t half = (size_t)bs * (size_t)d * (size_t)elem, stride = 2 * half;
            int32_t table[8] = {5, 2, 7, 0, 3, 6, 1, 4};
            int tokens = 1 + (int)(rnd() % (uint32_t)(end < 20 / group ? end : 20 / group));
            size_t width = (size_t)(group * d);
            struct guarded q = floats((size_t)tokens * width), k = floats((size_t)(end * d)),
                           v = floats((size_t)(end * d));
            struct guarded want = guarded_new(q.bytes), got = guarded_new(q.bytes), cache[2];
            for (int c = 0; c < 2; c++) {
                cache[c] = guarded_new((size_t)nblocks * stride);
                memset(cache[c].p, 0xff, cache[c].bytes); /* NaN where nothing was written: it must never be read */
            }
            for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++) {
                if (!cpu_isa_supported((enum cpu_isa)isa))
                    continue;
                const struct kernel_ops *ops = kernel_ops_get((enum cpu_isa)isa);
                write_fn *const writes[] = {ops->kv_write_bf16, ops->kv_write_f16, ops->kv_write_f32};
                attn_fn *const attns[] = {ops->attn_bf16, ops->attn_f16, ops->attn_f32};
                struct guarded *out = isa ? &got : &want, *kv = &cache[isa != 0];
                for (int64_t t = 0; t < end; t++) {
                    uint8_t *block = (uint8_t *)kv->p + (size_t)table[t / bs] * stride;
                    writes[type](block, block + half, (int)(t % bs), (float *)k.p + t * d, (float *)v.p + t * d, d);
                }
                attns[type](&(struct attn_args){.out = out->p,
                                                .ldout = width,
                                                .q = q.p,
                                                .ldq = width,
                                                .group = group,
                                                .d = d,
                                                .tokens = tokens,
                                                .scale = 1.0f / sqrtf((float)d),
                                                .position = end - tokens,
                                                .window = begin ? end - begin : 0,
                                                .block_table = table,
                                                .block_size = bs,
                                                .k = kv->p,
                                                .v = (uint8_t *)kv->p + half,
                                                .block_stride = stride,
                                                .run_stride = KV_RUN * stride});
                if (isa) {
                    assert_memory_equal(cache[0].p, cache[1].p, cache[0].bytes);
                    same(&want, &got, "attention", cpu_isa_name(ops->isa));
                }
            }
            for (size_t i = 0; i < (size_t)tokens * width; i++)
                assert_true(isfinite(((float *)want.p)[i]));
            guarded_free(&q), guarded_free(&k), guarded_free(&v), guarded_free(&want), guarded_free(&got);
            guarded_free(&cache[0]), guarded_free(&cache[1]);
        }
}

/* ---- integers ---- */

static void gemm_i8_matches_ref(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 1, 1},    {1, 16, 31},  {2, 7, 32},     {3, 64, 33}, {12, 33, 64},
                                    {13, 80, 97}, {97, 48, 40}, {29, 1000, 17}, {5, 4, 48}};
    const struct kernel_ops *ref = kernel_ops_get(CPU_ISA_REF);
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (unsigned with = 0; with < 64; with++) {
            int m = shapes[s][0], k = shapes[s][1], n = shapes[s][2], k4 = (k + 3) / 4 * 4;
            int nr = with & 32 ? SWIGLU_NR : GEMM_NR, panels = (n + nr - 1) / nr, cols = panels * GEMM_NR;
            size_t ldx = (size_t)k4 + 4, ldy = (size_t)n + 3;
            struct guarded x = guarded_new((size_t)(m - 1) * ldx + (size_t)k4);
            struct guarded w = guarded_new((size_t)cols * (size_t)k4), f[3], i[5];
            int8_t extreme = rnd() % 3 ? 0 : (int8_t)(rnd() % 2 ? 127 : -128); /* all the same: the largest sums */
            for (size_t b = 0; b < x.bytes; b++)
                ((uint8_t *)x.p)[b] = extreme ? (extreme > 0 ? 255 : 0) : (uint8_t)rnd();
            memset(w.p, 0, w.bytes);
            struct guarded w_sum = guarded_new((size_t)cols * 4);
            for (int j = 0; j < cols; j++) {
                int32_t sum = 0;
                for (int c = 0; c < k; c++) {
                    int8_t q = extreme ? extreme : (int8_t)rnd();
                    ((int8_t *)w.p)[((size_t)(j / GEMM_NR) * (size_t)k4 + (size_t)(c / 4 * 4)) * GEMM_NR +
                                    (size_t)(j % GEMM_NR) * 4 + (size_t)(c % 4)] = q;
                    sum += q;
                }
                ((int32_t *)w_sum.p)[j] = sum;
            }
            f[0] = floats((size_t)cols), f[1] = floats((size_t)m), f[2] = floats((size_t)cols);
            for (int v = 0; v < 5; v++) {
                i[v] = guarded_new((size_t)(v == 1 || v == 4 ? m : cols) * 4);
                for (size_t e = 0; e < i[v].bytes / 4; e++)
                    ((int32_t *)i[v].p)[e] = (int32_t)(rnd() % 2001) - 1000;
            }
            struct guarded want = guarded_new(((size_t)(m - 1) * ldy + (size_t)n) * 4), got = guarded_new(want.bytes);
            struct gemm_i8_args a = {.y = want.p,
                                     .ldy = ldy,
                                     .x = x.p,
                                     .ldx = ldx,
                                     .rows = m,
                                     .k4 = k4,
                                     .n = n,
                                     .swiglu = nr == SWIGLU_NR,
                                     .w = w.p,
                                     .w_sum = w_sum.p,
                                     .col_scale = f[0].p};
            if (with & 1)
                a.row_scale = f[1].p;
            if (with & 2)
                a.bias = f[2].p;
            if (with & 4)
                a.col_add = i[0].p;
            if (with & 8)
                a.row_zero = i[1].p, a.col_sum = i[2].p;
            if (with & 16)
                a.col_zero = i[3].p, a.row_sum = i[4].p;
            ref->gemm_i8(&a, 0, panels);
            FOR_EACH_TIER(ops)
            {
                memset(got.p, 0, got.bytes);
                a.y = got.p;
                ops->gemm_i8(&a, 0, panels / 2), ops->gemm_i8(&a, panels / 2, panels);
                same(&want, &got, "gemm_i8", cpu_isa_name(ops->isa));
            }
            if (with == 0 && k < 100) { /* ref against 64-bit sums */
                for (int r = 0; r < m; r++)
                    for (int j = 0; j < n; j++) {
                        int64_t sum = 0;
                        for (int c = 0; c < k; c++)
                            sum +=
                                (int64_t)(((uint8_t *)x.p)[(size_t)r * ldx + (size_t)c] - 128) *
                                ((int8_t *)w.p)[((size_t)(j / GEMM_NR) * (size_t)k4 + (size_t)(c / 4 * 4)) * GEMM_NR +
                                                (size_t)(j % GEMM_NR) * 4 + (size_t)(c % 4)];
                        assert_true(((float *)want.p)[(size_t)r * ldy + (size_t)j] ==
                                    (float)sum * ((float *)f[0].p)[j]);
                    }
            }
            for (int v = 0; v < 5; v++)
                guarded_free(&i[v]);
            guarded_free(&f[0]), guarded_free(&f[1]), guarded_free(&f[2]);
            guarded_free(&x), guarded_free(&w), guarded_free(&w_sum), guarded_free(&want), guarded_free(&got);
        }
}

/* Against gemm_i8 on the same weights, a byte each. */
static void gemm_w4a8_matches_ref(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 8, 31}, {2, 7, 32}, {13, 80, 97}, {16, 136, 64}, {29, 1000, 17}};
    const struct kernel_ops *ref = kernel_ops_get(CPU_ISA_REF);
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (int swiglu = 0; swiglu < 2; swiglu++) {
            int m = shapes[s][0], n = shapes[s][2], k8 = (shapes[s][1] + 7) / 8 * 8, nr = swiglu ? SWIGLU_NR : GEMM_NR;
            int panels = (n + nr - 1) / nr;
            size_t cols = (size_t)panels * GEMM_NR, ldx = (size_t)k8 + 4;
            struct guarded x = guarded_new((size_t)(m - 1) * ldx + (size_t)k8), w8 = guarded_new(cols * (size_t)k8);
            struct guarded w4 = guarded_new(w8.bytes / 2), sum = guarded_new(cols * 4), scale = floats(cols);
            struct guarded want = guarded_new((size_t)(m * n) * 4), got = guarded_new(want.bytes);
            for (size_t i = 0; i < x.bytes; i++)
                ((uint8_t *)x.p)[i] = (uint8_t)rnd();
            memset(sum.p, 0, sum.bytes);
            for (size_t p = 0; p < (size_t)panels; p++)
                for (size_t g = 0; g < (size_t)k8 / 8; g++)
                    for (size_t b = 0; b < GEMM_NR * 4; b++) {
                        int8_t *to = (int8_t *)w8.p + (p * (size_t)k8 + g * 8) * GEMM_NR + b;
                        uint8_t two = (uint8_t)rnd();
                        ((uint8_t *)w4.p)[(p * (size_t)k8 / 8 + g) * GEMM_NR * 4 + b] = two;
                        to[0] = (int8_t)((two & 15) - 8);
                        to[4 * GEMM_NR] = (int8_t)((two >> 4) - 8);
                        ((int32_t *)sum.p)[p * GEMM_NR + b / 4] += to[0] + to[4 * GEMM_NR];
                    }
            struct gemm_i8_args a = {.y = want.p,
                                     .ldy = (size_t)n,
                                     .x = x.p,
                                     .ldx = ldx,
                                     .rows = m,
                                     .k4 = k8,
                                     .n = n,
                                     .swiglu = swiglu != 0,
                                     .w = w8.p,
                                     .w_sum = sum.p,
                                     .col_scale = scale.p};
            ref->gemm_i8(&a, 0, panels);
            a.y = got.p;
            a.w = w4.p;
            for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++) {
                if (!cpu_isa_supported((enum cpu_isa)isa))
                    continue;
                memset(got.p, 0, got.bytes);
                kernel_ops_get((enum cpu_isa)isa)->gemm_w4a8(&a, 0, panels);
                same(&want, &got, "gemm_w4a8", cpu_isa_name((enum cpu_isa)isa));
            }
            guarded_free(&x), guarded_free(&w8), guarded_free(&w4), guarded_free(&sum), guarded_free(&scale);
            guarded_free(&want), guarded_free(&got);
        }
}

static void gemm_w8a16_matches_ref(void **state)
{
    (void)state;
    static const int shapes[][4] = {{1, 32, 33, 32}, {3, 96, 64, 32}, {5, 100, 20, 128}, {2, 70, 95, 32}, {9, 7, 5, 4}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (unsigned with = 0; with < 4; with++) {
            int m = shapes[s][0], k = shapes[s][1], n = shapes[s][2], group = shapes[s][3];
            size_t panels = ((size_t)n + GEMM_NR - 1) / GEMM_NR,
                   groups = ((size_t)k + (size_t)group - 1) / (size_t)group;
            struct guarded x = floats((size_t)(m * k)), w = guarded_new(gemm_packed_elems(n, k));
            struct guarded scale = floats(panels * groups * GEMM_NR), zero = floats(panels * groups * GEMM_NR);
            struct guarded bias = floats((size_t)n), want = guarded_new((size_t)(m * n) * 4),
                           got = guarded_new(want.bytes);
            for (size_t b = 0; b < w.bytes; b++)
                ((int8_t *)w.p)[b] = (int8_t)rnd();
            struct gemm_w8a16_args a = {want.p,
                                        (size_t)n,
                                        x.p,
                                        (size_t)k,
                                        m,
                                        k,
                                        n,
                                        group,
                                        w.p,
                                        scale.p,
                                        with & 1 ? zero.p : NULL,
                                        with & 2 ? bias.p : NULL};
            kernel_ops_get(CPU_ISA_REF)->gemm_w8a16(&a, 0, (int)panels);
            FOR_EACH_TIER(ops)
            {
                memset(got.p, 0, got.bytes);
                a.y = got.p;
                ops->gemm_w8a16(&a, 0, (int)panels);
                same(&want, &got, "gemm_w8a16", cpu_isa_name(ops->isa));
            }
            guarded_free(&x), guarded_free(&w), guarded_free(&scale), guarded_free(&zero), guarded_free(&bias);
            guarded_free(&want), guarded_free(&got);
        }
}

static void quant_matches_ref(void **state)
{
    (void)state;
    for (int n = 1; n < 140; n += 1 + n / 9) {
        struct guarded x = floats((size_t)n);
        size_t bytes = (size_t)(n + 3) / 4 * 4;
        struct guarded want = guarded_new(bytes), got = guarded_new(bytes);
        float s[2], hot = (float)(1 + rnd() % 1000000);
        int32_t z[2];
        if (rnd() % 3 == 0)
            ((float *)x.p)[rnd() % (uint32_t)n] = hot; /* one hot channel */
        if (n == 5)
            memset(x.p, 0, x.bytes); /* a row of zeros */
        const struct kernel_ops *ref = kernel_ops_get(CPU_ISA_REF);
        float most = 0;
        for (int i = 0; i < n; i++)
            most = fmaxf(most, fabsf(((float *)x.p)[i]));
        ref->quant_dynamic(want.p, &s[0], x.p, n); /* against its definition, in double */
        assert_true(s[0] == (most > 0 ? most / 127.0f : 1.0f));
        for (int i = 0; i < n; i++)
            assert_int_equal(((uint8_t *)want.p)[i] - 128, (int)rint((double)(((float *)x.p)[i] / s[0])));
        FOR_EACH_TIER(ops)
        {
            const char *isa = cpu_isa_name(ops->isa);
            ref->quant_dynamic(want.p, &s[0], x.p, n), ops->quant_dynamic(got.p, &s[1], x.p, n);
            assert_memory_equal(want.p, got.p, bytes);
            assert_true(s[0] == s[1]);
            ref->quant_dynamic_asym(want.p, &s[0], &z[0], x.p, n);
            ops->quant_dynamic_asym(got.p, &s[1], &z[1], x.p, n);
            assert_memory_equal(want.p, got.p, bytes);
            assert_true(s[0] == s[1] && z[0] == z[1]);
            ref->quant_static(want.p, x.p, n, 30.0f, -7.0f), ops->quant_static(got.p, x.p, n, 30.0f, -7.0f);
            assert_memory_equal(want.p, got.p, bytes);
            (void)isa;
        }
        guarded_free(&x), guarded_free(&want), guarded_free(&got);
    }
}

/* One attention over an INT8 cache written by the tier's own kernel; kind chooses the shape of the probabilities. */
static void c8_case(int d, int group, int64_t end, int64_t begin, bool asym, int kind)
{
    enum { BS = 64, BLOCKS = 80 };
    size_t pd = (size_t)c8_padded_dim(d), kb = BS * pd, stride = kb + BS * (size_t)d;
    int32_t table[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        table[i] = (i * 37 + 11) % BLOCKS;
    int most = ATTN_MAX_ROWS / group, tokens = 1 + (int)(rnd() % (uint32_t)(end < most ? end : most));
    size_t width = (size_t)(group * d);
    int64_t window = begin ? end - begin : 0;
    struct guarded q = floats((size_t)tokens * width), k = guarded_new((size_t)(end * d) * 4), v = guarded_new(k.bytes);
    struct guarded want = guarded_new(q.bytes), got = guarded_new(q.bytes), cache[2] = {0}, sc[6];
    for (int i = 0; i < 6; i++)
        sc[i] = guarded_new((size_t)d * 4);
    float *kp = k.p, *vp = v.p, *qp = q.p;
    for (size_t i = 0; i < (size_t)tokens * width; i++)
        qp[i] = ((float)(rnd() % 20001) - 10000) / 5000 * (kind == 0 ? 0.05f : kind == 1 ? 3 : kind == 3 ? 0.5f : 1);
    for (int64_t i = 0; i < end * d; i++) {
        float channel = i % d % 7 == 3 ? 8.0f : 1.0f; /* some channels are hotter, as in real K */
        kp[i] = ((float)(rnd() % 20001) - 10000) / 10000 * channel + (asym ? 0.7f : 0);
        vp[i] = ((float)(rnd() % 20001) - 10000) / 10000 + (asym ? 0.4f : 0);
    }
    if (kind == 2) /* a sink: the first key takes nearly everything, and its value is small */
        for (int i = 0; i < d; i++) {
            kp[i] = 9.0f * sqrtf((float)d) * qp[i] / 4.0f / (float)d * 4.0f;
            vp[i] *= 0.01f;
        }
    float *s[6];
    for (int i = 0; i < 6; i++)
        s[i] = sc[i].p;
    for (int i = 0; i < d; i++)
        for (int kv = 0; kv < 2; kv++) {
            const float *x = kv ? vp : kp;
            float lo = 0, hi = 0;
            for (int64_t t = 0; t < end; t++) {
                lo = fminf(lo, x[t * d + i]);
                hi = fmaxf(hi, x[t * d + i]);
            }
            float scale = fmaxf(asym ? (hi - lo) / 255 : fmaxf(-lo, hi) / 127, 1e-6f);
            s[kv * 3][i] = scale;
            s[kv * 3 + 1][i] = 1.0f / scale;
            s[kv * 3 + 2][i] = asym ? rintf(-lo / scale) - 128 : 0;
        }
    struct c8_scales scales = {s[0], s[1], s[2], s[3], s[4], s[5]};
    for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++) {
        if (!cpu_isa_supported((enum cpu_isa)isa))
            continue;
        const struct kernel_ops *ops = kernel_ops_get((enum cpu_isa)isa);
        struct guarded *kv = &cache[isa != 0], *out = isa ? &got : &want;
        if (!kv->p)
            *kv = guarded_new(BLOCKS * stride);
        memset(kv->p, 0x5a, kv->bytes);
        for (int64_t t = 0; t < end; t++) {
            uint8_t *block = (uint8_t *)kv->p + (size_t)table[t / BS] * stride;
            ops->kv_write_c8(block, block + kb, (int)(t % BS), kp + t * d, vp + t * d, d, &scales);
        }
        ops->attn_c8(&(struct attn_args){.out = out->p,
                                         .ldout = width,
                                         .q = q.p,
                                         .ldq = width,
                                         .group = group,
                                         .d = d,
                                         .tokens = tokens,
                                         .position = end - tokens,
                                         .window = window,
                                         .scale = 1.0f / sqrtf((float)d),
                                         .block_table = table,
                                         .block_size = BS,
                                         .k = kv->p,
                                         .v = (uint8_t *)kv->p + kb,
                                         .block_stride = stride,
                                         .run_stride = KV_RUN * stride,
                                         .c8 = &scales});
        if (isa) {
            assert_memory_equal(cache[0].p, cache[1].p, cache[0].bytes);
            same(&want, &got, "attn_c8", cpu_isa_name(ops->isa));
        }
    }
    /* against attention over explicitly dequantised K and V, in double */
    double *p = malloc((size_t)end * sizeof(*p));
    for (int g = 0; g < tokens * group; g++) {
        int64_t stop = end - tokens + g / group + 1, from = window && stop > window ? stop - window : 0;
        double max = -INFINITY, sum = 0, err = 0, norm = 0;
        for (int64_t t = from; t < stop; t++) {
            p[t] = 0;
            for (int i = 0; i < d; i++) {
                double kq = fmin(fmax(rint((double)(kp[t * d + i] * s[1][i] + s[2][i])), -128), 127);
                p[t] += (double)qp[g * d + i] * (kq - (double)s[2][i]) * (double)s[0][i];
            }
            p[t] /= sqrt(d);
            max = fmax(max, p[t]);
        }
        for (int64_t t = from; t < stop; t++)
            sum += p[t] = exp(p[t] - max);
        for (int i = 0; i < d; i++) {
            double o = 0;
            for (int64_t t = from; t < stop; t++) {
                double vq = fmin(fmax(rint((double)(vp[t * d + i] * s[4][i] + s[5][i])), -128), 127);
                o += p[t] * (vq - (double)s[5][i]) * (double)s[3][i];
            }
            o /= sum;
            err += (o - (double)((float *)want.p)[g * d + i]) * (o - (double)((float *)want.p)[g * d + i]);
            norm += o * o;
        }
        if (sqrt(err) > (d < 32 ? 2e-2 : 5e-3) * sqrt(norm) + 1e-7) /* of few channels any may be near 0 */
            fail_msg("attn_c8 d=%d group=%d keys=%d..%d asym=%d kind=%d: relative error %.1e", d, group, (int)from,
                     (int)stop, asym, kind, sqrt(err / norm));
    }
    free(p);
    for (int i = 0; i < 6; i++)
        guarded_free(&sc[i]);
    guarded_free(&q), guarded_free(&k), guarded_free(&v), guarded_free(&want), guarded_free(&got);
    guarded_free(&cache[0]), guarded_free(&cache[1]);
}

static void attention_c8(void **state)
{
    (void)state;
    static const int dims[] = {32, 48, 64, 80, 96, 128, 200, 256, 6}, groups[] = {1, 2, 3, 4, 5, 8};
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++)
        for (int kind = 0; kind < 3; kind++)
            for (int asym = 0; asym < 2; asym++) {
                int64_t end = 1 + rnd() % 40;
                c8_case(dims[i], groups[rnd() % 6], end, 0, asym, kind);
                end = 100 + rnd() % 300;
                c8_case(dims[i], groups[rnd() % 6], end, kind == 2 ? 0 : rnd() % 90, asym, kind);
            }
    c8_case(64, 1, 5000, 0, true, 0);   /* a flat row with a long tail */
    c8_case(128, 4, 3000, 0, false, 3); /* scores as of random vectors: many keys matter, few by much */
    c8_case(64, 8, 1000, 0, true, 3);
}

/* The reference itself against plain double arithmetic. */
static void ref_is_right(void **state)
{
    (void)state;
    for (float x = -90; x < 88.5f; x += 0.0137f) {
        double want = exp((double)x), got = (double)exp_f32(x);
        assert_true(fabs(got - want) <= 2e-7 * want + 2e-38);
    }
    assert_true(exp_f32(0) == 1.0f);
    assert_true(isnan(exp_f32(NAN)));
    for (double x = 1e-5; x < 1e6; x *= 1.01) {
        double s, c;
        det_sincos(x, &s, &c);
        assert_true(fabs(s - sin(x)) < 2e-15 && fabs(c - cos(x)) < 2e-15);
        assert_true(fabs(det_log(x) - log(x)) <= 4e-16 * fabs(log(x)) + 4e-16);
    }
    for (double x = -300; x < 300; x += 0.37)
        assert_true(fabs(det_exp(x) / exp(x) - 1) < 1e-15 * (1 + fabs(x)));
    for (uint32_t h = 0; h < 65536; h++) { /* every 16-bit value survives; halfway cases round to even */
        float f = f32_from_f16((uint16_t)h), b = f32_from_bf16((uint16_t)h);
        if (!isnan(f))
            assert_int_equal(f16_from_f32(f), h);
        if (!isnan(b))
            assert_int_equal(bf16_from_f32(b), h);
    }
    assert_int_equal(bf16_from_f32(f32_from_bits(0x3f808000)), 0x3f80);
    assert_int_equal(bf16_from_f32(f32_from_bits(0x3f818000)), 0x3f82);
    assert_int_equal(f16_from_f32(2049.0f), 0x6800);
    assert_int_equal(f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(f16_from_f32(0x1p-25f), 0);
    assert_int_equal(f16_from_f32(0x1.8p-25f), 1);
    /* one attention row in double */
    enum { D = 24, T = 70 };
    float q[D], k[T][D], v[T][D], out[D];
    static float block[3][2][32 * D];
    for (int i = 0; i < D; i++)
        q[i] = rnd_float();
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < D; i++)
            k[t][i] = ((float)(rnd() % 2000) - 1000) / 500, v[t][i] = ((float)(rnd() % 2000) - 1000) / 500;
        kv_write_f32_ref(block[t / 32][0], block[t / 32][1], t % 32, k[t], v[t], D);
    }
    int32_t table[3] = {0, 1, 2};
    attn_f32_ref(&(struct attn_args){.out = out,
                                     .q = q,
                                     .group = 1,
                                     .d = D,
                                     .scale = 0.2f,
                                     .tokens = 1,
                                     .position = T - 1,
                                     .window = T - 5,
                                     .block_table = table,
                                     .block_size = 32,
                                     .k = (uint8_t *)block[0][0],
                                     .v = (uint8_t *)block[0][1],
                                     .block_stride = sizeof(block[0]),
                                     .run_stride = KV_RUN * sizeof(block[0])});
    double want[D] = {0}, sum = 0;
    for (int t = 5; t < T; t++) {
        double s = 0;
        for (int i = 0; i < D; i++)
            s += (double)q[i] * (double)k[t][i];
        s = exp(s * (double)0.2f);
        sum += s;
        for (int i = 0; i < D; i++)
            want[i] += s * (double)v[t][i];
    }
    for (int i = 0; i < D; i++)
        assert_true(fabs(want[i] / sum - (double)out[i]) < 1e-5);
}

static void packing(void **state)
{
    (void)state;
    uint16_t w[37 * 5];
    for (int i = 0; i < 37 * 5; i++)
        w[i] = (uint16_t)i;
    uint16_t packed[64 * 5] = {0};
    gemm_pack(packed, w, 2, 0, 20, 5); /* in two parts, as fused projections are */
    gemm_pack(packed, w + 20 * 5, 2, 20, 17, 5);
    for (int j = 0; j < 64; j++)
        for (int i = 0; i < 5; i++)
            assert_int_equal(packed[(j / 32 * 5 + i) * 32 + j % 32], j < 37 ? w[j * 5 + i] : 0);
}

struct count {
    struct pool *pool;
    _Atomic int arrived, torn;
};

static void count_run(void *arg, int worker, int num_workers)
{
    (void)worker;
    struct count *c = arg;
    for (int i = 1; i <= 3; i++) {
        atomic_fetch_add(&c->arrived, 1);
        pool_barrier(c->pool);
        if (atomic_load(&c->arrived) < i * num_workers) /* somebody passed before all had arrived */
            atomic_fetch_add(&c->torn, 1);
        pool_barrier(c->pool);
    }
}

static void pool_runs(void **state)
{
    (void)state;
    for (int n = 1; n <= 5; n++) {
        struct pool *pool = pool_new(n);
        struct count c = {.pool = pool};
        for (int round = 0; round < 300; round++) {
            atomic_store(&c.arrived, 0);
            pool_run(pool, count_run, &c);
            assert_int_equal(atomic_load(&c.arrived), 3 * n);
            assert_int_equal(atomic_load(&c.torn), 0);
            if (round == 100)
                usleep(20000); /* workers fall asleep and must wake */
        }
        pool_free(pool);
    }
    int b, e, covered = 0;
    for (int w = 0; w < 7; w++) {
        pool_slice(100, 8, w, 7, &b, &e);
        assert_true(b == covered && b % 8 == 0);
        covered = e;
    }
    assert_int_equal(covered, 100);
}

int main(void)
{
    const char *s = getenv("OCTAVO_TEST_SEED");
    seed = s ? strtoull(s, NULL, 0) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_is_right),          cmocka_unit_test(packing),
        cmocka_unit_test(gemm_matches_ref),      cmocka_unit_test(gemm_i8_matches_ref),
        cmocka_unit_test(gemm_w4a8_matches_ref), cmocka_unit_test(gemm_w8a16_matches_ref),
        cmocka_unit_test(quant_matches_ref),     cmocka_unit_test(attention_c8),
        cmocka_unit_test(rows_match_ref),        cmocka_unit_test(pool_runs),
        cmocka_unit_test(attention_matches_ref),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
