/* Jinja's filters over lists and values; those over text are in jinja_textfilters.c. Runs inside one render. */
#include "text/jinja_eval.h"
#include "text/jinja_filters.h"

#include "base/mem.h"
#include "text/jinja_str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool given(struct jval v)
{
    return v.type != JV_ABSENT && v.type != JV_NONE;
}

/* "a.b.0" or 0 of an item, as map(attribute=) and kin look it up: subscripts, names that are digits being numbers. */
static int get_path(struct jrender *r, struct jval item, struct jval path, struct jval *ret)
{
    if (path.type != JV_STR)
        return jval_getitem(r, item, path, ret);
    *ret = item;
    for (size_t at = 0; at <= path.len;) {
        const char *dot = memchr(path.s + at, '.', path.len - at);
        size_t len = dot ? (size_t)(dot - path.s) - at : path.len - at;
        struct jval key = jval_str(path.s + at, len);
        if (len && len < 10 && strspn(key.s, "0123456789") >= len)
            key = jval_int(strtol(key.s, NULL, 10));
        int rc = jval_getitem(r, *ret, key, ret);
        if (rc < 0)
            return rc;
        at += len + 1;
    }
    return 0;
}

/* The key that sort, unique, min, max and groupby compare: the attribute, in lower case unless told otherwise. */
static int make_key(struct jrender *r, struct jval item, struct jval attribute, bool cased, struct jval *ret)
{
    *ret = item;
    int rc = given(attribute) ? get_path(r, item, attribute, ret) : 0;
    if (rc == 0 && !cased && ret->type == JV_STR)
        rc = jval_lower(r, *ret, ret);
    return rc;
}

static int make_keys(struct jrender *r, const struct jlist *l, struct jval attribute, bool cased, struct jval **ret)
{
    int rc = (*ret = jalloc(r, l->num, sizeof(**ret))) ? 0 : OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < l->num; i++)
        rc = make_key(r, l->items[i], attribute, cased, &(*ret)[i]);
    return rc;
}

/* A list of its own with what v gives. */
static int to_list(struct jrender *r, struct jval v, enum jlist_kind kind, struct jlist **ret)
{
    struct jlist src;
    int rc = jval_iterate(r, v, &src);
    if (rc < 0)
        return rc;
    if (!(*ret = jlist_new(r, kind, src.num)))
        return OCTAVO_EINVAL;
    if (src.num)
        memcpy((*ret)->items, src.items, src.num * sizeof(*src.items));
    (*ret)->num = src.num;
    return jcharge(r, src.num * sizeof(*src.items));
}

static int f_default(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    (void)r;
    bool use = c->self.type == JV_UNDEF || (jval_truth(&c->a[1]) && !jval_truth(&c->self));
    *ret = use ? (c->a[0].type == JV_ABSENT ? jval_str("", 0) : c->a[0]) : c->self;
    return 0;
}

static int f_length(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int64_t n;
    int rc = jval_length(r, c->self, &n);
    *ret = jval_int(n);
    return rc;
}

static int f_first(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist *gen = c->self.type == JV_LIST && c->self.list->kind == JL_GENERATOR ? c->self.list : NULL, l;
    if (gen) {
        bool any = gen->pos < gen->num;
        *ret = any ? gen->items[gen->pos++]
                   : jval_undef(r, (struct jname){"", 0}, JV_ABSENT, "No first item, sequence was empty.");
        return 0;
    }
    int rc = jval_iterate(r, c->self, &l);
    if (rc == 0)
        *ret =
            l.num ? l.items[0] : jval_undef(r, (struct jname){"", 0}, JV_ABSENT, "No first item, sequence was empty.");
    return rc;
}

static int f_last(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l;
    if (c->self.type == JV_LIST && c->self.list->kind == JL_GENERATOR)
        return jfail(r, "'generator' object is not reversible");
    int rc = jval_iterate(r, c->self, &l);
    if (rc == 0)
        *ret = l.num ? l.items[l.num - 1]
                     : jval_undef(r, (struct jname){"", 0}, JV_ABSENT, "No last item, sequence was empty.");
    return rc;
}

static int f_list(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist *l;
    int rc = to_list(r, c->self, JL_LIST, &l);
    if (rc == 0)
        *ret = jval_list(l);
    return rc;
}

