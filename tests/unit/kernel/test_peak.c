/* peak: the loops do as many multiply-adds and read as many bytes as they say, and what is measured is a rate. */
#include "base/mem.h"
#include "kernel/peak.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* With ones for operands, the sum that comes back is the number of products. */
static void counts(void **state)
{
    (void)state;
    _Alignas(64) uint8_t a[64];
    _Alignas(64) int8_t b[64];
    _Alignas(64) float f[16];
    memset(a, 1, sizeof(a));
    memset(b, 1, sizeof(b));
    for (int i = 0; i < 16; i++)
        f[i] = 1;
    for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++) {
        if (!cpu_isa_supported((enum cpu_isa)isa))
            continue;
        const struct peak_ops *ops = peak_ops_get((enum cpu_isa)isa);
        for (int64_t rounds = 0; rounds < 3000; rounds = rounds * 3 + 1) {
            assert_int_equal(ops->int8(a, b, rounds), rounds * ops->int8_macs);
            assert_true(ops->f32(f, f, rounds) == (double)(rounds * ops->f32_macs));
        }
        bool narrow = isa == CPU_ISA_AVX2 || isa == CPU_ISA_AVXVNNI;
        b[5] = -1; /* two less where it takes part, and it does as often as any other */
        assert_int_equal(ops->int8(a, b, 9) * 32, 9 * ops->int8_macs * (narrow ? 30 : 31));
        b[5] = 1;
    }
}

static void reads_all(void **state)
{
    (void)state;
    enum { BYTES = 256 * PEAK_MAX_STREAMS * 5 };
    uint64_t *p = mem_map(BYTES), sum = 0;
    for (size_t i = 0; i < BYTES / 8; i++)
        sum += p[i] = i * i * 0x9e3779b97f4a7c15u;
    for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++)
        for (int streams = 1; cpu_isa_supported((enum cpu_isa)isa) && streams <= PEAK_MAX_STREAMS; streams *= 2)
            assert_true(peak_ops_get((enum cpu_isa)isa)->read(p, BYTES, streams) == sum);
    mem_unmap(p, BYTES);
}

static void measures(void **state)
{
    (void)state;
    struct machine_peak all, one;
    struct octavo_error err;
    struct pool *pool = pool_new(cpu_num_usable());
    assert_int_equal(machine_peak_measure(pool, cpu_isa_best(), 0.03, &all, &err), 0);
    pool_free(pool);
    pool = pool_new(1);
    assert_int_equal(machine_peak_measure(pool, CPU_ISA_REF, 0.03, &one, &err), 0);
    pool_free(pool);
    const double rates[] = {all.int8_macs, all.f32_macs, all.read_bytes, one.int8_macs, one.f32_macs, one.read_bytes};
    for (size_t i = 0; i < ARRAY_LEN(rates); i++)
        assert_true(isfinite(rates[i]) && rates[i] > 1e6);
    print_message("%.0f int8 GMAC/s, %.0f float32 GMAC/s, %.1f GB/s\n", all.int8_macs / 1e9, all.f32_macs / 1e9,
                  all.read_bytes / 1e9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(reads_all),
        cmocka_unit_test(measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
