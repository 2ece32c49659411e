/* The evaluator of Jinja statements, and the entry points jinja_compile and jinja_render. A render runs on the caller's
 * thread and owns its values; the template is only read. */
#include "text/jinja_eval.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum jflow { JFLOW_NEXT, JFLOW_BREAK, JFLOW_CONTINUE }; /* what a statement returns when it did not fail */

static int exec(struct jrender *r, struct jscope *s, const struct jnode *n);

static int emit(struct jrender *r, const char *p, size_t len)
{
    if (len > r->limits.max_output || r->out->len > r->limits.max_output - len)
        return jfail(r, "the text is longer than %zu bytes", r->limits.max_output);
    buf_append(r->out, p, len);
    return jcharge(r, len);
}

/* Runs a body with its output going to *b. */
static int exec_into(struct jrender *r, struct jscope *s, const struct jnode *body, struct buf *b)
{
    struct buf *out = r->out;
    r->out = b;
    int rc = exec(r, s, body);
    r->out = out;
    return rc;
}

int jexec_capture(struct jrender *r, struct jscope *s, const struct jnode *body, struct jval *ret)
{
    struct buf b = {0};
    int rc = exec_into(r, s, body, &b);
    return jbuf_finish(r, &b, rc < 0 ? rc : 0, ret);
}

static int assign(struct jrender *r, struct jscope *s, const struct jnode *target, struct jval v)
{
    if (target->type == JN_NAME)
        return jscope_set(r, s, target->str, v);
    if (target->type == JN_NSREF) {
        struct jnode name = {.type = JN_NAME, .line = target->line, .str = target->str};
        struct jval ns;
        int rc = jeval(r, s, &name, &ns);
        if (rc < 0)
            return rc;
        if (ns.type != JV_NAMESPACE)
            return jfail(r, "cannot assign attribute on non-namespace object '%.*s'", (int)MIN(target->str.len, 60u),
                         target->str.s);
        if (target->attr.s[0] == '_')
            return jfail(r, "a namespace cannot have attributes that begin with '_'");
        return jdict_set(r, ns.dict, jval_str(target->attr.s, target->attr.len), v);
    }
    struct jlist l;
    int rc = jval_iterate(r, v, &l);
    if (rc == 0 && l.num != target->num_kids)
        rc = l.num < target->num_kids
                 ? jfail(r, "not enough values to unpack (expected %u, got %zu)", target->num_kids, l.num)
                 : jfail(r, "too many values to unpack (expected %u)", target->num_kids);
    for (uint32_t i = 0; i < target->num_kids && rc == 0; i++)
        rc = assign(r, s, target->kids[i], l.items[i]);
    return rc;
}

/* ---- loops ----------------------------------------------------------------------------------------------------- */