static int f_reverse(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    if (c->self.type == JV_STR)
        return jval_slice(r, c->self, jval_none(), jval_none(), jval_int(-1), ret);
    struct jlist *l;
    /* What cannot be walked backwards becomes a list first, and then stays one. */
    bool gen = c->self.type == JV_LIST && c->self.list->kind == JL_GENERATOR;
    int rc = to_list(r, c->self, gen ? JL_LIST : JL_GENERATOR, &l);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < l->num / 2; i++) {
        struct jval t = l->items[i];
        l->items[i] = l->items[l->num - 1 - i];
        l->items[l->num - 1 - i] = t;
    }
    *ret = jval_list(l);
    return 0;
}

/* sort(attribute="a,b") compares several attributes in turn. */
static int sort_key(struct jrender *r, struct jval item, struct jval attr, bool cased, struct jval *ret)
{
    if (attr.type != JV_STR || !memchr(attr.s, ',', attr.len))
        return make_key(r, item, attr, cased, ret);
    struct jlist *t = jlist_new(r, JL_TUPLE, 0);
    int rc = t ? 0 : OCTAVO_EINVAL;
    for (size_t at = 0; rc == 0 && at <= attr.len;) {
        const char *comma = memchr(attr.s + at, ',', attr.len - at);
        size_t len = comma ? (size_t)(comma - attr.s) - at : attr.len - at;
        struct jval k;
        rc = make_key(r, item, jval_str(attr.s + at, len), cased, &k);
        if (rc == 0)
            rc = jlist_add(r, t, k);
        at += len + 1;
    }
    *ret = jval_list(t);
    return rc;
}

static int f_sort(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist *l;
    int rc = to_list(r, c->self, JL_LIST, &l);
    struct jval *keys = rc == 0 ? jalloc(r, l->num, sizeof(*keys)) : NULL;
    if (!keys)
        return OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < l->num; i++)
        rc = sort_key(r, l->items[i], c->a[2], jval_truth(&c->a[1]), &keys[i]);
    if (rc == 0)
        rc = jval_sort(r, l->items, keys, l->num, jval_truth(&c->a[0]));
    if (rc == 0)
        *ret = jval_list(l);
    return rc;
}

static int f_dictsort(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    bool by_value = c->a[1].type == JV_STR && c->a[1].len == 5 && !memcmp(c->a[1].s, "value", 5);
    if (c->self.type != JV_DICT)
        return c->self.type == JV_UNDEF ? jfail_undefined(r, c->self) : jfail(r, "dictsort needs a dict");
    static const struct jargs none;
    struct jval items;
    int rc = jnative_call(r, jmethod_find(&c->self, (struct jname){"items", 5}), c->self, &none, &items);
    struct jval *keys = rc == 0 ? jalloc(r, items.list->num, sizeof(*keys)) : NULL;
    if (!keys)
        return OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < items.list->num; i++)
        rc = make_key(r, items.list->items[i].list->items[by_value], jval_none(), jval_truth(&c->a[0]), &keys[i]);
    if (rc == 0)
        rc = jval_sort(r, items.list->items, keys, items.list->num, jval_truth(&c->a[2]));
    items.list->kind = JL_LIST;
    *ret = items;
    return rc;
}

static int f_items(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    static const struct jargs none;
    if (c->self.type == JV_UNDEF) {
        struct jlist *l = jlist_new(r, JL_GENERATOR, 0);
        *ret = jval_list(l);
        return l ? 0 : OCTAVO_EINVAL;
    }
    if (c->self.type != JV_DICT)
        return jfail(r, "Can only get item pairs from a mapping.");
    int rc = jnative_call(r, jmethod_find(&c->self, (struct jname){"items", 5}), c->self, &none, ret);
    if (rc == 0)
        ret->list->kind = JL_GENERATOR;
    return rc;
}

static int f_unique(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l, *out = jlist_new(r, JL_GENERATOR, 0);
    struct jdict *seen = jdict_new(r);
    int rc = out && seen ? jval_iterate(r, c->self, &l) : OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        struct jval key, v;
        bool found = false;
        rc = make_key(r, l.items[i], c->a[1], jval_truth(&c->a[0]), &key);
        if (rc == 0)
            rc = jdict_get(r, seen, key, &v, &found);
        if (rc == 0 && !found)
            rc = jdict_set(r, seen, key, jval_none());
        if (rc == 0 && !found)
            rc = jlist_add(r, out, l.items[i]);
    }
    *ret = jval_list(out);
    return rc;
}

