/* Values: making, comparing, hashing and looking into them, as Python does. Runs inside one render on its thread. */
#include "text/jinja_value.h"

#include "base/mem.h"
#include "text/jinja_str.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

bool jname_eq(struct jname name, const char *s)
{
    return name.len == strlen(s) && memcmp(name.s, s, name.len) == 0;
}

int jfail(struct jrender *r, const char *fmt, ...)
{
    char msg[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    return error_set(r->err, OCTAVO_EINVAL, "%s, line %u: %s", r->t->name, r->line, msg);
}

int jfail_undefined(struct jrender *r, struct jval v)
{
    const struct jundef *u = v.undef;
    if (!u)
        return jfail(r, "a value is undefined");
    if (u->why)
        return jfail(r, "%s", u->why);
    int n = (int)MIN(u->name.len, 100u);
    if (u->owner == JV_ABSENT)
        return jfail(r, "'%.*s' is undefined", n, u->name.s);
    struct jval o = {.type = u->owner};
    static struct jlist none;
    if (o.type == JV_LIST)
        o.list = &none;
    return jfail(r, "'%s object' has no attribute '%.*s'", jval_type_name(&o), n, u->name.s);
}

int jcharge(struct jrender *r, size_t bytes)
{
    r->steps += 1 + bytes / 16;
    if (r->steps > r->limits.max_steps)
        return jfail(r, "the template takes more than %llu steps", (unsigned long long)r->limits.max_steps);
    return 0;
}

/* ---- arena ----------------------------------------------------------------------------------------------------- */

void *jarena_try_alloc(struct jarena *a, size_t bytes)
{
    if (bytes > a->limit)
        return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > (size_t)(a->end - a->cur)) {
        size_t cap = MAX(bytes, MIN((size_t)1 << 20, MAX((size_t)4096, a->used)));
        if (cap > a->limit - a->used)
            cap = bytes;
        if (cap > a->limit - a->used)
            return NULL;
        struct jarena_chunk *c = mem_try_array(1, sizeof(*c) + cap);
        if (!c)
            return NULL;
        c->next = a->head;
        c->cap = cap;
        a->head = c;
        a->used += cap;
        a->cur = c->data;
        a->end = c->data + cap;
    }
    void *p = a->cur;
    a->cur += bytes;
    return p;
}

