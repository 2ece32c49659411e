/* What Python's operators, str(), repr(), subscripts and attributes do to values. Runs inside one render. */
#include "text/jinja_value.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

static int repr_str(struct jrender *r, struct jval v, struct buf *out)
{
    char q = memchr(v.s, '\'', v.len) && !memchr(v.s, '"', v.len) ? '"' : '\'';
    int rc = jbuf_put(r, out, &q, 1);
    for (size_t i = 0; i < v.len && rc == 0;) {
        uint32_t cp;
        int n = utf8_decode(v.s + i, v.len - i, &cp);
        if (n <= 0) {
            n = 1;
            cp = 0xfffd;
        }
        char esc[16];
        if (cp == (unsigned char)q || cp == '\\')
            snprintf(esc, sizeof(esc), "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            snprintf(esc, sizeof(esc), "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (jstr_is_printable(cp))
            esc[0] = '\0';
        else
            snprintf(esc, sizeof(esc), cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
        rc = esc[0] ? jbuf_put(r, out, esc, strlen(esc)) : jbuf_put(r, out, v.s + i, (size_t)n);
        i += (size_t)n;
    }
    return rc < 0 ? rc : jbuf_put(r, out, &q, 1);
}

static int repr_items(struct jrender *r, const struct jlist *l, const char *open, const char *close, struct buf *out,
                      int depth)
{
    int rc = jbuf_put(r, out, open, strlen(open));
    for (size_t i = 0; i < l->num && rc == 0; i++) {
        if (i)
            rc = jbuf_put(r, out, ", ", 2);
        if (rc == 0)
            rc = jval_append_repr(r, l->items[i], out, depth + 1);
    }
    return rc < 0 ? rc : jbuf_put(r, out, close, strlen(close));
}

static int repr_dict(struct jrender *r, const struct jdict *d, struct buf *out, int depth)
{
    int rc = jbuf_put(r, out, "{", 1);
    for (size_t i = 0; i < d->num && rc == 0; i++) {
        if (i)
            rc = jbuf_put(r, out, ", ", 2);
        if (rc == 0)
            rc = jval_append_repr(r, d->entries[i].key, out, depth + 1);
        if (rc == 0)
            rc = jbuf_put(r, out, ": ", 2);
        if (rc == 0)
            rc = jval_append_repr(r, d->entries[i].value, out, depth + 1);
    }
    return rc < 0 ? rc : jbuf_put(r, out, "}", 1);
}

int jval_append_repr(struct jrender *r, struct jval v, struct buf *out, int depth)
{
    char text[96];
    if (depth > JINJA_MAX_VALUE_DEPTH)
        return jfail(r, "values nest more than %d deep", JINJA_MAX_VALUE_DEPTH);
    switch (v.type) {
    case JV_UNDEF:
        snprintf(text, sizeof(text), "Undefined");
        break;
    case JV_NONE:
        snprintf(text, sizeof(text), "None");
        break;
    case JV_BOOL:
        snprintf(text, sizeof(text), v.b ? "True" : "False");
        break;
    case JV_INT:
        snprintf(text, sizeof(text), "%lld", (long long)v.i);
        break;
    case JV_FLOAT:
        jstr_float_repr(v.f, text);
        if (!strpbrk(text, ".einf"))
            memcpy(text + strlen(text), ".0", 3);
        break;
    case JV_STR:
        return repr_str(r, v, out);
    case JV_LIST:
        switch (v.list->kind) {
        case JL_LIST:
            return repr_items(r, v.list, "[", "]", out, depth);
        case JL_TUPLE:
            return repr_items(r, v.list, "(", v.list->num == 1 ? ",)" : ")", out, depth);
        case JL_KEYS:
            return repr_items(r, v.list, "dict_keys([", "])", out, depth);
        case JL_VALUES:
            return repr_items(r, v.list, "dict_values([", "])", out, depth);
        case JL_ITEMS:
            return repr_items(r, v.list, "dict_items([", "])", out, depth);
        case JL_RANGE: {
            long long stop = v.list->first + v.list->step * (int64_t)v.list->num;
            if (v.list->step == 1)
                snprintf(text, sizeof(text), "range(%lld, %lld)", (long long)v.list->first, stop);
            else
                snprintf(text, sizeof(text), "range(%lld, %lld, %lld)", (long long)v.list->first, stop,
                         (long long)v.list->step);
            break;
        }
        default:
            snprintf(text, sizeof(text), "<generator object>");
        }
        break;
    case JV_DICT:
        return repr_dict(r, v.dict, out, depth);
    case JV_NAMESPACE: {
        int rc = jbuf_put(r, out, "<Namespace ", 11);
        if (rc == 0)
            rc = repr_dict(r, v.dict, out, depth);
        return rc < 0 ? rc : jbuf_put(r, out, ">", 1);
    }
    case JV_MACRO:
        snprintf(text, sizeof(text), "<Macro '%.*s'>", (int)MIN(v.macro->node->str.len, 60u), v.macro->node->str.s);
        break;
    default:
        snprintf(text, sizeof(text), "<%s>", jval_type_name(&v));
    }
    return jbuf_put(r, out, text, strlen(text));
}

int jval_append_str(struct jrender *r, struct jval v, struct buf *out)
{
    if (v.type == JV_STR)
        return jbuf_put(r, out, v.s, v.len);
    return v.type == JV_UNDEF ? 0 : jval_append_repr(r, v, out, 0);
}

int jval_to_str(struct jrender *r, struct jval v, struct jval *ret)
{
    if (v.type == JV_STR) {
        *ret = v;
        return 0;
    }
    struct buf b = {0};
    return jbuf_finish(r, &b, jval_append_str(r, v, &b), ret);
}

int jval_lower(struct jrender *r, struct jval s, struct jval *ret)
{
    static const struct jargs none;
    return jnative_call(r, jmethod_find(&s, (struct jname){"lower", 5}), s, &none, ret);
}

/* ---- subscripts ------------------------------------------------------------------------------------------------ */

static int slice_bound(struct jrender *r, struct jval v, int64_t def, int64_t len, int64_t lo, int64_t hi, int64_t *ret)
{
    if (v.type == JV_NONE || v.type == JV_ABSENT) {
        *ret = def;
        return 0;
    }
    if (v.type == JV_UNDEF)
        return jfail_undefined(r, v);
    if (!jval_is_int(&v))
        return jfail(r, "slice indices must be integers or None");
    int64_t i = jval_int_of(&v);
    if (i < 0 && i < -len)
        i = lo;
    else if (i < 0)
        i += len;
    *ret = MIN(MAX(i, lo), hi);
    return 0;
}

int jval_slice(struct jrender *r, struct jval v, struct jval start, struct jval stop, struct jval step,
               struct jval *ret)
{
    int64_t len = 0, from = 0, to = 0, by = 1;
    if (v.type == JV_UNDEF)
        return jfail_undefined(r, v);
    if (v.type != JV_STR && !(v.type == JV_LIST && v.list->kind <= JL_RANGE))
        return jfail(r, "'%s' object cannot be sliced", jval_type_name(&v));
    int rc = jval_length(r, v, &len);
    if (rc == 0 && step.type != JV_NONE && step.type != JV_ABSENT) {
        if (!jval_is_int(&step) || !jval_int_of(&step))
            return jfail(r, "a slice's step must be an integer that is not zero");
        by = jval_int_of(&step);
    }
    by = MIN(MAX(by, -len - 1), len + 1);
    if (rc == 0)
        rc = slice_bound(r, start, by > 0 ? 0 : len - 1, len, by > 0 ? 0 : -1, by > 0 ? len : len - 1, &from);
    if (rc == 0)
        rc = slice_bound(r, stop, by > 0 ? len : -1, len, by > 0 ? 0 : -1, by > 0 ? len : len - 1, &to);
    if (rc < 0)
        return rc;
    int64_t n = by > 0 ? (to > from ? (to - from + by - 1) / by : 0) : (from > to ? (from - to - by - 1) / -by : 0);
    if (v.type == JV_STR && by == 1) {
        size_t a = len == v.len ? (size_t)from : jstr_offset(v.s, v.len, (size_t)from);
        size_t b = len == v.len ? a + (size_t)n : a + jstr_offset(v.s + a, v.len - a, (size_t)n);
        *ret = jval_str(v.s + a, b - a);
        return 0;
    }
    if (v.type == JV_STR) {
        struct jlist chars;
        struct buf b = {0};
        rc = jval_iterate(r, v, &chars);
        for (int64_t k = 0; k < n && rc == 0; k++)
            rc = jbuf_put(r, &b, chars.items[from + k * by].s, chars.items[from + k * by].len);
        return jbuf_finish(r, &b, rc, ret);
    }
    struct jlist *l = jlist_new(r, v.list->kind, (size_t)n);
    if (!l)
        return OCTAVO_EINVAL;
    for (int64_t k = 0; k < n; k++)
        l->items[k] = v.list->items[from + k * by];
    l->num = (size_t)n;
    l->first = v.list->first + v.list->step * from;
    l->step = v.list->step * by;
    *ret = jval_list(l);
    return jcharge(r, (size_t)n * 16);
}

int jval_getattr(struct jrender *r, struct jval obj, struct jname name, struct jval *ret)
{
    if (obj.type == JV_UNDEF)
        return jfail_undefined(r, obj);
    if (obj.type == JV_LOOP)
        return jloop_getattr(r, obj.loop, name, ret);
    const struct jnative *method = jmethod_find(&obj, name);
    if (method) {
        struct jmethod *m = jalloc(r, 1, sizeof(*m));
        if (!m)
            return OCTAVO_EINVAL;
        *m = (struct jmethod){obj, method};
        *ret = (struct jval){.type = JV_METHOD, .method = m};
        return 0;
    }
    if (jmethod_is_unsafe(&obj, name)) {
        *ret = jval_undef(r, name, obj.type, "the template calls a method that would change a list or dict");
        return 0;
    }
    if (obj.type == JV_CYCLER && jname_eq(name, "current")) {
        *ret = obj.cycler->items.items[obj.cycler->pos];
        return 0;
    }
    if (obj.type == JV_MACRO && jname_eq(name, "name")) {
        *ret = jval_str(obj.macro->node->str.s, obj.macro->node->str.len);
        return 0;
    }
    bool found = false;
    if (obj.type == JV_DICT || obj.type == JV_NAMESPACE) {
        int rc = jdict_get(r, obj.dict, jval_str(name.s, name.len), ret, &found);
        if (rc < 0)
            return rc;
    }
    if (!found)
        *ret = jval_undef(r, name, obj.type, NULL);
    return jcharge(r, 0);
}

int jval_getitem(struct jrender *r, struct jval obj, struct jval key, struct jval *ret)
{
    bool found = false;
    int rc = 0;
    if (obj.type == JV_UNDEF)
        return jfail_undefined(r, obj);
    if (obj.type == JV_DICT && !(key.type == JV_DICT || (key.type == JV_LIST && key.list->kind != JL_TUPLE))) {
        rc = jdict_get(r, obj.dict, key, ret, &found);
    } else if (jval_is_int(&key) && (obj.type == JV_STR || (obj.type == JV_LIST && obj.list->kind <= JL_RANGE))) {
        int64_t len, i = jval_int_of(&key);
        rc = jval_length(r, obj, &len);
        if (rc == 0 && i < 0)
            i += len;
        found = rc == 0 && i >= 0 && i < len;
        if (found && obj.type == JV_STR) {
            size_t at = len == obj.len ? (size_t)i : jstr_offset(obj.s, obj.len, (size_t)i);
            *ret = jval_str(obj.s + at, jstr_offset(obj.s + at, obj.len - at, 1));
        } else if (found) {
            *ret = obj.list->items[i];
        }
    }
    if (rc < 0 || found)
        return rc;
    if (key.type == JV_STR)
        return jval_getattr(r, obj, (struct jname){key.s, key.len}, ret);
    struct buf b = {0};
    struct jval text;
    rc = jbuf_finish(r, &b, jval_append_repr(r, key, &b, 0), &text);
    if (rc == 0)
        *ret = jval_undef(r, (struct jname){text.s, text.len}, obj.type, NULL);
    return rc;
}

/* ---- operators ------------------------------------------------------------------------------------------------- */

static int overflow(struct jrender *r)
{
    return jfail(r, "an integer does not fit into 64 bits");
}

static int int_pow(struct jrender *r, int64_t a, int64_t b, struct jval *ret)
{
    if (b < 0) {
        if (!a)
            return jfail(r, "0 cannot be raised to a negative power");
        *ret = jval_float(pow((double)a, (double)b));
        return 0;
    }
    int64_t v = 1;
    while (b) {
        if ((b & 1) && __builtin_mul_overflow(v, a, &v))
            return overflow(r);
        b >>= 1;
        if (b && __builtin_mul_overflow(a, a, &a))
            return overflow(r);
    }
    *ret = jval_int(v);
    return 0;
}

static int int_op(struct jrender *r, enum jop op, int64_t a, int64_t b, struct jval *ret)
{
    int64_t v = 0;
    switch (op) {
    case JOP_ADD:
        if (__builtin_add_overflow(a, b, &v))
            return overflow(r);
        break;
    case JOP_SUB:
        if (__builtin_sub_overflow(a, b, &v))
            return overflow(r);
        break;
    case JOP_MUL:
        if (__builtin_mul_overflow(a, b, &v))
            return overflow(r);
        break;
    case JOP_POW:
        return int_pow(r, a, b, ret);
    default:
        if (!b)
            return jfail(r, "division by zero");
        if (op == JOP_DIV) {
            *ret = jval_float((double)a / (double)b);
            return 0;
        }
        if (b == -1) { /* INT64_MIN / -1 does not fit */
            if (op == JOP_FLOORDIV && a == INT64_MIN)
                return overflow(r);
            v = op == JOP_FLOORDIV ? -a : 0;
            break;
        }
        v = op == JOP_FLOORDIV ? a / b : a % b;
        if (a % b != 0 && (a % b < 0) != (b < 0)) /* Python rounds down, C to zero */
            v = op == JOP_FLOORDIV ? v - 1 : v + b;
    }
    *ret = jval_int(v);
    return 0;
}

static int float_op(struct jrender *r, enum jop op, double a, double b, struct jval *ret)
{
    double v;
    switch (op) {
    case JOP_ADD:
        v = a + b;
        break;
    case JOP_SUB:
        v = a - b;
        break;
    case JOP_MUL:
        v = a * b;
        break;
    case JOP_POW:
        if (a < 0 && b != floor(b))
            return jfail(r, "a power of a negative number is not real");
        if (a == 0 && b < 0)
            return jfail(r, "0.0 cannot be raised to a negative power");
        v = pow(a, b);
        if (isinf(v) && !isinf(a) && !isinf(b))
            return jfail(r, "a power is too large");
        break;
    default:
        if (b == 0)
            return jfail(r, "float division by zero");
        if (op == JOP_DIV) {
            v = a / b;
            break;
        }
        double mod = fmod(a, b), div = (a - mod) / b;
        if (mod != 0) {
            if ((b < 0) != (mod < 0)) {
                mod += b;
                div -= 1;
            }
        } else {
            mod = copysign(0, b);
        }
        if (div != 0) {
            double fl = floor(div);
            div = div - fl > 0.5 ? fl + 1 : fl;
        } else {
            div = copysign(0, a / b);
        }
        v = op == JOP_MOD ? mod : div;
    }
    *ret = jval_float(v);
    return 0;
}

static int concat_str(struct jrender *r, struct jval a, struct jval b, struct jval *ret)
{
    size_t len = (size_t)a.len + b.len;
    /* A long text that grows piece by piece keeps room behind it and grows in place: the shorter text, which others may
     * still hold, is the same bytes. Only the newest one can, as its end is where nobody else has written. */
    bool grows = a.len && a.s + a.len == r->grow_end;
    if (grows && b.len <= r->grow_room) {
        memmove(r->grow_end, b.s, b.len);
        r->grow_end += b.len;
        r->grow_room -= b.len;
        *ret = jval_str(a.s, len);
        return jcharge(r, b.len);
    }
    if (len > r->limits.max_memory)
        return jfail(r, "a text is longer than %zu bytes", r->limits.max_memory);
    size_t room = grows ? len : 0;
    char *s = jalloc(r, len + room, 1);
    if (!s)
        return OCTAVO_EINVAL;
    memcpy(s, a.s, a.len);
    memcpy(s + a.len, b.s, b.len);
    if (len >= 1024) {
        r->grow_end = s + len;
        r->grow_room = room;
    }
    *ret = jval_str(s, len);
    return jcharge(r, len);
}

static int concat_list(struct jrender *r, const struct jlist *a, const struct jlist *b, struct jval *ret)
{
    struct jlist *l = jlist_new(r, a->kind, a->num + b->num);
    if (!l)
        return OCTAVO_EINVAL;
    if (a->num)
        memcpy(l->items, a->items, a->num * sizeof(*a->items));
    if (b->num)
        memcpy(l->items + a->num, b->items, b->num * sizeof(*b->items));
    l->num = a->num + b->num;
    *ret = jval_list(l);
    return jcharge(r, l->num * sizeof(*a->items));
}

static int repeat(struct jrender *r, struct jval v, int64_t times, struct jval *ret)
{
    size_t unit = v.type == JV_STR ? v.len : v.list->num * sizeof(struct jval), total;
    size_t n = times > 0 ? (size_t)times : 0;
    if (!size_mul_ok(unit, n, &total) || total > r->limits.max_memory)
        return jfail(r, "repeating makes more than %zu bytes", r->limits.max_memory);
    if (!total)
        n = 0;
    int rc = jcharge(r, total);
    char *p = rc == 0 ? jalloc(r, total, 1) : NULL;
    if (!p)
        return OCTAVO_EINVAL;
    for (size_t i = 0; i < n; i++)
        memcpy(p + i * unit, v.type == JV_STR ? (const void *)v.s : (const void *)v.list->items, unit);
    if (v.type == JV_STR) {
        *ret = jval_str(p, total);
        return 0;
    }
    struct jlist *l = jlist_new(r, v.list->kind, 0);
    if (!l)
        return OCTAVO_EINVAL;
    l->items = (struct jval *)(void *)p;
    l->num = l->cap = total / sizeof(struct jval);
    *ret = jval_list(l);
    return 0;
}

static bool is_seq(const struct jval *v)
{
    return v->type == JV_STR || (v->type == JV_LIST && v->list->kind <= JL_TUPLE);
}

int jval_binop(struct jrender *r, enum jop op, struct jval a, struct jval b, struct jval *ret)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (a.type == JV_STR && op == JOP_MOD)
        return jformat_percent(r, a, b, ret);
    if (a.type == JV_UNDEF)
        return jfail_undefined(r, a);
    if (b.type == JV_UNDEF)
        return jfail_undefined(r, b);
    if (jval_is_int(&a) && jval_is_int(&b))
        return int_op(r, op, jval_int_of(&a), jval_int_of(&b), ret);
    if (jval_is_number(&a) && jval_is_number(&b))
        return float_op(r, op, jval_double(&a), jval_double(&b), ret);
    if (op == JOP_ADD && a.type == JV_STR && b.type == JV_STR)
        return concat_str(r, a, b, ret);
    if (op == JOP_ADD && is_seq(&a) && is_seq(&b) && a.type == b.type && a.list->kind == b.list->kind)
        return concat_list(r, a.list, b.list, ret);
    if (op == JOP_MUL && is_seq(&a) && jval_is_int(&b))
        return repeat(r, a, jval_int_of(&b), ret);
    if (op == JOP_MUL && is_seq(&b) && jval_is_int(&a))
        return repeat(r, b, jval_int_of(&a), ret);
    if (op == JOP_ADD && a.type == JV_STR)
        return jfail(r, "can only concatenate str (not \"%s\") to str", jval_type_name(&b));
    return jfail(r, "unsupported operand type(s) for %s: '%s' and '%s'", names[op], jval_type_name(&a),
                 jval_type_name(&b));
}