static int best(struct jrender *r, const struct jcall *c, int sign, struct jval *ret)
{
    struct jlist l;
    struct jval *keys = NULL;
    int rc = jval_iterate(r, c->self, &l);
    if (rc == 0)
        rc = make_keys(r, &l, c->a[1], jval_truth(&c->a[0]), &keys);
    if (rc < 0)
        return rc;
    if (!l.num) {
        *ret = jval_undef(r, (struct jname){"", 0}, JV_ABSENT, "No aggregated item, sequence was empty.");
        return 0;
    }
    size_t at = 0;
    for (size_t i = 1; i < l.num; i++) {
        int o;
        rc = jval_order(r, keys[i], keys[at], sign < 0 ? "<" : ">", &o);
        if (rc < 0)
            return rc;
        if (o == sign)
            at = i;
    }
    *ret = l.items[at];
    return 0;
}
static int f_min(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return best(r, c, -1, ret);
}
static int f_max(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return best(r, c, 1, ret);
}

static int f_sum(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l;
    int rc = jval_iterate(r, c->self, &l);
    *ret = c->a[1].type == JV_ABSENT ? jval_int(0) : c->a[1];
    if (rc == 0 && ret->type == JV_STR)
        return jfail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        struct jval v = l.items[i];
        if (given(c->a[0]))
            rc = get_path(r, v, c->a[0], &v);
        if (rc == 0)
            rc = jval_binop(r, JOP_ADD, *ret, v, ret);
    }
    return rc;
}

static int f_join(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l;
    struct jval d = jval_str("", 0);
    struct buf b = {0};
    int rc = jval_iterate(r, c->self, &l);
    if (rc == 0 && c->a[0].type != JV_ABSENT)
        rc = jval_to_str(r, c->a[0], &d);
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        struct jval v = l.items[i];
        if (given(c->a[1]))
            rc = get_path(r, v, c->a[1], &v);
        if (rc == 0 && i)
            rc = jbuf_put(r, &b, d.s, d.len);
        if (rc == 0)
            rc = jval_append_str(r, v, &b);
    }
    return jbuf_finish(r, &b, rc, ret);
}

/* ---- batch, slice, groupby ------------------------------------------------------------------------------------- */

static int f_batch(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l, *out = jlist_new(r, JL_GENERATOR, 0), *row = NULL;
    int rc = out ? jval_iterate(r, c->self, &l) : OCTAVO_EINVAL;
    int64_t n = jval_is_int(&c->a[0]) ? jval_int_of(&c->a[0]) : 0;
    if (rc == 0 && n < 1)
        rc = jfail(r, "batch needs a positive number of items");
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        if (i % (size_t)n == 0) {
            row = jlist_new(r, JL_LIST, 0);
            rc = row ? jlist_add(r, out, jval_list(row)) : OCTAVO_EINVAL;
        }
        if (rc == 0)
            rc = jlist_add(r, row, l.items[i]);
    }
    while (rc == 0 && row && given(c->a[1]) && row->num < (size_t)n)
        rc = jlist_add(r, row, c->a[1]);
    *ret = jval_list(out);
    return rc;
}

static int f_slice(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l, *out = jlist_new(r, JL_GENERATOR, 0);
    int rc = out ? jval_iterate(r, c->self, &l) : OCTAVO_EINVAL;
    int64_t n = jval_is_int(&c->a[0]) ? jval_int_of(&c->a[0]) : 0;
    if (rc == 0 && (n < 1 || n > JINJA_MAX_RANGE))
        rc = jfail(r, "slice needs a number of slices between 1 and %d", JINJA_MAX_RANGE);
    size_t at = 0;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        size_t per = l.num / (size_t)n, more = l.num % (size_t)n, take = per + ((size_t)i < more);
        struct jlist *row = jlist_new(r, JL_LIST, 0);
        rc = row ? jlist_add(r, out, jval_list(row)) : OCTAVO_EINVAL;
        for (; rc == 0 && take; take--)
            rc = jlist_add(r, row, l.items[at++]);
        if (rc == 0 && given(c->a[1]) && (size_t)i >= more)
            rc = jlist_add(r, row, c->a[1]);
    }
    *ret = jval_list(out);
    return rc;
}

