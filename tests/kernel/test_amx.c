/* The GEMM of the avx512amx tier over emulated tiles against ref/, bit for bit: on any CPU, that its indexing is right
 * and that it reads and writes what there is and no more. Its inputs end at guard pages. */
#include "kernel/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tile_emulation.h"

#define KFN(name) name##_unused
#define KERNEL(name, args) void KFN(name) args;
#include "kernel/kernels.def"
#undef KERNEL
#include "kernel/ref/int8.c" /* for gemm_i8_finish */

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* What avx512vnni_gemm.h has, from ref: columns know the panel that they are of. */
struct i8_columns {
    int p;
};

static void i8_panel_columns(const struct gemm_i8_args *a, int p, struct i8_columns *ret)
{
    (void)a;
    ret[0].p = ret[1].p = p;
}

static void i8_store_with(const struct gemm_i8_args *a, const struct i8_columns *c, int32_t (*sum)[GEMM_NR], int r0,
                          int rows, int p)
{
    assert_int_equal(c[0].p, p);
    assert_int_equal(c[1].p, p);
    for (int r = 0; r < rows; r++) {
        uint32_t acc[GEMM_NR];
        for (int j = 0; j < GEMM_NR; j++)
            acc[j] = (uint32_t)sum[r][j] - 128 * (uint32_t)a->w_sum[p * GEMM_NR + j];
        gemm_i8_finish(a, acc, r0 + r, p);
    }
}

static void i8_store(const struct gemm_i8_args *a, int32_t (*sum)[GEMM_NR], int r0, int rows, int p)
{
    struct i8_columns c[2];
    i8_panel_columns(a, p, c);
    i8_store_with(a, c, sum, r0, rows, p);
}

#include "kernel/x86/avx512amx_gemm.h"

/* Memory that ends where a page does, before one that faults. */
static void *guarded(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), span = (bytes + page - 1) / page * page;
    char *map = mmap(NULL, span + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    mprotect(map + span, page, PROT_NONE);
    return map + span - bytes;
}

static void release(void *p, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), span = (bytes + page - 1) / page * page;
    munmap((char *)p + bytes - span, span + page);
}

/* That of column j for k i, in panels of bytes or of nibbles (kernels.def). */
static int weight_at(const int8_t *w, bool nibbles, int k4, int j, int i)
{
    int word = nibbles ? i / 8 : i / 4, words = nibbles ? k4 / 8 : k4 / 4;
    int8_t byte = w[((size_t)(j / GEMM_NR * words + word) * GEMM_NR + (size_t)(j % GEMM_NR)) * 4 + (size_t)(i % 4)];
    return !nibbles ? byte : (i % 8 < 4 ? byte & 15 : (uint8_t)byte >> 4) - 8;
}

static void amx_matches_ref(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 64, 32},    {16, 64, 32},   {17, 8, 31},    {31, 56, 33},
                                    {32, 72, 64},   {33, 128, 1},   {48, 136, 96},  {64, 104, 40},
                                    {300, 200, 50}, {16, 1000, 32}, {14, 1032, 70}, {45, 2056, 40},
                                    {600, 64, 33},  {77, 1088, 65}, {1030, 72, 40}, {130, 17000, 32}};
    uint32_t seed = 1;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (int with = 0; with < 4; with++) {
            int m = shapes[s][0], k4 = shapes[s][1], n = shapes[s][2], swiglu = with & 1;
            int nr = swiglu ? SWIGLU_NR : GEMM_NR, panels = (n + nr - 1) / nr, cols = panels * GEMM_NR;
            size_t ldx = (size_t)k4 + (with & 2 ? 12 : 0), ldy = (size_t)n + 3;
            size_t x_bytes = (size_t)(m - 1) * ldx + (size_t)k4,
                   w_bytes = (size_t)cols * (size_t)k4 / (with & 2 ? 2 : 1);
            size_t y_bytes = ((size_t)(m - 1) * ldy + (size_t)n) * 4;
            uint8_t *x = guarded(x_bytes);
            int8_t *w = guarded(w_bytes);
            float *want = guarded(y_bytes), *got = guarded(y_bytes);
            float *col_scale = guarded((size_t)cols * 4), *row_scale = guarded((size_t)m * 4);
            int32_t *w_sum = guarded((size_t)cols * 4);
            for (size_t i = 0; i < x_bytes; i++)
                x[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
            for (size_t i = 0; i < w_bytes; i++)
                w[i] = (int8_t)((seed = seed * 1664525 + 1013904223) >> 24);
            bool nibbles = with & 2;
            for (int j = 0; j < cols; j++) {
                col_scale[j] = (float)(j % 7 + 1) / 64;
                for (int i = 0; i < k4; i++)
                    w_sum[j] += weight_at(w, nibbles, k4, j, i);
            }
            for (int r = 0; r < m; r++)
                row_scale[r] = (float)(r % 5 + 1) / 512;
            struct gemm_i8_args a = {
                want, ldy, x, ldx, m, k4, n, swiglu, w, w_sum, NULL, col_scale, with & 2 ? row_scale : NULL};
            (nibbles ? gemm_w4a8_ref : gemm_i8_ref)(&a, 0, panels);
            a.y = got;
            amx_gemm(&a, nibbles, 0, panels / 2); /* in two calls, as two workers would */
            amx_gemm(&a, nibbles, panels / 2, panels);
            if (memcmp(want, got, y_bytes))
                fail_msg("%d rows, k %d, %d columns, case %d differ from ref", m, k4, n, with);
            release(x, x_bytes), release(w, w_bytes), release(want, y_bytes), release(got, y_bytes);
            release(col_scale, (size_t)cols * 4), release(row_scale, (size_t)m * 4), release(w_sum, (size_t)cols * 4);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(amx_matches_ref)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
