/* The evaluator of Jinja templates: expressions to values, calls, loops' attributes. Statements are in jinja_exec.c.
 * Runs inside one render on its thread; recursion is bounded by r->depth. */
#include "text/jinja_eval.h"

#include "base/mem.h"

#include <string.h>

int jeval_enter(struct jrender *r, const struct jnode *n)
{
    if (r->depth >= JINJA_MAX_EVAL_DEPTH)
        return jfail(r, "the template nests calls or expressions more than %d deep", JINJA_MAX_EVAL_DEPTH);
    r->line = n->line;
    int rc = jcharge(r, 0);
    r->depth += rc == 0;
    return rc;
}

/* ---- scopes ---------------------------------------------------------------------------------------------------- */

struct jscope *jscope_new(struct jrender *r, struct jscope *parent)
{
    struct jscope *s = jalloc(r, 1, sizeof(*s));
    if (s)
        *s = (struct jscope){.parent = parent};
    return s;
}

static struct jvar *scope_own(struct jrender *r, const struct jscope *s, struct jname name)
{
    for (struct jvar *v = s->vars; v; v = v->next, r->steps++)
        if (v->name.len == name.len && (v->name.s == name.s || memcmp(v->name.s, name.s, name.len) == 0))
            return v;
    return NULL;
}

int jscope_set(struct jrender *r, struct jscope *s, struct jname name, struct jval value)
{
    struct jvar *v = scope_own(r, s, name);
    if (!v) {
        if (!(v = jalloc(r, 1, sizeof(*v))))
            return OCTAVO_EINVAL;
        v->name = name;
        v->next = s->vars;
        s->vars = v;
    }
    v->value = value;
    return 0;
}

static int scope_get(struct jrender *r, const struct jscope *s, struct jname name, struct jval *ret)
{
    size_t looked = 0;
    for (; s; s = s->parent, looked++) {
        const struct jvar *v = scope_own(r, s, name);
        if (v) {
            *ret = v->value;
            return jcharge(r, looked);
        }
    }
    if (!jglobal_find(name, ret))
        *ret = jval_undef(r, name, JV_ABSENT, NULL);
    return jcharge(r, looked);
}

/* ---- calls ----------------------------------------------------------------------------------------------------- */

int jeval_args(struct jrender *r, struct jscope *s, const struct jarg_list *list, struct jargs *ret)
{
    *ret = (struct jargs){0};
    if (!list)
        return 0;
    struct jlist star = {0};
    const struct jdict *more = NULL;
    struct jval v;
    int rc = 0;
    size_t num_pos = list->num_pos, num_kw = list->num_kw;
    struct jval *kw = jalloc(r, num_kw, sizeof(*kw)), *pos = kw ? jalloc(r, num_pos, sizeof(*pos)) : NULL;
    if (!pos)
        return OCTAVO_EINVAL;
    for (size_t i = 0; i < num_pos && rc == 0; i++)
        rc = jeval(r, s, list->pos[i], &pos[i]);
    if (rc == 0 && list->star) {
        rc = jeval(r, s, list->star, &v);
        if (rc == 0)
            rc = jval_iterate(r, v, &star);
    }
    for (size_t i = 0; i < num_kw && rc == 0; i++)
        rc = jeval(r, s, list->kw[i], &kw[i]);
    if (rc == 0 && list->star_star) {
        rc = jeval(r, s, list->star_star, &v);
        if (rc == 0 && v.type != JV_DICT)
            rc = jfail(r, "argument after ** must be a mapping, not %s", jval_type_name(&v));
        if (rc == 0)
            more = v.dict;
    }
    if (rc < 0)
        return rc;
    ret->num_pos = num_pos + star.num;
    ret->num_kw = num_kw + (more ? more->num : 0);
    ret->pos = jalloc(r, ret->num_pos, sizeof(*ret->pos));
    ret->kw = ret->pos ? jalloc(r, ret->num_kw, sizeof(*ret->kw)) : NULL;
    ret->kw_names = ret->kw ? jalloc(r, ret->num_kw, sizeof(*ret->kw_names)) : NULL;
    if (!ret->kw_names)
        return OCTAVO_EINVAL;
    memcpy(ret->pos, pos, num_pos * sizeof(*pos));
    if (star.num)
        memcpy(ret->pos + num_pos, star.items, star.num * sizeof(*pos));
    memcpy(ret->kw, kw, num_kw * sizeof(*kw));
    if (num_kw)
        memcpy(ret->kw_names, list->kw_names, num_kw * sizeof(*ret->kw_names));
    for (size_t i = 0; more && i < more->num; i++) {
        struct jval key = more->entries[i].key;
        if (key.type != JV_STR)
            return jfail(r, "keywords must be strings");
        for (size_t k = 0; k < num_kw; k++)
            if (ret->kw_names[k].len == key.len && !memcmp(ret->kw_names[k].s, key.s, key.len))
                return jfail(r, "got multiple values for keyword argument '%.*s'", (int)MIN(key.len, 100u), key.s);
        ret->kw_names[num_kw + i] = (struct jname){key.s, key.len};
        ret->kw[num_kw + i] = more->entries[i].value;
    }
    return 0;
}