static int f_groupby(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist *l, *out = jlist_new(r, JL_LIST, 0), *group = NULL;
    int rc = out ? to_list(r, c->self, JL_LIST, &l) : OCTAVO_EINVAL;
    struct jval *keys = rc == 0 ? jalloc(r, l->num, sizeof(*keys)) : NULL, last = jval_none();
    if (!keys)
        return OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < l->num; i++) {
        rc = make_key(r, l->items[i], c->a[0], jval_truth(&c->a[2]), &keys[i]);
        if (rc == 0 && keys[i].type == JV_UNDEF && c->a[1].type != JV_ABSENT)
            keys[i] = c->a[1];
    }
    if (rc == 0)
        rc = jval_sort(r, l->items, keys, l->num, false);
    for (size_t i = 0; rc == 0 && i < l->num; i++) {
        bool eq = false;
        if (i)
            rc = jval_equal(r, last, keys[i], &eq);
        if (rc == 0 && !eq) {
            struct jlist *pair = jlist_new(r, JL_TUPLE, 2);
            group = pair ? jlist_new(r, JL_LIST, 0) : NULL;
            if (!group)
                return OCTAVO_EINVAL;
            struct jval shown = keys[i];
            rc = make_key(r, l->items[i], c->a[0], true, &shown);
            pair->items[0] = shown.type == JV_UNDEF ? keys[i] : shown;
            pair->items[1] = jval_list(group);
            pair->num = 2;
            last = keys[i];
            if (rc == 0)
                rc = jlist_add(r, out, jval_list(pair));
        }
        if (rc == 0)
            rc = jlist_add(r, group, l->items[i]);
    }
    *ret = jval_list(out);
    return rc;
}

/* ---- map, select, reject --------------------------------------------------------------------------------------- */

static int find_kw(const struct jargs *a, const char *name)
{
    for (size_t i = 0; i < a->num_kw; i++)
        if (jname_eq(a->kw_names[i], name))
            return (int)i;
    return -1;
}

/* The filter or test whose name is argument `at`, and the arguments after it. */
static int named(struct jrender *r, const struct jargs *a, size_t at, bool filter, const struct jnative **ret,
                 struct jargs *rest)
{
    if (a->num_pos <= at)
        return jfail(r, "the name of a %s is missing", filter ? "filter" : "test");
    struct jval name = a->pos[at];
    *ret = name.type != JV_STR ? NULL
           : filter            ? jfilter_find((struct jname){name.s, name.len})
                               : jtest_find((struct jname){name.s, name.len});
    if (!*ret)
        return jfail(r, "no %s named '%.*s'", filter ? "filter" : "test",
                     name.type == JV_STR ? (int)MIN(name.len, 40u) : 1, name.type == JV_STR ? name.s : "?");
    *rest = *a;
    rest->pos += at + 1;
    rest->num_pos -= at + 1;
    return 0;
}

/* Filters may call filters by name (map('map', ...)): each level is a frame. */
static int call_named(struct jrender *r, const struct jnative *n, struct jval self, const struct jargs *args,
                      struct jval *ret)
{
    if (r->depth >= JINJA_MAX_EVAL_DEPTH)
        return jfail(r, "the template nests calls more than %d deep", JINJA_MAX_EVAL_DEPTH);
    r->depth++;
    int rc = jcharge(r, 0);
    if (rc == 0)
        rc = jnative_call(r, n, self, args, ret);
    r->depth--;
    return rc;
}

static int f_map(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l, *out = jlist_new(r, JL_GENERATOR, 0);
    const struct jnative *f = NULL;
    struct jargs rest = {0};
    struct jval attr = jval_none(), def = {.type = JV_ABSENT};
    int rc = out ? jval_iterate(r, c->self, &l) : OCTAVO_EINVAL, at = find_kw(c->args, "attribute");
    if (rc == 0 && !c->args->num_pos && at >= 0) {
        attr = c->args->kw[at];
        if ((at = find_kw(c->args, "default")) >= 0)
            def = c->args->kw[at];
    } else if (rc == 0) {
        rc = named(r, c->args, 0, true, &f, &rest);
    }
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        struct jval v = l.items[i];
        rc = f ? call_named(r, f, v, &rest, &v) : get_path(r, v, attr, &v);
        if (rc == 0 && !f && v.type == JV_UNDEF && def.type != JV_ABSENT)
            v = def;
        if (rc == 0)
            rc = jlist_add(r, out, v);
    }
    *ret = jval_list(out);
    return rc;
}

