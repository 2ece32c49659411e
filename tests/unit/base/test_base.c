/* base/: strings, UTF-8, JSON, maps, errors, the worker pool, CPU tiers. */
#include "base/buf.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/strmap.h"
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void utf8_forms(void **state)
{
    (void)state;
    uint32_t cp;
    assert_int_equal(utf8_decode("\xf0\x9f\x98\x80", 4, &cp), 4);
    assert_int_equal(cp, 0x1f600);
    assert_int_equal(utf8_decode("\xf0\x9f\x98", 3, &cp), UTF8_TRUNCATED);
    assert_int_equal(utf8_decode("\xc0\x80", 2, &cp), UTF8_INVALID);     /* overlong */
    assert_int_equal(utf8_decode("\xed\xa0\x80", 3, &cp), UTF8_INVALID); /* surrogate */
    assert_int_equal(utf8_decode("\xf4\x90\x80\x80", 4, &cp), UTF8_INVALID);
    assert_int_equal(utf8_bad_len("\xf0\x9f\x98x", 4), 3);
    assert_int_equal(utf8_bad_len("\xed\xa0\x80", 3), 1);
    assert_int_equal(utf8_incomplete_tail("ab\xe4\xbd", 4), 2);
    assert_int_equal(utf8_incomplete_tail("ab\xe4\xbd\xa0", 5), 0);
    assert_int_equal(utf8_incomplete_tail("\x80\x80\x80", 3), 0);
    /* every scalar value survives the round trip */
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        char s[4];
        int n = utf8_encode(c, s);
        assert_int_equal(utf8_decode(s, (size_t)n, &cp), n);
        assert_int_equal(cp, c);
    }
}

static void json_strings(void **state)
{
    (void)state;
    struct buf b = {0};
    const char in[] = "a\"\\\n\x01\b\f\xff\xe4\xbd\xa0";
    json_write_string(&b, in, sizeof(in) - 1);
    assert_string_equal(b.data, "\"a\\\"\\\\\\n\\u0001\\b\\f\xef\xbf\xbd\xe4\xbd\xa0\"");
    json_t *v;
    struct octavo_error err;
    assert_int_equal(json_parse_text(b.data, b.len, "x", 0, &v, &err), 0);
    json_decref(v);
    buf_release(&b);
}