/* Index of name among the space-separated params, or -1. */
static int param_index(const char *params, struct jname name)
{
    for (int i = 0; *params; i++) {
        size_t len = strcspn(params, " ");
        if (len == name.len && memcmp(params, name.s, len) == 0)
            return i;
        params += len + (params[len] == ' ');
    }
    return -1;
}

static int param_count(const char *params)
{
    int n = *params != 0;
    for (; *params; params++)
        n += *params == ' ';
    return n;
}

int jnative_call(struct jrender *r, const struct jnative *n, struct jval self, const struct jargs *args,
                 struct jval *ret)
{
    struct jcall c = {.self = self, .args = args};
    if (n->params) {
        int count = param_count(n->params);
        if (args->num_pos > (size_t)count)
            return jfail(r, "%s() takes at most %d arguments (%zu given)", n->name, count, args->num_pos);
        for (size_t i = 0; i < args->num_pos; i++)
            c.a[i] = args->pos[i];
        for (size_t i = 0; i < args->num_kw; i++) {
            struct jname name = args->kw_names[i];
            int at = param_index(n->params, name);
            if (at < 0)
                return jfail(r, "%s() got an unexpected keyword argument '%.*s'", n->name, (int)MIN(name.len, 100u),
                             name.s);
            if (c.a[at].type != JV_ABSENT)
                return jfail(r, "%s() got multiple values for argument '%.*s'", n->name, (int)name.len, name.s);
            c.a[at] = args->kw[i];
        }
        for (int i = 0; i < n->required; i++)
            if (c.a[i].type == JV_ABSENT)
                return jfail(r, "%s() is missing a required argument", n->name);
    }
    return n->fn(r, &c, ret);
}

static int take_kw(const struct jargs *args, bool *taken, struct jname name)
{
    for (size_t i = 0; i < args->num_kw; i++) {
        if (args->kw_names[i].len == name.len && !memcmp(args->kw_names[i].s, name.s, name.len)) {
            taken[i] = true;
            return (int)i;
        }
    }
    return -1;
}

