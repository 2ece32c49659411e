/* Jinja's tests, and the functions that every template has: range, dict, namespace, cycler, joiner, raise_exception,
 * strftime_now. Runs inside one render. */
#include "text/jinja_eval.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>
#include <time.h>

/* ---- tests ----------------------------------------------------------------------------------------------------- */

#define TEST(id, expr)                                                                                                 \
    static int id(struct jrender *r, const struct jcall *c, struct jval *ret)                                          \
    {                                                                                                                  \
        (void)r;                                                                                                       \
        const struct jval v = c->self;                                                                                 \
        *ret = jval_bool(expr);                                                                                        \
        return 0;                                                                                                      \
    }

TEST(t_defined, v.type != JV_UNDEF)
TEST(t_undefined, v.type == JV_UNDEF)
TEST(t_none, v.type == JV_NONE)
TEST(t_boolean, v.type == JV_BOOL)
TEST(t_true, v.type == JV_BOOL && v.b)
TEST(t_false, v.type == JV_BOOL && !v.b)
TEST(t_integer, v.type == JV_INT)
TEST(t_float, v.type == JV_FLOAT)
TEST(t_number, jval_is_number(&v))
TEST(t_string, v.type == JV_STR)
TEST(t_mapping, v.type == JV_DICT)
TEST(t_sequence,
     v.type == JV_STR || v.type == JV_DICT || v.type == JV_UNDEF || (v.type == JV_LIST && v.list->kind <= JL_RANGE))
TEST(t_iterable, v.type == JV_STR || v.type == JV_DICT || v.type == JV_UNDEF || v.type == JV_LIST || v.type == JV_LOOP)
TEST(t_callable, v.type == JV_UNDEF || v.type == JV_MACRO || v.type == JV_METHOD || v.type == JV_GLOBAL ||
                     v.type == JV_LOOP_FN || v.type == JV_LOOP || v.type == JV_JOINER)
TEST(t_escaped, v.type == JV_ABSENT) /* nothing is marked safe: autoescape is off */
TEST(t_filter, v.type == JV_STR && jfilter_find((struct jname){v.s, v.len}) != NULL)
TEST(t_test, v.type == JV_STR && jtest_find((struct jname){v.s, v.len}) != NULL)
TEST(t_sameas,
     v.type == c->a[0].type && (v.type == JV_STR    ? v.len == c->a[0].len && !memcmp(v.s, c->a[0].s, v.len)
                                : v.type == JV_BOOL ? v.b == c->a[0].b
                                                    : v.type == JV_NONE || v.type == JV_UNDEF || v.i == c->a[0].i))

static int t_cased(struct jrender *r, const struct jcall *c, const char *method, struct jval *ret)
{
    static const struct jargs none;
    struct jval s;
    int rc = jval_to_str(r, c->self, &s);
    return rc < 0 ? rc : jnative_call(r, jmethod_find(&s, (struct jname){method, 7}), s, &none, ret);
}
static int t_lower(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return t_cased(r, c, "islower", ret);
}
static int t_upper(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return t_cased(r, c, "isupper", ret);
}

static int divides(struct jrender *r, struct jval v, struct jval by, int64_t want, struct jval *ret)
{
    struct jval mod;
    int rc = v.type == JV_STR ? jfail(r, "a number is needed, not str") : jval_binop(r, JOP_MOD, v, by, &mod);
    if (rc == 0)
        *ret = jval_bool(jval_double(&mod) == (double)want);
    return rc;
}
static int t_even(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return divides(r, c->self, jval_int(2), 0, ret);
}
static int t_odd(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return divides(r, c->self, jval_int(2), 1, ret);
}
static int t_divisibleby(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return divides(r, c->self, c->a[0], 0, ret);
}

#define COMPARE(id, op)                                                                                                \
    static int id(struct jrender *r, const struct jcall *c, struct jval *ret)                                          \
    {                                                                                                                  \
        bool yes = false;                                                                                              \
        int rc = jval_compare(r, op, c->self, c->a[0], &yes);                                                          \
        *ret = jval_bool(yes);                                                                                         \
        return rc;                                                                                                     \
    }