static void json_bad_input(void **state)
{
    (void)state;
    json_t *v = NULL;
    struct octavo_error err;
    char *deep = malloc(20001);
    memset(deep, '[', 10000);
    memset(deep + 10000, ']', 10000);
    assert_int_equal(json_parse_text(deep, 20000, "deep", 0, &v, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "deep is not valid JSON"));
    free(deep);
    assert_int_equal(json_parse_text("{\"a\":1,\"a\":2}", 13, "d", JSON_PARSE_REJECT_DUPLICATES, &v, &err),
                     OCTAVO_EINVAL);
    assert_int_equal(json_parse_text("{\"a\":1e99, \"b\":3.0}", 19, "d", 0, &v, &err), 0);
    int64_t n = 7;
    assert_int_equal(json_get_int(v, "cfg", "a", 0, 10, &n, &err), OCTAVO_EINVAL);
    assert_string_equal(err.param, "a");
    assert_int_equal(json_get_int(v, "cfg", "b", 0, 10, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(json_get_int(v, "cfg", "b", 4, 10, &n, &err), OCTAVO_EINVAL);
    json_decref(v);
}

/* What Python writes for int(1e30), in every Llama tokenizer_config.json. */
static void json_wide_integers(void **state)
{
    (void)state;
    static const char text[] = "{\"a\": 1000000000000000019884624838656, \"b\": [-9223372036854775809,"
                               "9223372036854775807,1e5], \"c\": \"\\\"99999999999999999999\"}";
    json_t *v = NULL;
    struct octavo_error err;
    assert_int_equal(json_parse_text(text, sizeof(text) - 1, "wide", 0, &v, &err), 0);
    double d = 0;
    int64_t n = 7;
    assert_int_equal(json_get_double(v, "wide", "a", &d, &err), 0);
    assert_true(d == 1e30);
    assert_int_equal(json_get_int(v, "wide", "a", 0, 10, &n, &err), OCTAVO_EINVAL);
    assert_string_equal(err.msg, "wide: a is 1e+30, but must be between 0 and 10");
    assert_string_equal(json_string_value(json_object_get(v, "c")), "\"99999999999999999999");
    json_t *b = json_object_get(v, "b");
    assert_true(json_real_value(json_array_get(b, 0)) == -0x1p63);
    json_decref(v);
    assert_int_equal(json_parse_text("1e999", 5, "huge", 0, &v, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "huge is not valid JSON"));
    assert_int_equal(json_parse_text("[99999999999999999999", 21, "cut", 0, &v, &err), OCTAVO_EINVAL);
}

static void strmap_many(void **state)
{
    (void)state;
    struct strmap m = {0};
    char key[16];
    for (int i = 0; i < 10000; i++) {
        int n = snprintf(key, sizeof(key), "k%d", i);
        assert_true(strmap_add(&m, key, (size_t)n, i, NULL));
    }
    int32_t old = -1;
    assert_false(strmap_add(&m, "k77", 3, 5, &old));
    assert_int_equal(old, 77);
    for (int i = 0; i < 10000; i++) {
        int n = snprintf(key, sizeof(key), "k%d", i);
        assert_int_equal(strmap_get(&m, key, (size_t)n, -1), i);
    }
    assert_int_equal(strmap_get(&m, "absent", 6, -9), -9);
    strmap_release(&m);
}

static void errors_are_one_line(void **state)
{
    (void)state;
    struct octavo_error err;
    assert_int_equal(error_set(&err, OCTAVO_EIO, "bad %s", "a\nb\x1b[0m"), OCTAVO_EIO);
    assert_string_equal(err.msg, "bad a?b?[0m");
    assert_int_equal(error_prefix(&err, "file %d", 3), OCTAVO_EIO);
    assert_string_equal(err.msg, "file 3: bad a?b?[0m");
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

enum { TURN_ITEMS = 1003, TURN_ROUNDS = 50 };

struct turns {
    struct pool *pool;
    _Atomic int taken[TURN_ITEMS], sum, torn;
    int n, most;
};

/* In the first round worker 0 waits after its first piece until all else is done: others have to do it. */
static void turns_run(void *arg, int worker, int num_workers)
{
    struct turns *t = arg;
    for (int round = 0; round < TURN_ROUNDS; round++) {
        struct pool_turn turn;
        int begin, end;
        pool_turn_begin(&turn, t->pool, worker, t->n, t->most);
        while (pool_turn_next(&turn, &begin, &end)) {
            if (begin >= end || end > t->n || end - begin > t->most)
                atomic_fetch_add(&t->torn, 1);
            for (int i = begin; i < end; i++)
                atomic_fetch_add(&t->taken[i], 1);
            atomic_fetch_add(&t->sum, end - begin);
            while (worker == 0 && num_workers > 1 && round == 0 && atomic_load(&t->sum) < t->n)
                usleep(100);
        }
        pool_barrier(t->pool);
        if (round % 3 == 0) /* a phase without a turn */
            pool_barrier(t->pool);
    }
}

static void pool_turns(void **state)
{
    (void)state;
    static const int shapes[][2] = {{TURN_ITEMS, 1}, {TURN_ITEMS, 32}, {1, 1}, {2, 8}, {0, 1}, {1000, 1000}};
    for (int workers = 1; workers <= 5; workers++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            struct turns t = {.pool = pool_new(workers), .n = shapes[s][0], .most = shapes[s][1]};
            assert_non_null(t.pool);
            pool_run(t.pool, turns_run, &t);
            atomic_store(&t.sum, 0);
            pool_run(t.pool, turns_run, &t);
            assert_int_equal(atomic_load(&t.torn), 0);
            for (int i = 0; i < TURN_ITEMS; i++)
                assert_int_equal(t.taken[i], i < t.n ? 2 * TURN_ROUNDS : 0);
            pool_free(t.pool);
        }
}

/* --isa's list is the tiers; a CPU runs those of its own architecture only, and the best is one of them. */
static void isa_tiers(void **state)
{
    (void)state;
    enum cpu_isa isa;
    assert_string_equal(cpu_isa_choices[0], "auto");
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        assert_ptr_equal(cpu_isa_choices[i + 1], cpu_isa_name((enum cpu_isa)i));
        assert_int_equal(cpu_isa_parse(cpu_isa_choices[i + 1], &isa), 0);
        assert_int_equal(isa, i);
    }
    assert_null(cpu_isa_choices[CPU_ISA_COUNT + 1]);
    assert_int_equal(cpu_isa_parse("mmx", &isa), -1);
    assert_true(cpu_isa_supported(CPU_ISA_REF));
    assert_int_equal(cpu_isa_parse("auto", &isa), 0);
    assert_true(isa == cpu_isa_best() && cpu_isa_supported(isa));
    for (int i = (int)isa + 1; i < CPU_ISA_COUNT; i++)
        assert_false(cpu_isa_supported((enum cpu_isa)i));
    assert_false(cpu_isa_supported(CPU_ISA_AVX2) && cpu_isa_supported(CPU_ISA_DOTPROD));
    if (cpu_isa_supported(CPU_ISA_AVX512AMX))
        assert_true(cpu_isa_supported(CPU_ISA_AVX512VNNI) && cpu_isa_supported(CPU_ISA_AVX512));
}

/* Whole and zeroed, and from the size of a huge page on at the beginning of one. */
static void maps(void **state)
{
    (void)state;
    const size_t huge = (size_t)2 << 20;
    for (size_t at = 0; at < 4; at++)
        for (int more = -1; more <= 1; more++) {
            size_t bytes = at * huge + (size_t)(at ? more : more + 1);
            uint8_t *p = mem_map(bytes);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % (bytes >= huge ? huge : 64), 0);
            for (size_t i = 0; i < bytes; i++)
                assert_int_equal(p[i], 0);
            memset(p, 1, bytes);
            mem_unmap(p, bytes);
        }
    assert_null(mem_map(SIZE_MAX));
    assert_null(mem_map(SIZE_MAX - huge));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps),
        cmocka_unit_test(utf8_forms),
        cmocka_unit_test(json_strings),
        cmocka_unit_test(json_bad_input),
        cmocka_unit_test(json_wide_integers),
        cmocka_unit_test(strmap_many),
        cmocka_unit_test(errors_are_one_line),
        cmocka_unit_test(pool_runs),
        cmocka_unit_test(pool_turns),
        cmocka_unit_test(isa_tiers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