void jarena_release(struct jarena *a)
{
    for (struct jarena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *a = (struct jarena){0};
}

void *jalloc(struct jrender *r, size_t n, size_t elem)
{
    size_t bytes;
    void *p = size_mul_ok(n, elem, &bytes) ? jarena_try_alloc(&r->arena, bytes ? bytes : 1) : NULL;
    if (!p)
        jfail(r, "the template's values take more than %zu bytes", r->limits.max_memory);
    return p;
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

struct jval jval_undef(struct jrender *r, struct jname name, enum jval_type owner, const char *why)
{
    struct jval v = {.type = JV_UNDEF};
    struct jundef *u = jarena_try_alloc(&r->arena, sizeof(*u)); /* without memory it just has no name */
    if (u)
        *u = (struct jundef){name, (uint8_t)owner, why};
    v.undef = u;
    return v;
}

int jval_copy_str(struct jrender *r, const char *s, size_t len, struct jval *ret)
{
    char *p = jalloc(r, len, 1);
    if (!p)
        return OCTAVO_EINVAL;
    memcpy(p, s, len);
    *ret = jval_str(p, len);
    return jcharge(r, len);
}

int jval_cstr(struct jrender *r, const char *s, struct jval *ret)
{
    return jval_copy_str(r, s, strlen(s), ret);
}

struct jlist *jlist_new(struct jrender *r, enum jlist_kind kind, size_t cap)
{
    struct jlist *l = jalloc(r, 1, sizeof(*l));
    if (!l)
        return NULL;
    *l = (struct jlist){.kind = (uint8_t)kind, .cap = cap};
    if (cap && !(l->items = jalloc(r, cap, sizeof(*l->items))))
        return NULL;
    return l;
}

int jlist_add(struct jrender *r, struct jlist *l, struct jval v)
{
    if (l->num == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        struct jval *items = jalloc(r, cap, sizeof(*items));
        if (!items)
            return OCTAVO_EINVAL;
        if (l->num)
            memcpy(items, l->items, l->num * sizeof(*items));
        l->items = items;
        l->cap = cap;
    }
    l->items[l->num++] = v;
    return jcharge(r, 0);
}

/* Equal values hash alike, so True, 1 and 1.0 do. */
static int value_hash(struct jrender *r, struct jval v, int depth, uint64_t *ret)
{
    int64_t i = 0;
    switch (v.type) {
    case JV_STR:
        *ret = XXH3_64bits(v.s, v.len);
        return jcharge(r, v.len);
    case JV_FLOAT:
        if (!(v.f >= -9e15 && v.f <= 9e15) || v.f != floor(v.f)) {
            *ret = XXH3_64bits(&v.f, sizeof(v.f));
            return 0;
        }
        i = (int64_t)v.f;
        break;
    case JV_BOOL:
    case JV_INT:
        i = jval_int_of(&v);
        if (i < -9000000000000000 || i > 9000000000000000) {
            double f = (double)i;
            *ret = XXH3_64bits(&f, sizeof(f));
            return 0;
        }
        break;
    case JV_NONE:
    case JV_UNDEF:
        i = -1 - v.type;
        break;
    case JV_LIST:
        if (v.list->kind == JL_TUPLE && depth < JINJA_MAX_VALUE_DEPTH) {
            *ret = 0x9e3779b97f4a7c15u;
            for (size_t k = 0; k < v.list->num; k++) {
                uint64_t h;
                int rc = value_hash(r, v.list->items[k], depth + 1, &h);
                if (rc < 0)
                    return rc;
                *ret = (*ret ^ h) * 0x100000001b3u;
            }
            return jcharge(r, 0);
        }
        return jfail(r, "unhashable type: '%s'", jval_type_name(&v));
    case JV_DICT:
        return jfail(r, "unhashable type: 'dict'");
    default:
        i = (int64_t)(intptr_t)v.s;
    }
    *ret = XXH3_64bits(&i, sizeof(i));
    return jcharge(r, 0);
}

struct jdict *jdict_new(struct jrender *r)
{
    struct jdict *d = jalloc(r, 1, sizeof(*d));
    if (d)
        *d = (struct jdict){0};
    return d;
}

static int dict_find(struct jrender *r, const struct jdict *d, struct jval key, uint64_t hash, size_t *ret)
{
    *ret = SIZE_MAX;
    if (!d->slots) {
        for (size_t i = 0; i < d->num; i++) {
            bool eq = false;
            if (d->entries[i].hash == hash) {
                int rc = jval_equal(r, d->entries[i].key, key, &eq);
                if (rc < 0)
                    return rc;
            }
            if (eq) {
                *ret = i;
                return 0;
            }
        }
        return 0;
    }
    for (size_t at = hash & (d->num_slots - 1); d->slots[at]; at = (at + 1) & (d->num_slots - 1)) {
        size_t i = d->slots[at] - 1;
        bool eq = false;
        int rc = d->entries[i].hash == hash ? jval_equal(r, d->entries[i].key, key, &eq) : jcharge(r, 0);
        if (rc < 0)
            return rc;
        if (eq) {
            *ret = i;
            return 0;
        }
    }
    return 0;
}

static void slot_put(struct jdict *d, uint64_t hash, size_t i)
{
    size_t at = hash & (d->num_slots - 1);
    while (d->slots[at])
        at = (at + 1) & (d->num_slots - 1);
    d->slots[at] = (uint32_t)(i + 1);
}

int jdict_set(struct jrender *r, struct jdict *d, struct jval key, struct jval value)
{
    uint64_t hash = 0;
    size_t at = SIZE_MAX;
    int rc = value_hash(r, key, 0, &hash);
    if (rc == 0)
        rc = dict_find(r, d, key, hash, &at);
    if (rc < 0)
        return rc;
    if (at != SIZE_MAX) {
        d->entries[at].value = value;
        return 0;
    }
    if (d->num == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jentry *e = jalloc(r, cap, sizeof(*e));
        if (!e)
            return OCTAVO_EINVAL;
        if (d->num)
            memcpy(e, d->entries, d->num * sizeof(*e));
        d->entries = e;
        d->cap = cap;
        if (cap > 8) {
            d->num_slots = cap * 2;
            if (!(d->slots = jalloc(r, d->num_slots, sizeof(*d->slots))))
                return OCTAVO_EINVAL;
            memset(d->slots, 0, d->num_slots * sizeof(*d->slots));
            for (size_t i = 0; i < d->num; i++)
                slot_put(d, d->entries[i].hash, i);
        }
    }
    d->entries[d->num] = (struct jentry){key, value, hash};
    if (d->slots)
        slot_put(d, hash, d->num);
    d->num++;
    return 0;
}

int jdict_set_cstr(struct jrender *r, struct jdict *d, const char *key, struct jval value)
{
    return jdict_set(r, d, jval_str(key, strlen(key)), value);
}

int jdict_get(struct jrender *r, const struct jdict *d, struct jval key, struct jval *ret, bool *ret_found)
{
    uint64_t hash = 0;
    size_t at = SIZE_MAX;
    int rc = value_hash(r, key, 0, &hash);
    if (rc == 0)
        rc = dict_find(r, d, key, hash, &at);
    if (rc < 0)
        return rc;
    *ret_found = at != SIZE_MAX;
    if (*ret_found)
        *ret = d->entries[at].value;
    return 0;
}

int jval_from_json(struct jrender *r, const json_t *j, int depth, struct jval *ret)
{
    if (depth > JINJA_MAX_VALUE_DEPTH)
        return jfail(r, "the conversation nests lists or objects more than %d deep", JINJA_MAX_VALUE_DEPTH);
    switch (json_typeof(j)) {
    case JSON_NULL:
        *ret = jval_none();
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = jval_bool(json_is_true(j));
        return 0;
    case JSON_INTEGER:
        *ret = jval_int(json_integer_value(j));
        return 0;
    case JSON_REAL:
        *ret = jval_float(json_real_value(j));
        return 0;
    case JSON_STRING:
        if (json_string_length(j) > UINT32_MAX / 2)
            return jfail(r, "a string is too long");
        *ret = jval_str(json_string_value(j), json_string_length(j));
        return 0;
    case JSON_ARRAY: {
        size_t n = json_array_size(j);
        struct jlist *l = jlist_new(r, JL_LIST, n);
        if (!l)
            return OCTAVO_EINVAL;
        for (size_t i = 0; i < n; i++) {
            struct jval v;
            int rc = jval_from_json(r, json_array_get(j, i), depth + 1, &v);
            if (rc == 0)
                rc = jlist_add(r, l, v);
            if (rc < 0)
                return rc;
        }
        *ret = jval_list(l);
        return 0;
    }
    default: {
        struct jdict *d = jdict_new(r);
        if (!d)
            return OCTAVO_EINVAL;
        for (void *it = json_object_iter((json_t *)j); it; it = json_object_iter_next((json_t *)j, it)) {
            struct jval v;
            const char *key = json_object_iter_key(it);
            int rc = jval_from_json(r, json_object_iter_value(it), depth + 1, &v);
            if (rc == 0)
                rc = jdict_set_cstr(r, d, key, v);
            if (rc < 0)
                return rc;
        }
        *ret = jval_dict(d);
        return 0;
    }
    }
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

bool jval_truth(const struct jval *v)
{
    switch (v->type) {
    case JV_ABSENT:
    case JV_UNDEF:
    case JV_NONE:
        return false;
    case JV_BOOL:
        return v->b;
    case JV_INT:
        return v->i != 0;
    case JV_FLOAT:
        return v->f != 0;
    case JV_STR:
        return v->len != 0;
    case JV_LIST:
        return v->list->kind == JL_GENERATOR || v->list->num != 0;
    case JV_DICT:
        return v->dict->num != 0;
    default:
        return true;
    }
}

const char *jval_type_name(const struct jval *v)
{
    static const char *const lists[] = {"list",      "tuple",       "range",     "generator",
                                        "dict_keys", "dict_values", "dict_items"};
    switch (v->type) {
    case JV_NONE:
        return "NoneType";
    case JV_BOOL:
        return "bool";
    case JV_INT:
        return "int";
    case JV_FLOAT:
        return "float";
    case JV_STR:
        return "str";
    case JV_LIST:
        return lists[v->list->kind];
    case JV_DICT:
        return "dict";
    case JV_NAMESPACE:
        return "Namespace";
    case JV_MACRO:
        return "Macro";
    case JV_LOOP:
        return "LoopContext";
    case JV_CYCLER:
        return "Cycler";
    case JV_JOINER:
        return "Joiner";
    case JV_ABSENT:
    case JV_UNDEF:
        return "Undefined";
    default:
        return "builtin_function_or_method";
    }
}

bool jval_is_number(const struct jval *v)
{
    return v->type == JV_INT || v->type == JV_FLOAT || v->type == JV_BOOL;
}

double jval_double(const struct jval *v)
{
    return v->type == JV_FLOAT ? v->f : (double)jval_int_of(v);
}

/* Exact where an int and a float meet: Python does not round the int. */
static int number_order(const struct jval *a, const struct jval *b)
{
    if (jval_is_int(a) && jval_is_int(b)) {
        int64_t x = jval_int_of(a), y = jval_int_of(b);
        return x < y ? -1 : x > y;
    }
    if (a->type == JV_FLOAT && b->type == JV_FLOAT)
        return isnan(a->f) || isnan(b->f) ? 2 : a->f < b->f ? -1 : a->f > b->f;
    bool swap = a->type == JV_FLOAT;
    int64_t i = jval_int_of(swap ? b : a);
    double f = swap ? a->f : b->f;
    if (isnan(f))
        return 2;
    int c;
    if (f >= 9223372036854775808.0)
        c = -1;
    else if (f < -9223372036854775808.0)
        c = 1;
    else
        c = i < (int64_t)f ? -1 : i > (int64_t)f ? 1 : f > trunc(f) ? -1 : f < trunc(f);
    return swap ? -c : c;
}

static int equal_at(struct jrender *r, struct jval a, struct jval b, int depth, bool *ret)
{
    *ret = false;
    if (depth > JINJA_MAX_VALUE_DEPTH)
        return jfail(r, "values nest more than %d deep", JINJA_MAX_VALUE_DEPTH);
    if (jval_is_number(&a) && jval_is_number(&b)) {
        *ret = number_order(&a, &b) == 0;
        return jcharge(r, 0);
    }
    if (a.type != b.type)
        return jcharge(r, 0);
    switch (a.type) {
    case JV_UNDEF:
    case JV_NONE:
        *ret = true;
        return 0;
    case JV_STR:
        *ret = a.len == b.len && memcmp(a.s, b.s, a.len) == 0;
        return jcharge(r, a.len == b.len ? a.len : 0);
    case JV_LIST:
        if (a.list == b.list) {
            *ret = true;
            return 0;
        }
        if (a.list->kind != b.list->kind || a.list->num != b.list->num || a.list->kind == JL_GENERATOR ||
            a.list->kind == JL_VALUES)
            return 0;
        for (size_t i = 0; i < a.list->num; i++) {
            int rc = equal_at(r, a.list->items[i], b.list->items[i], depth + 1, ret);
            if (rc < 0 || !*ret)
                return rc;
        }
        *ret = true;
        return jcharge(r, 0);
    case JV_DICT:
        if (a.dict->num != b.dict->num)
            return 0;
        for (size_t i = 0; i < a.dict->num; i++) {
            struct jval other;
            bool found = false;
            int rc = jdict_get(r, b.dict, a.dict->entries[i].key, &other, &found);
            if (rc == 0 && found)
                rc = equal_at(r, a.dict->entries[i].value, other, depth + 1, ret);
            if (rc < 0 || !found || !*ret) {
                *ret = false;
                return rc;
            }
        }
        *ret = true;
        return jcharge(r, 0);
    default:
        *ret = a.s == b.s && a.sub == b.sub;
        return 0;
    }
}

int jval_equal(struct jrender *r, struct jval a, struct jval b, bool *ret)
{
    return equal_at(r, a, b, 0, ret);
}

static int order_at(struct jrender *r, struct jval a, struct jval b, const char *op, int depth, int *ret)
{
    if (depth > JINJA_MAX_VALUE_DEPTH)
        return jfail(r, "values nest more than %d deep", JINJA_MAX_VALUE_DEPTH);
    if (a.type == JV_UNDEF)
        return jfail_undefined(r, a);
    if (b.type == JV_UNDEF)
        return jfail_undefined(r, b);
    if (jval_is_number(&a) && jval_is_number(&b)) {
        *ret = number_order(&a, &b);
        return jcharge(r, 0);
    }
    if (a.type == JV_STR && b.type == JV_STR) {
        int c = memcmp(a.s, b.s, MIN(a.len, b.len));
        *ret = c ? (c < 0 ? -1 : 1) : a.len < b.len ? -1 : a.len > b.len;
        return jcharge(r, MIN(a.len, b.len));
    }
    if (a.type == JV_LIST && b.type == JV_LIST && a.list->kind == b.list->kind && a.list->kind <= JL_TUPLE) {
        size_t n = MIN(a.list->num, b.list->num);
        for (size_t i = 0; i < n; i++) {
            bool eq;
            int rc = equal_at(r, a.list->items[i], b.list->items[i], depth + 1, &eq);
            if (rc < 0)
                return rc;
            if (!eq)
                return order_at(r, a.list->items[i], b.list->items[i], op, depth + 1, ret);
        }
        *ret = a.list->num < b.list->num ? -1 : a.list->num > b.list->num;
        return 0;
    }
    return jfail(r, "'%s' not supported between instances of '%s' and '%s'", op, jval_type_name(&a),
                 jval_type_name(&b));
}

int jval_order(struct jrender *r, struct jval a, struct jval b, const char *op, int *ret)
{
    return order_at(r, a, b, op, 0, ret);
}

int jval_contains(struct jrender *r, struct jval item, struct jval c, bool *ret)
{
    *ret = false;
    switch (c.type) {
    case JV_STR:
        if (item.type == JV_UNDEF)
            return jfail_undefined(r, item);
        if (item.type != JV_STR)
            return jfail(r, "'in <string>' requires string as left operand, not %s", jval_type_name(&item));
        *ret = jstr_find(c.s, c.len, item.s, item.len) != SIZE_MAX;
        return jcharge(r, c.len);
    case JV_DICT: {
        struct jval v;
        return jdict_get(r, c.dict, item, &v, ret);
    }
    case JV_UNDEF:
        return 0;
    case JV_LIST: {
        struct jlist *l = c.list;
        bool gen = l->kind == JL_GENERATOR;
        for (size_t i = gen ? l->pos : 0; i < l->num && !*ret; i++) {
            int rc = jval_equal(r, l->items[i], item, ret);
            if (rc < 0)
                return rc;
            if (gen)
                l->pos = i + 1;
        }
        return 0;
    }
    default:
        return jfail(r, "argument of type '%s' is not iterable", jval_type_name(&c));
    }
}

int jval_length(struct jrender *r, struct jval v, int64_t *ret)
{
    switch (v.type) {
    case JV_UNDEF:
        *ret = 0;
        return 0;
    case JV_STR:
        *ret = (int64_t)jstr_count(v.s, v.len);
        return jcharge(r, v.len);
    case JV_LIST:
        if (v.list->kind == JL_GENERATOR)
            break;
        *ret = (int64_t)v.list->num;
        return 0;
    case JV_DICT:
        *ret = (int64_t)v.dict->num;
        return 0;
    default:
        break;
    }
    return jfail(r, "object of type '%s' has no len()", jval_type_name(&v));
}

int jval_iterate(struct jrender *r, struct jval v, struct jlist *ret)
{
    *ret = (struct jlist){0};
    switch (v.type) {
    case JV_UNDEF:
        return 0;
    case JV_LIST:
        *ret = *v.list;
        ret->kind = JL_LIST;
        if (v.list->kind == JL_GENERATOR && v.list->num) { /* nothing has no address to add to */
            ret->items += v.list->pos;
            ret->num -= v.list->pos;
            v.list->pos = v.list->num;
        }
        ret->pos = 0;
        ret->cap = ret->num; /* adding to it copies */
        return 0;
    case JV_DICT:
        if (!v.dict->num)
            return 0;
        if (!(ret->items = jalloc(r, v.dict->num, sizeof(*ret->items))))
            return OCTAVO_EINVAL;
        for (size_t i = 0; i < v.dict->num; i++)
            ret->items[i] = v.dict->entries[i].key;
        ret->num = ret->cap = v.dict->num;
        return jcharge(r, ret->num * 16);
    case JV_STR: {
        size_t n = jstr_count(v.s, v.len);
        if (!n)
            return 0;
        if (!(ret->items = jalloc(r, n, sizeof(*ret->items))))
            return OCTAVO_EINVAL;
        for (size_t at = 0, i = 0; i < n; i++) {
            size_t len = jstr_offset(v.s + at, v.len - at, 1);
            ret->items[i] = jval_str(v.s + at, len);
            at += len;
        }
        ret->num = ret->cap = n;
        return jcharge(r, v.len);
    }
    default:
        return jfail(r, "'%s' object is not iterable", jval_type_name(&v));
    }
}

int jval_sort(struct jrender *r, struct jval *items, struct jval *keys, size_t num, bool reverse)
{
    struct jval *ti = jalloc(r, num, sizeof(*ti)), *tk = ti ? jalloc(r, num, sizeof(*tk)) : NULL;
    if (!tk)
        return OCTAVO_EINVAL;
    for (size_t w = 1; w < num; w *= 2) { /* bottom-up merges: stable, no recursion */
        for (size_t lo = 0; lo < num; lo += 2 * w) {
            size_t mid = MIN(lo + w, num), hi = MIN(lo + 2 * w, num), i = lo, j = mid;
            for (size_t k = lo; k < hi; k++) {
                bool right = i >= mid;
                if (!right && j < hi) {
                    int c, rc = jval_order(r, keys[j], keys[i], "<", &c);
                    if (rc < 0)
                        return rc;
                    right = reverse ? c == 1 : c == -1;
                }
                ti[k] = right ? items[j] : items[i];
                tk[k] = right ? keys[j++] : keys[i++];
            }
        }
        memcpy(items, ti, num * sizeof(*ti));
        memcpy(keys, tk, num * sizeof(*tk));
    }
    return 0;
}

int jbuf_put(struct jrender *r, struct buf *b, const char *s, size_t len)
{
    if (len > r->limits.max_memory || b->len > r->limits.max_memory - len)
        return jfail(r, "the template builds a text of more than %zu bytes", r->limits.max_memory);
    buf_append(b, s, len);
    return jcharge(r, len);
}

int jbuf_finish(struct jrender *r, struct buf *b, int rc, struct jval *ret)
{
    if (rc == 0)
        rc = jval_copy_str(r, buf_str(b), b->len, ret);
    buf_release(b);
    return rc;
}