COMPARE(t_eq, JOP_EQ)
COMPARE(t_ne, JOP_NE)
COMPARE(t_lt, JOP_LT)
COMPARE(t_le, JOP_LE)
COMPARE(t_gt, JOP_GT)
COMPARE(t_ge, JOP_GE)
COMPARE(t_in, JOP_IN)

static const struct jnative tests[] = {
    {"defined", t_defined, "", 0},
    {"undefined", t_undefined, "", 0},
    {"none", t_none, "", 0},
    {"boolean", t_boolean, "", 0},
    {"true", t_true, "", 0},
    {"false", t_false, "", 0},
    {"integer", t_integer, "", 0},
    {"float", t_float, "", 0},
    {"number", t_number, "", 0},
    {"string", t_string, "", 0},
    {"mapping", t_mapping, "", 0},
    {"sequence", t_sequence, "", 0},
    {"iterable", t_iterable, "", 0},
    {"callable", t_callable, "", 0},
    {"escaped", t_escaped, "", 0},
    {"filter", t_filter, "", 0},
    {"test", t_test, "", 0},
    {"sameas", t_sameas, "other", 1},
    {"lower", t_lower, "", 0},
    {"upper", t_upper, "", 0},
    {"even", t_even, "", 0},
    {"odd", t_odd, "", 0},
    {"divisibleby", t_divisibleby, "num", 1},
    {"eq", t_eq, "b", 1},
    {"equalto", t_eq, "b", 1},
    {"==", t_eq, "b", 1},
    {"ne", t_ne, "b", 1},
    {"!=", t_ne, "b", 1},
    {"lt", t_lt, "b", 1},
    {"lessthan", t_lt, "b", 1},
    {"<", t_lt, "b", 1},
    {"le", t_le, "b", 1},
    {"<=", t_le, "b", 1},
    {"gt", t_gt, "b", 1},
    {"greaterthan", t_gt, "b", 1},
    {">", t_gt, "b", 1},
    {"ge", t_ge, "b", 1},
    {">=", t_ge, "b", 1},
    {"in", t_in, "seq", 1},
};

const struct jnative *jtest_find(struct jname name)
{
    for (size_t i = 0; i < ARRAY_LEN(tests); i++)
        if (jname_eq(name, tests[i].name))
            return &tests[i];
    return NULL;
}

/* ---- functions ------------------------------------------------------------------------------------------------- */