static int pick(struct jrender *r, const struct jcall *c, bool by_attr, bool keep, struct jval *ret)
{
    struct jlist l, *out = jlist_new(r, JL_GENERATOR, 0);
    const struct jnative *test = NULL;
    struct jargs rest = {0};
    int rc = out ? jval_iterate(r, c->self, &l) : OCTAVO_EINVAL;
    if (rc == 0 && by_attr && !c->args->num_pos)
        rc = jfail(r, "the name of an attribute is missing");
    if (rc == 0 && c->args->num_pos > by_attr)
        rc = named(r, c->args, by_attr, false, &test, &rest);
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        struct jval v = l.items[i], yes;
        if (by_attr)
            rc = get_path(r, v, c->args->pos[0], &v);
        yes = v;
        if (rc == 0 && test)
            rc = call_named(r, test, v, &rest, &yes);
        if (rc == 0 && jval_truth(&yes) == keep)
            rc = jlist_add(r, out, l.items[i]);
    }
    *ret = jval_list(out);
    return rc;
}
static int f_select(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pick(r, c, false, true, ret);
}
static int f_reject(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pick(r, c, false, false, ret);
}
static int f_selectattr(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pick(r, c, true, true, ret);
}
static int f_rejectattr(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pick(r, c, true, false, ret);
}