static int bind_macro(struct jrender *r, const struct jnode *n, struct jscope *s, const struct jargs *args)
{
    bool *taken = jalloc(r, args->num_kw, sizeof(*taken));
    if (!taken)
        return OCTAVO_EINVAL;
    memset(taken, 0, args->num_kw * sizeof(*taken));
    int rc = 0, at;
    for (uint32_t i = 0; i < n->num_params && rc == 0; i++) {
        struct jval v;
        if (i < args->num_pos)
            v = args->pos[i];
        else if ((at = take_kw(args, taken, n->params[i])) >= 0)
            v = args->kw[at];
        else if (n->kids[i])
            rc = jeval(r, s, n->kids[i], &v);
        else
            v = jval_undef(r, n->params[i], JV_ABSENT, "a parameter of a macro was not provided");
        if (rc == 0)
            rc = jscope_set(r, s, n->params[i], v);
    }
    if (rc == 0 && n->uses_caller) {
        at = take_kw(args, taken, (struct jname){"caller", 6});
        struct jval v =
            at >= 0 ? args->kw[at] : jval_undef(r, (struct jname){"caller", 6}, JV_ABSENT, "No caller defined");
        rc = jscope_set(r, s, (struct jname){"caller", 6}, v);
    }
    struct jdict *kwargs = rc == 0 ? jdict_new(r) : NULL;
    if (!kwargs)
        return OCTAVO_EINVAL;
    for (size_t i = 0; i < args->num_kw && rc == 0; i++) {
        struct jname name = args->kw_names[i];
        if (taken[i])
            continue;
        if (!n->uses_kwargs)
            return jfail(r, "macro '%.*s' takes no keyword argument '%.*s'", (int)MIN(n->str.len, 60u), n->str.s,
                         (int)MIN(name.len, 60u), name.s);
        rc = jdict_set(r, kwargs, jval_str(name.s, name.len), args->kw[i]);
    }
    if (rc == 0 && n->uses_kwargs)
        rc = jscope_set(r, s, (struct jname){"kwargs", 6}, jval_dict(kwargs));
    size_t extra = args->num_pos > n->num_params ? args->num_pos - n->num_params : 0;
    if (rc == 0 && n->uses_varargs) {
        struct jlist *l = jlist_new(r, JL_TUPLE, 0);
        for (size_t i = 0; l && rc == 0 && i < extra; i++)
            rc = jlist_add(r, l, args->pos[n->num_params + i]);
        return l && rc == 0 ? jscope_set(r, s, (struct jname){"varargs", 7}, jval_list(l)) : OCTAVO_EINVAL;
    }
    if (rc == 0 && extra)
        rc = jfail(r, "macro '%.*s' takes not more than %u argument(s)", (int)MIN(n->str.len, 60u), n->str.s,
                   n->num_params);
    return rc;
}

static int call_macro(struct jrender *r, const struct jmacro *m, const struct jargs *args, struct jval *ret)
{
    const struct jnode *n = m->node;
    struct jscope *s = jscope_new(r, m->scope);
    if (!s)
        return OCTAVO_EINVAL;
    int rc = bind_macro(r, n, s, args);
    return rc < 0 ? rc : jexec_capture(r, s, n->kids[n->num_kids - 1], ret);
}

static int call_loop_fn(struct jrender *r, struct jval fn, const struct jargs *args, struct jval *ret)
{
    struct jloop *loop = fn.loop;
    if (fn.sub == 0) { /* cycle */
        if (!args->num_pos)
            return jfail(r, "no items for cycling given");
        *ret = args->pos[loop->index % args->num_pos];
        return 0;
    }
    struct jlist *l = jlist_new(r, JL_TUPLE, 0);
    bool eq = false;
    int rc = l ? 0 : OCTAVO_EINVAL;
    for (size_t i = 0; rc == 0 && i < args->num_pos; i++)
        rc = jlist_add(r, l, args->pos[i]);
    if (rc == 0 && loop->last_changed.type != JV_ABSENT)
        rc = jval_equal(r, loop->last_changed, jval_list(l), &eq);
    if (rc == 0) {
        loop->last_changed = jval_list(l);
        *ret = jval_bool(!eq);
    }
    return rc;
}

int jval_call(struct jrender *r, struct jval callee, const struct jargs *args, struct jval *ret)
{
    switch (callee.type) {
    case JV_UNDEF:
        return jfail_undefined(r, callee);
    case JV_MACRO:
        return call_macro(r, callee.macro, args, ret);
    case JV_METHOD:
        return jnative_call(r, callee.method->native, callee.method->self, args, ret);
    case JV_GLOBAL:
        return jnative_call(r, jglobal_native(callee.sub), jval_none(), args, ret);
    case JV_LOOP_FN:
        return call_loop_fn(r, callee, args, ret);
    case JV_LOOP:
        if (args->num_pos != 1)
            return jfail(r, "loop() takes one argument");
        return jloop_recurse(r, callee.loop, args->pos[0], ret);
    case JV_JOINER:
        *ret = callee.cycler->pos ? callee.cycler->items.items[0] : jval_str("", 0);
        callee.cycler->pos = 1;
        return 0;
    default:
        return jfail(r, "'%s' object is not callable", jval_type_name(&callee));
    }
}