static int g_range(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int64_t v[3] = {0, 0, 1};
    int n = 0;
    for (; n < 3 && c->a[n].type != JV_ABSENT; n++) {
        if (c->a[n].type == JV_UNDEF)
            return jfail_undefined(r, c->a[n]);
        if (!jval_is_int(&c->a[n]))
            return jfail(r, "'%s' object cannot be interpreted as an integer", jval_type_name(&c->a[n]));
        v[n] = jval_int_of(&c->a[n]);
    }
    if (n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (!v[2])
        return jfail(r, "range() arg 3 must not be zero");
    uint64_t span = v[2] > 0 ? (v[1] > v[0] ? (uint64_t)v[1] - (uint64_t)v[0] : 0)
                             : (v[0] > v[1] ? (uint64_t)v[0] - (uint64_t)v[1] : 0);
    uint64_t step = v[2] > 0 ? (uint64_t)v[2] : -(uint64_t)v[2], num = span / step + (span % step != 0);
    if (num > JINJA_MAX_RANGE)
        return jfail(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", JINJA_MAX_RANGE);
    struct jlist *l = jlist_new(r, JL_RANGE, (size_t)num);
    if (!l)
        return OCTAVO_EINVAL;
    l->first = v[0];
    l->step = v[2];
    for (uint64_t i = 0; i < num; i++)
        l->items[i] = jval_int((int64_t)((uint64_t)v[0] + i * (uint64_t)v[2]));
    l->num = (size_t)num;
    *ret = jval_list(l);
    return jcharge(r, (size_t)num * 16);
}

static int g_dict(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jdict *d = jdict_new(r);
    int rc = d ? 0 : OCTAVO_EINVAL;
    const struct jargs *a = c->args;
    if (rc == 0 && a->num_pos > 1)
        rc = jfail(r, "dict expected at most 1 argument, got %zu", a->num_pos);
    if (rc == 0 && a->num_pos && a->pos[0].type == JV_DICT) {
        for (size_t i = 0; rc == 0 && i < a->pos[0].dict->num; i++)
            rc = jdict_set(r, d, a->pos[0].dict->entries[i].key, a->pos[0].dict->entries[i].value);
    } else if (rc == 0 && a->num_pos) {
        struct jlist l, pair;
        rc = jval_iterate(r, a->pos[0], &l);
        for (size_t i = 0; rc == 0 && i < l.num; i++) {
            rc = jval_iterate(r, l.items[i], &pair);
            if (rc == 0 && pair.num != 2)
                rc = jfail(r, "dictionary update sequence element #%zu has length %zu; 2 is required", i, pair.num);
            if (rc == 0)
                rc = jdict_set(r, d, pair.items[0], pair.items[1]);
        }
    }
    for (size_t i = 0; rc == 0 && i < a->num_kw; i++)
        rc = jdict_set(r, d, jval_str(a->kw_names[i].s, a->kw_names[i].len), a->kw[i]);
    *ret = jval_dict(d);
    return rc;
}

static int g_namespace(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int rc = g_dict(r, c, ret);
    for (size_t i = 0; rc == 0 && i < ret->dict->num; i++) {
        struct jval k = ret->dict->entries[i].key;
        if (k.type == JV_STR && k.len && k.s[0] == '_')
            return jfail(r, "a namespace cannot have attributes that begin with '_'");
    }
    ret->type = JV_NAMESPACE;
    return rc;
}

static int make_cycler(struct jrender *r, const struct jval *items, size_t num, enum jval_type type, struct jval *ret)
{
    struct jcycler *cy = jalloc(r, 1, sizeof(*cy));
    int rc = cy ? 0 : OCTAVO_EINVAL;
    if (rc == 0)
        *cy = (struct jcycler){0};
    for (size_t i = 0; rc == 0 && i < num; i++)
        rc = jlist_add(r, &cy->items, items[i]);
    *ret = (struct jval){.type = (uint8_t)type, .cycler = cy};
    return rc;
}

static int g_cycler(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    if (!c->args->num_pos)
        return jfail(r, "at least one item has to be provided");
    return make_cycler(r, c->args->pos, c->args->num_pos, JV_CYCLER, ret);
}

static int g_joiner(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval sep = c->a[0].type == JV_ABSENT ? jval_str(", ", 2) : c->a[0];
    return make_cycler(r, &sep, 1, JV_JOINER, ret);
}

static int g_raise(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int rc = jval_to_str(r, c->a[0], ret);
    return rc < 0 ? rc : error_set(r->err, OCTAVO_EINVAL, "%.*s", (int)MIN(ret->len, 1000u), ret->s);
}

static int g_strftime_now(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    char format[256], text[1024];
    if (c->a[0].type != JV_STR || c->a[0].len >= sizeof(format) - 1)
        return jfail(r, "strftime_now needs a format of at most %zu bytes", sizeof(format) - 2);
    memcpy(format, c->a[0].s, c->a[0].len);
    format[c->a[0].len] = ' '; /* so that a result of nothing differs from one that does not fit */
    format[c->a[0].len + 1] = '\0';
    time_t now = time(NULL);
    struct tm tm;
    if (!localtime_r(&now, &tm))
        return jfail(r, "the time of day is not known");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(text, sizeof(text), format, &tm);
#pragma GCC diagnostic pop
    if (!n)
        return jfail(r, "strftime_now makes a text that is too long");
    return jval_copy_str(r, text, n - 1, ret);
}

static const struct jnative globals[] = {
    {"range", g_range, "start stop step", 1},
    {"dict", g_dict, NULL, 0},
    {"namespace", g_namespace, NULL, 0},
    {"cycler", g_cycler, NULL, 0},
    {"joiner", g_joiner, "sep", 0},
    {"raise_exception", g_raise, "message", 1},
    {"strftime_now", g_strftime_now, "format", 1},
};

bool jglobal_find(struct jname name, struct jval *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(globals); i++) {
        if (jname_eq(name, globals[i].name)) {
            *ret = (struct jval){.type = JV_GLOBAL, .sub = (uint8_t)i};
            return true;
        }
    }
    return false;
}

const struct jnative *jglobal_native(unsigned which)
{
    return &globals[which];
}