static int f_attr(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval name = c->a[0];
    if (name.type != JV_STR)
        return jfail(r, "attr needs the name of an attribute");
    if (c->self.type == JV_DICT && !jmethod_find(&c->self, (struct jname){name.s, name.len})) {
        *ret = jval_undef(r, (struct jname){name.s, name.len}, c->self.type, NULL); /* attributes only, not keys */
        return 0;
    }
    return jval_getattr(r, c->self, (struct jname){name.s, name.len}, ret);
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static int f_abs(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    if (c->self.type == JV_FLOAT) {
        *ret = jval_float(fabs(c->self.f));
        return 0;
    }
    if (c->self.type == JV_UNDEF)
        return jfail_undefined(r, c->self);
    if (!jval_is_int(&c->self))
        return jfail(r, "bad operand type for abs(): '%s'", jval_type_name(&c->self));
    int64_t i = jval_int_of(&c->self);
    return i < 0 ? jval_binop(r, JOP_SUB, jval_int(0), jval_int(i), ret) : (*ret = jval_int(i), 0);
}

/* A Python number in text: spaces around, single underscores within. */
static bool number_text(struct jval v, char *out, size_t cap)
{
    size_t from = 0, n, k = 0;
    while (from < v.len && (n = jstr_space_at(v.s + from, v.len - from)) > 0)
        from += n;
    size_t to = from + jstr_rstrip_len(v.s + from, v.len - from);
    if (to == from || to - from >= cap)
        return false;
    for (size_t i = from; i < to; i++) {
        if (v.s[i] != '_')
            out[k++] = v.s[i];
        else if (i == from || i + 1 == to || v.s[i - 1] == '_' || !strchr("0123456789abcdefABCDEF", v.s[i + 1]))
            return false;
    }
    out[k] = '\0';
    return k == strlen(out);
}

static bool parse_float(struct jval v, double *ret)
{
    char text[400], *end;
    if (!number_text(v, text, sizeof(text)) || strpbrk(text, "xXpP("))
        return false;
    *ret = strtod(text, &end);
    return !*end;
}

static int f_int(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int64_t base = jval_is_int(&c->a[1]) ? jval_int_of(&c->a[1]) : 10;
    struct jval v = c->self;
    double f = 0;
    *ret = c->a[0].type == JV_ABSENT ? jval_int(0) : c->a[0];
    if (v.type == JV_UNDEF)
        return jfail_undefined(r, v);
    if (jval_is_int(&v)) {
        *ret = jval_int(jval_int_of(&v));
        return 0;
    }
    if (v.type == JV_STR) {
        char text[80], *end;
        if (base == 0 || (base >= 2 && base <= 36)) {
            bool ok = number_text(v, text, sizeof(text));
            const char *p = text;
            if (ok && base != 10) {
                p += *p == '-' || *p == '+';
                static const char prefix[] = "bB\2oO\10xX\20";
                for (size_t i = 0; i < 9 && p[0] == '0' && p[1]; i += 3) {
                    if ((p[1] == prefix[i] || p[1] == prefix[i + 1]) && (base == prefix[i + 2] || base == 0)) {
                        bool neg = text[0] == '-';
                        base = prefix[i + 2];
                        memmove(text + neg, p + 2, strlen(p + 2) + 1);
                        break;
                    }
                }
            }
            if (ok && text[0] && !strpbrk(text, "xX") && !(text[0] == '-' && (text[1] == '-' || text[1] == '+'))) {
                long long i = strtoll(text, &end, base ? (int)base : 10);
                if (!*end && (i == INT64_MAX || i == INT64_MIN))
                    return jfail(r, "an integer does not fit into 64 bits");
                if (!*end) {
                    *ret = jval_int(i);
                    return 0;
                }
            }
        }
        if (!parse_float(v, &f))
            return 0;
    } else if (v.type == JV_FLOAT) {
        f = v.f;
    } else {
        return 0;
    }
    if (isnan(f) || isinf(f))
        return isinf(f) ? jfail(r, "cannot convert float infinity to integer") : 0;
    if (fabs(f) >= 9.2e18)
        return jfail(r, "an integer does not fit into 64 bits");
    *ret = jval_int((int64_t)f);
    return 0;
}

static int f_float(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    double f;
    *ret = c->a[0].type == JV_ABSENT ? jval_float(0) : c->a[0];
    if (c->self.type == JV_UNDEF)
        return jfail_undefined(r, c->self);
    if (jval_is_number(&c->self))
        *ret = jval_float(jval_double(&c->self));
    else if (c->self.type == JV_STR && parse_float(c->self, &f))
        *ret = jval_float(f);
    return 0;
}

static int f_round(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int64_t prec = jval_is_int(&c->a[0]) ? jval_int_of(&c->a[0]) : 0;
    struct jval how = c->a[1];
    if (c->self.type == JV_UNDEF)
        return jfail_undefined(r, c->self);
    if (!jval_is_number(&c->self))
        return jfail(r, "type %s doesn't define __round__ method", jval_type_name(&c->self));
    double f = jval_double(&c->self);
    bool is_int = jval_is_int(&c->self);
    if (how.type == JV_STR &&
        (jname_eq((struct jname){how.s, how.len}, "ceil") || jname_eq((struct jname){how.s, how.len}, "floor"))) {
        double p = pow(10, (double)prec);
        *ret = jval_float((how.s[0] == 'c' ? ceil(f * p) : floor(f * p)) / p);
        return 0;
    }
    if (is_int && prec >= 0) {
        *ret = jval_int(jval_int_of(&c->self));
        return 0;
    }
    if (prec > 300 || isnan(f) || isinf(f)) {
        *ret = c->self;
        return 0;
    }
    char text[720];
    if (prec >= 0) { /* printf rounds the exact value, half to even, as Python does */
        snprintf(text, sizeof(text), "%.*f", (int)prec, f);
        f = strtod(text, NULL);
    } else if (prec < -300) {
        f = copysign(0, f);
    } else {
        double p = pow(10, (double)-prec);
        f = nearbyint(f / p) * p;
    }
    *ret = is_int ? jval_int((int64_t)f) : jval_float(f);
    return 0;
}

static const struct jnative filters[] = {
    {"default", f_default, "default_value boolean", 0},
    {"d", f_default, "default_value boolean", 0},
    {"length", f_length, "", 0},
    {"count", f_length, "", 0},
    {"first", f_first, "", 0},
    {"last", f_last, "", 0},
    {"list", f_list, "", 0},
    {"reverse", f_reverse, "", 0},
    {"sort", f_sort, "reverse case_sensitive attribute", 0},
    {"dictsort", f_dictsort, "case_sensitive by reverse", 0},
    {"items", f_items, "", 0},
    {"unique", f_unique, "case_sensitive attribute", 0},
    {"min", f_min, "case_sensitive attribute", 0},
    {"max", f_max, "case_sensitive attribute", 0},
    {"sum", f_sum, "attribute start", 0},
    {"join", f_join, "d attribute", 0},
    {"batch", f_batch, "linecount fill_with", 1},
    {"slice", f_slice, "slices fill_with", 1},
    {"groupby", f_groupby, "attribute default case_sensitive", 1},
    {"map", f_map, NULL, 0},
    {"select", f_select, NULL, 0},
    {"reject", f_reject, NULL, 0},
    {"selectattr", f_selectattr, NULL, 0},
    {"rejectattr", f_rejectattr, NULL, 0},
    {"attr", f_attr, "name", 1},
    {"abs", f_abs, "", 0},
    {"int", f_int, "default base", 0},
    {"float", f_float, "default", 0},
    {"round", f_round, "precision method", 0},
};

const struct jnative *jfilter_find(struct jname name)
{
    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        if (jname_eq(name, filters[i].name))
            return &filters[i];
    return jtextfilter_find(name);
}