/* ---- expressions ----------------------------------------------------------------------------------------------- */

static int eval_concat(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct buf b = {0};
    int rc = 0;
    for (uint32_t i = 0; i < n->num_kids && rc == 0; i++) {
        struct jval v;
        rc = jeval(r, s, n->kids[i], &v);
        if (rc == 0)
            rc = jval_append_str(r, v, &b);
    }
    return jbuf_finish(r, &b, rc, ret);
}

static int eval_items(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct jlist *l = jlist_new(r, n->type == JN_TUPLE ? JL_TUPLE : JL_LIST, n->num_kids);
    if (!l)
        return OCTAVO_EINVAL;
    for (uint32_t i = 0; i < n->num_kids; i++) {
        int rc = jeval(r, s, n->kids[i], &l->items[i]);
        if (rc < 0)
            return rc;
    }
    l->num = n->num_kids;
    *ret = jval_list(l);
    return 0;
}

static int eval_dict(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct jdict *d = jdict_new(r);
    if (!d)
        return OCTAVO_EINVAL;
    for (uint32_t i = 0; i < n->num_kids; i += 2) {
        struct jval k, v;
        int rc = jeval(r, s, n->kids[i], &k);
        if (rc == 0)
            rc = jeval(r, s, n->kids[i + 1], &v);
        if (rc == 0)
            rc = jdict_set(r, d, k, v);
        if (rc < 0)
            return rc;
    }
    *ret = jval_dict(d);
    return 0;
}

static int compare(struct jrender *r, enum jop op, struct jval a, struct jval b, bool *ret)
{
    static const char *const names[] = {"<", "<=", ">", ">="};
    int c, rc;
    switch (op) {
    case JOP_EQ:
    case JOP_NE:
        rc = jval_equal(r, a, b, ret);
        *ret ^= op == JOP_NE;
        return rc;
    case JOP_IN:
    case JOP_NOT_IN:
        rc = jval_contains(r, a, b, ret);
        *ret ^= op == JOP_NOT_IN;
        return rc;
    default:
        rc = jval_order(r, a, b, names[op - JOP_LT], &c);
        if (rc == 0)
            *ret = c != 2 && (op == JOP_LT ? c < 0 : op == JOP_LE ? c <= 0 : op == JOP_GT ? c > 0 : c >= 0);
        return rc;
    }
}

int jval_compare(struct jrender *r, enum jop op, struct jval a, struct jval b, bool *ret)
{
    return compare(r, op, a, b, ret);
}

static int eval_compare(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct jval a, b;
    bool yes = true;
    int rc = jeval(r, s, n->kids[0], &a);
    for (uint32_t i = 1; i < n->num_kids && rc == 0 && yes; i++) {
        rc = jeval(r, s, n->kids[i], &b);
        if (rc == 0)
            rc = compare(r, n->ops[i - 1], a, b, &yes);
        a = b;
    }
    *ret = jval_bool(yes);
    return rc;
}

static int eval_item(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct jval obj, key, part[3] = {0};
    int rc = jeval(r, s, n->kids[0], &obj);
    const struct jnode *k = n->kids[1];
    if (rc < 0)
        return rc;
    if (k->type != JN_SLICE) {
        rc = jeval(r, s, k, &key);
        return rc < 0 ? rc : jval_getitem(r, obj, key, ret);
    }
    for (int i = 0; i < 3 && rc == 0; i++)
        if (k->kids[i])
            rc = jeval(r, s, k->kids[i], &part[i]);
    return rc < 0 ? rc : jval_slice(r, obj, part[0], part[1], part[2], ret);
}

