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
    for (int isa_ = CPU_ISA_AVX2; isa_ <= (int)cpu_isa_best(); isa_++)                                                 \
        for (const struct kernel_ops *ops = kernel_ops_get((enum cpu_isa)isa_); ops; ops = NULL)

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
            struct guarded q = floats((size_t)(group * d)), k = floats((size_t)(end * d)),
                           v = floats((size_t)(end * d));
            struct guarded want = guarded_new(q.bytes), got = guarded_new(q.bytes), cache[2];
            for (int c = 0; c < 2; c++) {
                cache[c] = guarded_new((size_t)nblocks * stride);
                memset(cache[c].p, 0xff, cache[c].bytes); /* NaN where nothing was written: it must never be read */
            }
            for (int isa = CPU_ISA_REF; isa <= (int)cpu_isa_best(); isa++) {
                const struct kernel_ops *ops = kernel_ops_get((enum cpu_isa)isa);
                write_fn *const writes[] = {ops->kv_write_bf16, ops->kv_write_f16, ops->kv_write_f32};
                attn_fn *const attns[] = {ops->attn_bf16, ops->attn_f16, ops->attn_f32};
                struct guarded *out = isa ? &got : &want, *kv = &cache[isa != 0];
                for (int64_t t = 0; t < end; t++) {
                    uint8_t *block = (uint8_t *)kv->p + (size_t)table[t / bs] * stride;
                    writes[type](block, block + half, (int)(t % bs), (float *)k.p + t * d, (float *)v.p + t * d, d);
                }
                attns[type](&(struct attn_args){.out = out->p,
                                                .q = q.p,
                                                .group = group,
                                                .d = d,
                                                .begin = begin,
                                                .scale = 1.0f / sqrtf((float)d),
                                                .end = end,
                                                .block_table = table,
                                                .block_size = bs,
                                                .k = kv->p,
                                                .v = (uint8_t *)kv->p + half,
                                                .block_stride = stride});
                if (isa) {
                    assert_memory_equal(cache[0].p, cache[1].p, cache[0].bytes);
                    same(&want, &got, "attention", cpu_isa_name(ops->isa));
                }
            }
            for (size_t i = 0; i < (size_t)(group * d); i++)
                assert_true(isfinite(((float *)want.p)[i]));
            guarded_free(&q), guarded_free(&k), guarded_free(&v), guarded_free(&want), guarded_free(&got);
            guarded_free(&cache[0]), guarded_free(&cache[1]);
        }
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
                                     .begin = 5,
                                     .end = T,
                                     .block_table = table,
                                     .block_size = 32,
                                     .k = (uint8_t *)block[0][0],
                                     .v = (uint8_t *)block[0][1],
                                     .block_stride = sizeof(block[0])});
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
        cmocka_unit_test(ref_is_right),   cmocka_unit_test(packing),   cmocka_unit_test(gemm_matches_ref),
        cmocka_unit_test(rows_match_ref), cmocka_unit_test(pool_runs), cmocka_unit_test(attention_matches_ref),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