/* Makes items[at] known when there is such an item; the filter runs as far as is needed, no further. */
static int loop_fetch(struct jrender *r, struct jloop *loop, size_t at)
{
    const struct jnode *n = loop->node;
    while (loop->items.num <= at && loop->source_pos < loop->source.num) {
        struct jval v = loop->source.items[loop->source_pos++], test;
        if (n->kids[2]) {
            struct jscope *s = jscope_new(r, loop->scope);
            int rc = s ? assign(r, s, n->kids[0], v) : OCTAVO_EINVAL;
            if (rc == 0)
                rc = jeval(r, s, n->kids[2], &test);
            if (rc < 0)
                return rc;
            if (!jval_truth(&test))
                continue;
        }
        int rc = jlist_add(r, &loop->items, v);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int jloop_getattr(struct jrender *r, struct jloop *loop, struct jname name, struct jval *ret)
{
    static const char *const names[] = {"index",    "index0",   "first", "last",   "length", "revindex", "revindex0",
                                        "previtem", "nextitem", "depth", "depth0", "cycle",  "changed"};
    size_t which = 0;
    while (which < ARRAY_LEN(names) && !jname_eq(name, names[which]))
        which++;
    size_t i = loop->index;
    int rc = 0;
    if (which == 3 || which == 8)
        rc = loop_fetch(r, loop, i + 1);
    else if (which >= 4 && which <= 6)
        rc = loop_fetch(r, loop, SIZE_MAX);
    int64_t num = (int64_t)loop->items.num, at = (int64_t)i;
    switch (which) {
    case 0:
    case 1:
        *ret = jval_int(at + (which == 0));
        break;
    case 2:
        *ret = jval_bool(i == 0);
        break;
    case 3:
        *ret = jval_bool(at + 1 >= num);
        break;
    case 4:
        *ret = jval_int(num);
        break;
    case 5:
    case 6:
        *ret = jval_int(num - at - (which == 6));
        break;
    case 7:
        *ret = i ? loop->items.items[i - 1] : jval_undef(r, name, JV_ABSENT, "there is no previous item");
        break;
    case 8:
        *ret = at + 1 < num ? loop->items.items[i + 1] : jval_undef(r, name, JV_ABSENT, "there is no next item");
        break;
    case 9:
    case 10:
        *ret = jval_int(loop->depth + (which == 9));
        break;
    case 11:
    case 12:
        *ret = (struct jval){.type = JV_LOOP_FN, .sub = which == 12, .loop = loop};
        break;
    default:
        *ret = jval_undef(r, name, JV_LOOP, NULL);
    }
    return rc;
}

static int run_loop(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval iterable, int depth)
{
    struct jloop *loop = jalloc(r, 1, sizeof(*loop));
    if (!loop)
        return OCTAVO_EINVAL;
    *loop = (struct jloop){.node = n, .scope = s, .depth = depth};
    int rc = jval_iterate(r, iterable, &loop->source);
    bool ran = false;
    for (; rc >= 0; loop->index++) {
        rc = loop_fetch(r, loop, loop->index);
        if (rc < 0 || loop->index >= loop->items.num)
            break;
        struct jscope *inner = jscope_new(r, s);
        rc = inner ? jscope_set(r, inner, (struct jname){"loop", 4}, (struct jval){.type = JV_LOOP, .loop = loop})
                   : OCTAVO_EINVAL;
        if (rc == 0)
            rc = assign(r, inner, n->kids[0], loop->items.items[loop->index]);
        if (rc == 0)
            rc = exec(r, inner, n->kids[3]);
        if (rc == JFLOW_BREAK)
            break;
        /* As in Jinja, an iteration that continue or break cut short does not count against else. */
        ran |= rc == JFLOW_NEXT;
    }
    if (rc < 0 || ran || !n->kids[4])
        return rc < 0 ? rc : 0;
    struct jscope *inner = jscope_new(r, s);
    return inner ? exec(r, inner, n->kids[4]) : OCTAVO_EINVAL;
}

int jloop_recurse(struct jrender *r, struct jloop *loop, struct jval iterable, struct jval *ret)
{
    if (!loop->node->op)
        return jfail(r, "the loop must have the 'recursive' marker to be called");
    struct buf b = {0}, *out = r->out;
    int rc = jeval_enter(r, loop->node);
    if (rc < 0)
        return rc;
    r->out = &b;
    rc = run_loop(r, loop->scope, loop->node, iterable, loop->depth + 1);
    r->out = out;
    r->depth--;
    return jbuf_finish(r, &b, rc < 0 ? rc : 0, ret);
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

static int exec_if(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    uint32_t i = 0;
    for (; i + 1 < n->num_kids; i += 2) {
        struct jval test;
        int rc = jeval(r, s, n->kids[i], &test);
        if (rc < 0)
            return rc;
        if (jval_truth(&test))
            return exec(r, s, n->kids[i + 1]);
    }
    return i < n->num_kids ? exec(r, s, n->kids[i]) : 0;
}

static int exec_set_block(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    struct jscope *inner = jscope_new(r, s);
    struct jval v;
    int rc = inner ? jexec_capture(r, inner, n->kids[2], &v) : OCTAVO_EINVAL;
    if (rc == 0 && n->kids[1]) {
        struct jval text = v;
        rc = jeval_filter(r, inner, n->kids[1], &text, &v);
    }
    return rc < 0 ? rc : assign(r, s, n->kids[0], v);
}

static int exec_with(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    struct jscope *inner = jscope_new(r, s);
    int rc = inner ? 0 : OCTAVO_EINVAL;
    for (uint32_t i = 0; i + 1 < n->num_kids && rc == 0; i += 2) {
        struct jval v;
        rc = jeval(r, s, n->kids[i + 1], &v);
        if (rc == 0)
            rc = assign(r, inner, n->kids[i], v);
    }
    return rc < 0 ? rc : exec(r, inner, n->kids[n->num_kids - 1]);
}

static int make_macro(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret)
{
    struct jmacro *m = jalloc(r, 1, sizeof(*m));
    if (!m)
        return OCTAVO_EINVAL;
    *m = (struct jmacro){n, s};
    *ret = (struct jval){.type = JV_MACRO, .macro = m};
    return 0;
}

static int print_value(struct jrender *r, struct jval v)
{
    if (v.type == JV_STR)
        return emit(r, v.s, v.len);
    struct jval text;
    int rc = jval_to_str(r, v, &text);
    return rc < 0 ? rc : emit(r, text.s, text.len);
}

static int exec_call_block(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    const struct jnode *call = n->kids[0];
    struct jval callee, caller, v;
    struct jargs args;
    int rc = jeval(r, s, call->kids[0], &callee);
    if (rc == 0)
        rc = jeval_args(r, s, call->args, &args);
    if (rc == 0)
        rc = make_macro(r, s, n->kids[1], &caller);
    if (rc < 0)
        return rc;
    size_t k = args.num_kw;
    struct jval *kw = jalloc(r, k + 1, sizeof(*kw));
    struct jname *names = kw ? jalloc(r, k + 1, sizeof(*names)) : NULL;
    if (!names)
        return OCTAVO_EINVAL;
    if (k) {
        memcpy(kw, args.kw, k * sizeof(*kw));
        memcpy(names, args.kw_names, k * sizeof(*names));
    }
    kw[k] = caller;
    names[k] = (struct jname){"caller", 6};
    args.kw = kw;
    args.kw_names = names;
    args.num_kw++;
    rc = jval_call(r, callee, &args, &v);
    return rc < 0 ? rc : print_value(r, v);
}

static int exec_filter_block(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    struct jscope *inner = jscope_new(r, s);
    struct buf b = {0};
    struct jval text, v;
    int rc = inner ? exec_into(r, inner, n->kids[1], &b) : OCTAVO_EINVAL;
    if (rc > 0) { /* break or continue: what the block wrote is gone */
        buf_release(&b);
        return rc;
    }
    rc = jbuf_finish(r, &b, rc, &text);
    if (rc == 0)
        rc = jeval_filter(r, inner, n->kids[0], &text, &v);
    return rc < 0 ? rc : print_value(r, v);
}

static int exec_node(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    struct jval v;
    int rc = 0;
    switch (n->type) {
    case JN_BLOCK:
        for (uint32_t i = 0; i < n->num_kids && rc == 0; i++) {
            const struct jnode *k = n->kids[i];
            rc = k->type == JN_TEXT ? emit(r, k->str.s, k->str.len) : exec(r, s, k);
        }
        return rc;
    case JN_TEXT:
        return emit(r, n->str.s, n->str.len);
    case JN_PRINT:
        rc = jeval(r, s, n->kids[0], &v);
        return rc < 0 ? rc : print_value(r, v);
    case JN_IF:
        return exec_if(r, s, n);
    case JN_FOR:
        rc = jeval(r, s, n->kids[1], &v);
        return rc < 0 ? rc : run_loop(r, s, n, v, 0);
    case JN_SET:
        rc = jeval(r, s, n->kids[1], &v);
        return rc < 0 ? rc : assign(r, s, n->kids[0], v);
    case JN_SET_BLOCK:
        return exec_set_block(r, s, n);
    case JN_WITH:
        return exec_with(r, s, n);
    case JN_MACRO:
        rc = make_macro(r, s, n, &v);
        return rc < 0 ? rc : jscope_set(r, s, n->str, v);
    case JN_CALL_BLOCK:
        return exec_call_block(r, s, n);
    case JN_FILTER_BLOCK:
        return exec_filter_block(r, s, n);
    case JN_SCOPE: {
        struct jscope *inner = jscope_new(r, s);
        return inner ? exec(r, inner, n->kids[0]) : OCTAVO_EINVAL;
    }
    case JN_BREAK:
        return JFLOW_BREAK;
    case JN_CONTINUE:
        return JFLOW_CONTINUE;
    default:
        return jfail(r, "this is not a statement");
    }
}

static int exec(struct jrender *r, struct jscope *s, const struct jnode *n)
{
    int rc = jeval_enter(r, n);
    if (rc < 0)
        return rc;
    rc = exec_node(r, s, n);
    r->depth--;
    return rc;
}

/* ---- entry points ---------------------------------------------------------------------------------------------- */

int jinja_compile(const char *text, size_t len, const char *name, struct jinja_template **ret_template,
                  struct octavo_error *err)
{
    struct jinja_template *t = mem_calloc(1, sizeof(*t));
    t->arena.limit = (size_t)256 << 20;
    t->name = mem_strdup(name);
    struct jtoken *tokens;
    int rc = jinja_lex(t, text, len, &tokens, err);
    if (rc == 0)
        rc = jinja_parse(t, tokens, err);
    if (rc < 0) {
        jinja_free(t);
        return rc;
    }
    *ret_template = t;
    return 0;
}

void jinja_free(struct jinja_template *t)
{
    if (!t)
        return;
    jarena_release(&t->arena);
    free(t->name);
    free(t->source);
    free(t);
}

void jinja_limits_init(struct jinja_limits *limits)
{
    *limits =
        (struct jinja_limits){.max_steps = 50000000, .max_memory = (size_t)128 << 20, .max_output = (size_t)16 << 20};
}

int jinja_render(const struct jinja_template *t, const json_t *context, const struct jinja_limits *limits,
                 struct buf *out, struct octavo_error *err)
{
    struct jrender r = {.t = t, .line = 1, .out = out, .err = err};
    if (limits)
        r.limits = *limits;
    else
        jinja_limits_init(&r.limits);
    r.limits.max_memory = MIN(r.limits.max_memory, (size_t)1 << 31);
    r.limits.max_output += MIN(out->len, SIZE_MAX - r.limits.max_output);
    r.arena.limit = r.limits.max_memory;
    int rc = 0;
    struct jscope *globals = jscope_new(&r, NULL), *root = globals ? jscope_new(&r, globals) : NULL;
    if (!root)
        rc = OCTAVO_EINVAL;
    for (void *it = json_object_iter((json_t *)(uintptr_t)context); it && rc == 0;
         it = json_object_iter_next((json_t *)(uintptr_t)context, it)) {
        const char *key = json_object_iter_key(it);
        struct jval v;
        rc = jval_from_json(&r, json_object_iter_value(it), 0, &v);
        if (rc == 0)
            rc = jscope_set(&r, globals, (struct jname){key, (uint32_t)strlen(key)}, v);
    }
    if (rc == 0)
        rc = exec(&r, root, t->root);
    jarena_release(&r.arena);
    return rc < 0 ? rc : 0;
}