static int eval_sign(struct jrender *r, struct jval v, bool neg, struct jval *ret)
{
    if (v.type == JV_UNDEF)
        return jfail_undefined(r, v);
    if (v.type == JV_FLOAT) {
        *ret = jval_float(neg ? -v.f : v.f);
        return 0;
    }
    if (!jval_is_int(&v))
        return jfail(r, "bad operand type for unary %c: '%s'", neg ? '-' : '+', jval_type_name(&v));
    return neg ? jval_binop(r, JOP_SUB, jval_int(0), v, ret) : jval_binop(r, JOP_ADD, jval_int(0), v, ret);
}

int jeval_filter(struct jrender *r, struct jscope *s, const struct jnode *n, const struct jval *block, struct jval *ret)
{
    struct jval self = block ? *block : jval_none();
    struct jargs args;
    int rc = n->kids[0] ? (block && n->kids[0]->type == JN_FILTER ? jeval_filter(r, s, n->kids[0], block, &self)
                                                                  : jeval(r, s, n->kids[0], &self))
                        : 0;
    if (rc == 0 && !n->native)
        rc = jfail(r, "no %s named '%.*s'", n->type == JN_FILTER ? "filter" : "test", (int)MIN(n->str.len, 40u),
                   n->str.s);
    if (rc == 0)
        rc = jeval_args(r, s, n->args, &args);
    if (rc == 0) {
        r->line = n->line;
        rc = jnative_call(r, n->native, self, &args, ret);
    }
    return rc;
}

static int eval_node(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct jval a, b;
    struct jargs args;
    int rc;
    switch (n->type) {
    case JN_CONST:
        *ret = n->value;
        return 0;
    case JN_NAME:
        return scope_get(r, s, n->str, ret);
    case JN_LIST:
    case JN_TUPLE:
        return eval_items(r, s, n, ret);
    case JN_DICT:
        return eval_dict(r, s, n, ret);
    case JN_COND:
        rc = jeval(r, s, n->kids[0], &a);
        if (rc < 0)
            return rc;
        if (jval_truth(&a))
            return jeval(r, s, n->kids[1], ret);
        if (n->kids[2])
            return jeval(r, s, n->kids[2], ret);
        *ret = jval_undef(r, (struct jname){"", 0}, JV_ABSENT,
                          "an inline if-expression evaluated to false and has no else");
        return 0;
    case JN_AND:
    case JN_OR:
        rc = jeval(r, s, n->kids[0], ret);
        if (rc < 0 || jval_truth(ret) == (n->type == JN_OR))
            return rc;
        return jeval(r, s, n->kids[1], ret);
    case JN_NOT:
        rc = jeval(r, s, n->kids[0], &a);
        if (rc == 0)
            *ret = jval_bool(!jval_truth(&a));
        return rc;
    case JN_NEG:
    case JN_POS:
        rc = jeval(r, s, n->kids[0], &a);
        return rc < 0 ? rc : eval_sign(r, a, n->type == JN_NEG, ret);
    case JN_BINOP:
        rc = jeval(r, s, n->kids[0], &a);
        if (rc == 0)
            rc = jeval(r, s, n->kids[1], &b);
        return rc < 0 ? rc : jval_binop(r, n->op, a, b, ret);
    case JN_COMPARE:
        return eval_compare(r, s, n, ret);
    case JN_CONCAT:
        return eval_concat(r, s, n, ret);
    case JN_ATTR:
        rc = jeval(r, s, n->kids[0], &a);
        r->line = n->line;
        return rc < 0 ? rc : jval_getattr(r, a, n->str, ret);
    case JN_ITEM:
        return eval_item(r, s, n, ret);
    case JN_CALL:
        rc = jeval(r, s, n->kids[0], &a);
        if (rc == 0)
            rc = jeval_args(r, s, n->args, &args);
        r->line = n->line;
        return rc < 0 ? rc : jval_call(r, a, &args, ret);
    case JN_FILTER:
    case JN_TEST:
        return jeval_filter(r, s, n, NULL, ret);
    default:
        return jfail(r, "this is not an expression");
    }
}

int jeval(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    int rc = jeval_enter(r, n);
    if (rc < 0)
        return rc;
    rc = eval_node(r, s, n, ret);
    r->depth--;
    return rc;
}
