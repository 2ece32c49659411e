/* Methods of Python's list, tuple, dict and float that templates call, and the way to those of all types. Runs inside
 * one render. */
#include "text/jinja_methods.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_str.h"

#include <string.h>
#include <utf8proc.h>

/* ---- dict and list --------------------------------------------------------------------------------------------- */

static int dict_view(struct jrender *r, const struct jdict *d, enum jlist_kind kind, struct jval *ret)
{
    struct jlist *l = jlist_new(r, kind, d->num);
    if (!l)
        return OCTAVO_EINVAL;
    for (size_t i = 0; i < d->num; i++) {
        const struct jentry *e = &d->entries[i];
        struct jval v = kind == JL_KEYS ? e->key : e->value;
        if (kind == JL_ITEMS) {
            struct jlist *pair = jlist_new(r, JL_TUPLE, 2);
            if (!pair)
                return OCTAVO_EINVAL;
            pair->items[0] = e->key;
            pair->items[1] = e->value;
            pair->num = 2;
            v = jval_list(pair);
        }
        int rc = jlist_add(r, l, v);
        if (rc < 0)
            return rc;
    }
    *ret = jval_list(l);
    return 0;
}
static int m_keys(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return dict_view(r, c->self.dict, JL_KEYS, ret);
}
static int m_values(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return dict_view(r, c->self.dict, JL_VALUES, ret);
}
static int m_items(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return dict_view(r, c->self.dict, JL_ITEMS, ret);
}
static int m_get(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    bool found;
    if (c->args->num_kw)
        return jfail(r, "get() takes no keyword arguments");
    int rc = jdict_get(r, c->self.dict, c->a[0], ret, &found);
    if (rc == 0 && !found)
        *ret = c->a[1].type == JV_ABSENT ? jval_none() : c->a[1];
    return rc;
}
static int m_copy(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    if (c->self.type == JV_LIST)
        return jval_slice(r, c->self, jval_none(), jval_none(), jval_none(), ret);
    struct jdict *d = jdict_new(r);
    int rc = d ? 0 : OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < c->self.dict->num; i++)
        rc = jdict_set(r, d, c->self.dict->entries[i].key, c->self.dict->entries[i].value);
    *ret = jval_dict(d);
    return rc;
}
static int m_list_index(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    for (size_t i = 0; i < c->self.list->num; i++) {
        bool eq;
        int rc = jval_equal(r, c->self.list->items[i], c->a[0], &eq);
        if (rc < 0)
            return rc;
        if (eq) {
            *ret = jval_int((int64_t)i);
            return 0;
        }
    }
    return jfail(r, "the value is not in the list");
}
static int m_list_count(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.list->num; i++) {
        bool eq;
        int rc = jval_equal(r, c->self.list->items[i], c->a[0], &eq);
        if (rc < 0)
            return rc;
        n += eq;
    }
    *ret = jval_int(n);
    return 0;
}
static int m_cycler_next(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    (void)r;
    struct jcycler *cy = c->self.cycler;
    *ret = cy->items.items[cy->pos];
    cy->pos = (cy->pos + 1) % cy->items.num;
    return 0;
}
static int m_cycler_reset(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    (void)r;
    c->self.cycler->pos = 0;
    *ret = jval_none();
    return 0;
}
static int m_is_integer(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    (void)r;
    *ret = jval_bool(c->self.type == JV_INT || c->self.f == (double)(int64_t)MAX(MIN(c->self.f, 9e18), -9e18));
    return 0;
}

static const struct jnative dict_methods[] = {
    {"keys", m_keys, "", 0},          {"values", m_values, "", 0}, {"items", m_items, "", 0},
    {"get", m_get, "key default", 1}, {"copy", m_copy, "", 0},
};
static const struct jnative list_methods[] = {
    {"index", m_list_index, "value", 1}, {"count", m_list_count, "value", 1}, {"copy", m_copy, "", 0}};
static const struct jnative cycler_methods[] = {{"next", m_cycler_next, "", 0}, {"reset", m_cycler_reset, "", 0}};
static const struct jnative float_methods[] = {{"is_integer", m_is_integer, "", 0}};

const struct jnative *jmethod_find(const struct jval *self, struct jname name)
{
    const struct jnative *t = NULL;
    size_t n = 0;
    switch (self->type) {
    case JV_STR:
        return jstrmethod_find(name);
    case JV_DICT:
        t = dict_methods;
        n = ARRAY_LEN(dict_methods);
        break;
    case JV_LIST:
        t = list_methods;
        n = self->list->kind == JL_LIST ? 3 : self->list->kind <= JL_RANGE ? 2 : 0;
        break;
    case JV_CYCLER:
        t = cycler_methods;
        n = ARRAY_LEN(cycler_methods);
        break;
    case JV_FLOAT:
        t = float_methods;
        n = ARRAY_LEN(float_methods);
        break;
    default:
        break;
    }
    for (size_t i = 0; i < n; i++)
        if (jname_eq(name, t[i].name))
            return &t[i];
    return NULL;
}

bool jmethod_is_unsafe(const struct jval *self, struct jname name)
{
    static const char *const lists[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
    static const char *const dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
    bool list = self->type == JV_LIST && self->list->kind == JL_LIST;
    if (!list && self->type != JV_DICT)
        return false;
    const char *const *t = list ? lists : dicts;
    for (size_t i = 0; i < (list ? ARRAY_LEN(lists) : ARRAY_LEN(dicts)); i++)
        if (jname_eq(name, t[i]))
            return true;
    return false;
}
