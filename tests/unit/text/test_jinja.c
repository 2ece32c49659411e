/* The Jinja engine against Jinja2: every small case that tests/golden/chat/record.py recorded, and the limits. */
#include "text/jinja.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int run(const char *text, const json_t *context, const struct jinja_limits *limits, struct buf *out,
               struct octavo_error *err)
{
    struct jinja_template *t = NULL;
    buf_clear(out);
    int rc = jinja_compile(text, strlen(text), "t.jinja", &t, err);
    if (rc == 0)
        rc = jinja_render(t, context, limits, out, err);
    jinja_free(t);
    return rc;
}

static void test_recorded(void **state)
{
    (void)state;
    json_t *root = json_load_file(GOLDEN_DIR "/expr.json", JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    const json_t *cases = json_object_get(root, "cases"), *context = json_object_get(root, "context");
    size_t failed = 0;
    assert_true(json_array_size(cases) >= 300);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *want = json_object_get(c, "o");
        const char *text = json_string_value(json_object_get(c, "t"));
        struct buf out = {0};
        struct octavo_error err = {0};
        int rc = run(text, context, NULL, &out, &err);
        bool same = want ? rc == 0 && out.len == json_string_length(want) &&
                               !memcmp(buf_str(&out), json_string_value(want), out.len)
                         : rc == OCTAVO_EINVAL && err.msg[0];
        if (!same) {
            print_error("%s\n  want: %s\n  got:  %s\n", text,
                        want ? json_string_value(want) : json_string_value(json_object_get(c, "e")),
                        rc < 0 ? err.msg : buf_str(&out));
            failed++;
        }
        buf_release(&out);
    }
    json_decref(root);
    assert_int_equal(failed, 0);
}

static void assert_fails(const char *text, const struct jinja_limits *limits, const char *msg)
{
    json_t *context = json_object();
    struct buf out = {0};
    struct octavo_error err = {0};
    assert_int_equal(run(text, context, limits, &out, &err), OCTAVO_EINVAL);
    if (!strstr(err.msg, msg))
        fail_msg("%s: %s", text, err.msg);
    buf_release(&out);
    json_decref(context);
}

static void test_limits(void **state)
{
    (void)state;
    struct jinja_limits small;
    jinja_limits_init(&small);
    small.max_steps = 10000;
    small.max_memory = 1 << 20;
    small.max_output = 1000;
    assert_fails("{{ 'a' * 10 ** 12 }}", NULL, "repeating");
    assert_fails("{{ [1] * 10 ** 12 }}", NULL, "repeating");
    assert_fails("{{ 'a'.center(10 ** 12) }}", NULL, "width");
    assert_fails("{{ '%999999999d' % 1 }}", NULL, "width");
    assert_fails("{{ range(10 ** 9) }}", NULL, "Range too big");
    assert_fails("{% for i in range(1000) %}aaaa{% endfor %}", &small, "longer than");
    assert_fails("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", &small, "steps");
    assert_fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", NULL, "deep");
    assert_fails(
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", NULL,
        "deep");
    assert_fails("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
                 NULL, "bytes");
    assert_fails("\n\n{{ nope.x }}", NULL, "t.jinja, line 3: 'nope' is undefined");
    assert_fails("{{ 9223372036854775807 + 1 }}", NULL, "64 bits");
    assert_fails("{{ raise_exception('only this') }}", NULL, "only this");
}

/* Any one piece repeated must end quickly in an error or a result, never in a deep recursion. */
static void test_repeated(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "{{ (",      "{{ [",    "{{ -",    "{{ not ",    "1 + ",   "{% if 1 %}", "{% for x in y %}",
        "{{",        "{%",      "{#",      "{{ 'a' ~ ",  "{{ {1:", "a.b",        "{{ a if b else ",
        "{% raw %}", "{{ x|e|", "{{ x()(", "{{ a is b ", "\\\\'"};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        for (int closed = 0; closed < 2; closed++) {
            struct buf text = {0}, out = {0};
            struct octavo_error err = {0};
            if (closed)
                buf_puts(&text, "{{ ");
            for (int k = 0; k < 20000; k++)
                buf_puts(&text, pieces[i]);
            if (closed)
                buf_puts(&text, " 1 }}");
            json_t *context = json_object();
            int rc = run(buf_str(&text), context, NULL, &out, &err);
            assert_true(rc == 0 || rc == OCTAVO_EINVAL);
            json_decref(context);
            buf_release(&text);
            buf_release(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
