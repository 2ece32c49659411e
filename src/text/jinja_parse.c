/* The parser of Jinja templates: tokens to statements; expressions are in jinja_expr.c. Called by jinja_compile on any
 * thread. Nesting is bounded, so recursion is. */
#include "text/jinja_parse.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int jparse_fail(struct jparser *p, const char *fmt, ...)
{
    if (p->failed)
        return OCTAVO_EINVAL;
    p->failed = true;
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    return error_set(p->err, OCTAVO_EINVAL, "%s, line %u: %s", p->t->name, p->cur->line, msg);
}

int jparse_unexpected(struct jparser *p, const char *wanted)
{
    if (p->cur->type == JT_EOF)
        return jparse_fail(p, "the template ends where %s should be", wanted);
    return jparse_fail(p, "'%.*s' stands where %s should be", (int)MIN(p->cur->str.len, 40u), p->cur->str.s, wanted);
}

struct jnode *jnode_new(struct jparser *p, enum jnode_type type)
{
    struct jnode *n = jarena_try_alloc(&p->t->arena, sizeof(*n));
    if (!n) {
        jparse_fail(p, "the template is too large");
        return NULL;
    }
    *n = (struct jnode){.type = type, .height = 1, .line = p->cur->line};
    return n;
}

bool jparse_depth_ok(struct jparser *p)
{
    if (p->depth < JINJA_MAX_PARSE_DEPTH)
        return true;
    jparse_fail(p, "nested more than %d levels deep", JINJA_MAX_PARSE_DEPTH);
    return false;
}

static void grow_height(struct jnode *n, const struct jnode *kid)
{
    if (kid && kid->height + 1 > n->height)
        n->height = (uint16_t)(kid->height + 1);
}

struct jnode *jnode_finish(struct jparser *p, struct jnode *n, struct jnode *const *kids, size_t num)
{
    if (!n)
        return NULL;
    n->kids = jarena_try_alloc(&p->t->arena, (num ? num : 1) * sizeof(*kids));
    if (!n->kids) {
        jparse_fail(p, "the template is too large");
        return NULL;
    }
    if (num)
        memcpy(n->kids, kids, num * sizeof(*kids));
    n->num_kids = (uint32_t)num;
    for (size_t i = 0; i < num; i++)
        grow_height(n, kids[i]);
    if (n->args) {
        const struct jarg_list *a = n->args;
        for (uint32_t i = 0; i < a->num_pos; i++)
            grow_height(n, a->pos[i]);
        for (uint32_t i = 0; i < a->num_kw; i++)
            grow_height(n, a->kw[i]);
        grow_height(n, a->star);
        grow_height(n, a->star_star);
    }
    if (n->height > JINJA_MAX_HEIGHT) {
        jparse_fail(p, "an expression or block is more than %d levels deep", JINJA_MAX_HEIGHT);
        return NULL;
    }
    return n;
}

bool jname_is(struct jname a, const char *b)
{
    return a.len == strlen(b) && memcmp(a.s, b, a.len) == 0;
}

bool jparse_at_name(const struct jparser *p, const char *name)
{
    return p->cur->type == JT_NAME && jname_is(p->cur->str, name);
}

bool jparse_skip_name(struct jparser *p, const char *name)
{
    bool yes = jparse_at_name(p, name);
    p->cur += yes;
    return yes;
}

bool jparse_skip(struct jparser *p, enum jtok type)
{
    bool yes = p->cur->type == type;
    p->cur += yes;
    return yes;
}

bool jparse_expect(struct jparser *p, enum jtok type, const char *wanted)
{
    if (jparse_skip(p, type))
        return true;
    jparse_unexpected(p, wanted);
    return false;
}

bool jlist_push(struct jparser *p, struct jnode_list *l, struct jnode *n)
{
    if (l->num == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        struct jnode **items = jarena_try_alloc(&p->t->arena, cap * sizeof(*items));
        if (!items) {
            jparse_fail(p, "the template is too large");
            return false;
        }
        if (l->num)
            memcpy(items, l->items, l->num * sizeof(*items));
        l->items = items;
        l->cap = cap;
    }
    l->items[l->num++] = n;
    return true;
}

static struct jnode *parse_until(struct jparser *p, const char *const *ends);

/* "... %}" and the statements up to one of ends, whose name is then current. */
static struct jnode *parse_body(struct jparser *p, const char *const *ends)
{
    jparse_skip(p, JT_COLON);
    if (!jparse_expect(p, JT_BLOCK_END, "%}") || !jparse_depth_ok(p))
        return NULL;
    p->depth++;
    struct jnode *n = parse_until(p, ends);
    p->depth--;
    return n;
}

static struct jnode *parse_body_1(struct jparser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    struct jnode *n = parse_body(p, ends);
    if (n)
        p->cur++;
    return n;
}

/* A body inside which break and continue have no loop: it runs as a call. */
static struct jnode *parse_call_body(struct jparser *p, const char *end)
{
    int loops = p->loop_depth;
    p->loop_depth = 0;
    struct jnode *n = parse_body_1(p, end);
    p->loop_depth = loops;
    return n;
}

static struct jnode *parse_target_name(struct jparser *p)
{
    if (p->cur->type != JT_NAME) {
        jparse_unexpected(p, "a name to assign to");
        return NULL;
    }
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < ARRAY_LEN(reserved); i++) {
        if (jparse_at_name(p, reserved[i])) {
            jparse_fail(p, "cannot assign to '%s'", reserved[i]);
            return NULL;
        }
    }
    struct jnode *n = jnode_new(p, JN_NAME);
    if (n)
        n->str = p->cur++->str;
    return jnode_finish(p, n, NULL, 0);
}

/* a | a, b | (a, b), c | ns.attr (when may_ns) */
static struct jnode *parse_target(struct jparser *p, bool may_ns)
{
    if (may_ns && p->cur->type == JT_NAME && p->cur[1].type == JT_DOT) {
        struct jnode *n = jnode_new(p, JN_NSREF);
        if (!n)
            return NULL;
        n->str = p->cur->str;
        p->cur += 2;
        if (p->cur->type != JT_NAME) {
            jparse_unexpected(p, "an attribute name");
            return NULL;
        }
        n->attr = p->cur++->str;
        return jnode_finish(p, n, NULL, 0);
    }
    if (!jparse_depth_ok(p))
        return NULL;
    struct jnode_list l = {0};
    bool tuple = false;
    struct jnode *first = NULL;
    p->depth++;
    for (;;) {
        struct jnode *n;
        if (jparse_skip(p, JT_LPAREN)) {
            n = parse_target(p, may_ns);
            if (n && !jparse_expect(p, JT_RPAREN, "')'"))
                n = NULL;
        } else {
            n = may_ns && p->cur->type == JT_NAME && p->cur[1].type == JT_DOT ? parse_target(p, true)
                                                                              : parse_target_name(p);
        }
        if (!n || !jlist_push(p, &l, n))
            break;
        first = l.items[0];
        if (!jparse_skip(p, JT_COMMA))
            break;
        tuple = true;
        if (p->cur->type != JT_NAME && p->cur->type != JT_LPAREN)
            break;
        if (jparse_at_name(p, "in"))
            break;
    }
    p->depth--;
    if (p->failed)
        return NULL;
    return tuple ? jnode_finish(p, jnode_new(p, JN_TUPLE), l.items, l.num) : first;
}

static struct jnode *parse_for(struct jparser *p, struct jnode *n)
{
    struct jnode *kids[5] = {0};
    if (!(kids[0] = parse_target(p, false)))
        return NULL;
    if (!jparse_skip_name(p, "in")) {
        jparse_unexpected(p, "'in'");
        return NULL;
    }
    if (!(kids[1] = jparse_tuple(p, false)))
        return NULL;
    if (jparse_skip_name(p, "if") && !(kids[2] = jparse_expr(p)))
        return NULL;
    n->op = jparse_skip_name(p, "recursive");
    static const char *const ends[] = {"endfor", "else", NULL};
    p->loop_depth++;
    kids[3] = parse_body(p, ends);
    p->loop_depth--;
    if (!kids[3])
        return NULL;
    if (jparse_skip_name(p, "else")) {
        if (!(kids[4] = parse_body_1(p, "endfor")))
            return NULL;
    } else {
        p->cur++;
    }
    return jnode_finish(p, n, kids, 5);
}

static struct jnode *parse_if(struct jparser *p, struct jnode *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct jnode_list l = {0};
    p->soft++;
    for (;;) {
        struct jnode *test = jparse_tuple(p, false), *body = test ? parse_body(p, ends) : NULL;
        if (!body || !jlist_push(p, &l, test) || !jlist_push(p, &l, body))
            return NULL;
        if (jparse_skip_name(p, "elif"))
            continue;
        if (jparse_skip_name(p, "else")) {
            body = parse_body_1(p, "endif");
            if (!body || !jlist_push(p, &l, body))
                return NULL;
        } else {
            p->cur++;
        }
        break;
    }
    p->soft--;
    return jnode_finish(p, n, l.items, l.num);
}

static struct jnode *parse_set(struct jparser *p, struct jnode *n)
{
    struct jnode *kids[3] = {0};
    if (!(kids[0] = parse_target(p, true)))
        return NULL;
    if (jparse_skip(p, JT_ASSIGN)) {
        kids[1] = jparse_tuple(p, true);
        return kids[1] ? jnode_finish(p, n, kids, 2) : NULL;
    }
    n->type = JN_SET_BLOCK;
    if (p->cur->type == JT_PIPE && !(kids[1] = jparse_filters(p, NULL, false)))
        return NULL;
    kids[2] = parse_body_1(p, "endset");
    return kids[2] ? jnode_finish(p, n, kids, 3) : NULL;
}

static struct jnode *parse_with(struct jparser *p, struct jnode *n)
{
    struct jnode_list l = {0};
    while (p->cur->type != JT_BLOCK_END) {
        if (l.num && !jparse_expect(p, JT_COMMA, "','"))
            return NULL;
        struct jnode *target = parse_target_name(p);
        if (!target || !jparse_expect(p, JT_ASSIGN, "'='"))
            return NULL;
        struct jnode *value = jparse_expr(p);
        if (!value || !jlist_push(p, &l, target) || !jlist_push(p, &l, value))
            return NULL;
    }
    struct jnode *body = parse_body_1(p, "endwith");
    if (!body || !jlist_push(p, &l, body))
        return NULL;
    return jnode_finish(p, n, l.items, l.num);
}

/* "(a, b=1)" into n->params and kids of defaults. */
static bool parse_signature(struct jparser *p, struct jnode *n, struct jnode_list *kids)
{
    struct jnode_list names = {0};
    bool defaults = false;
    if (!jparse_expect(p, JT_LPAREN, "'('"))
        return false;
    while (p->cur->type != JT_RPAREN) {
        if (names.num && !jparse_expect(p, JT_COMMA, "','"))
            return false;
        struct jnode *name = parse_target_name(p), *def = NULL;
        if (!name)
            return false;
        if (jparse_skip(p, JT_ASSIGN)) {
            defaults = true;
            if (!(def = jparse_expr(p)))
                return false;
        } else if (defaults) {
            jparse_fail(p, "a parameter without default follows one with");
            return false;
        }
        if (!jlist_push(p, &names, name) || !jlist_push(p, kids, def))
            return false;
    }
    p->cur++;
    n->params = jarena_try_alloc(&p->t->arena, (names.num + 1) * sizeof(*n->params));
    if (!n->params) {
        jparse_fail(p, "the template is too large");
        return false;
    }
    n->num_params = (uint32_t)names.num;
    for (size_t i = 0; i < names.num; i++)
        n->params[i] = names.items[i]->str;
    return true;
}

/* Jinja gives a macro caller, varargs and kwargs only when its body names them: what a call may bring depends on it. */
static void note_special(struct jnode *macro, const struct jtoken *from, const struct jtoken *to)
{
    for (const struct jtoken *t = from; t < to; t++) {
        if (t->type != JT_NAME || t[-1].type == JT_DOT)
            continue;
        macro->uses_caller |= jname_is(t->str, "caller");
        macro->uses_varargs |= jname_is(t->str, "varargs");
        macro->uses_kwargs |= jname_is(t->str, "kwargs");
    }
}

static struct jnode *parse_macro(struct jparser *p, struct jnode *n)
{
    struct jnode_list kids = {0};
    struct jnode *name = parse_target_name(p);
    if (!name)
        return NULL;
    n->str = name->str;
    if (!parse_signature(p, n, &kids))
        return NULL;
    const struct jtoken *from = p->cur;
    struct jnode *body = parse_call_body(p, "endmacro");
    if (!body || !jlist_push(p, &kids, body))
        return NULL;
    note_special(n, from, p->cur);
    return jnode_finish(p, n, kids.items, kids.num);
}

static struct jnode *parse_call_block(struct jparser *p, struct jnode *n)
{
    struct jnode_list params = {0};
    struct jnode *macro = jnode_new(p, JN_MACRO), *kids[2];
    if (!macro)
        return NULL;
    macro->str = (struct jname){"caller", 6};
    if (p->cur->type == JT_LPAREN && !parse_signature(p, macro, &params))
        return NULL;
    if (!(kids[0] = jparse_expr(p)))
        return NULL;
    if (kids[0]->type != JN_CALL) {
        jparse_fail(p, "{%% call %%} needs a call");
        return NULL;
    }
    const struct jtoken *from = p->cur;
    struct jnode *body = parse_call_body(p, "endcall");
    if (!body || !jlist_push(p, &params, body))
        return NULL;
    note_special(macro, from, p->cur);
    kids[1] = jnode_finish(p, macro, params.items, params.num);
    return kids[1] ? jnode_finish(p, n, kids, 2) : NULL;
}

static struct jnode *parse_filter_block(struct jparser *p, struct jnode *n)
{
    struct jnode *kids[2] = {jparse_filters(p, NULL, true)};
    if (!kids[0])
        return NULL;
    kids[1] = parse_body_1(p, "endfilter");
    return kids[1] ? jnode_finish(p, n, kids, 2) : NULL;
}

static struct jnode *parse_statement(struct jparser *p)
{
    static const char *const refused[] = {"include", "import", "from", "extends", "block", "autoescape", "trans", "do"};
    static const struct {
        const char *name;
        enum jnode_type type;
        struct jnode *(*parse)(struct jparser *p, struct jnode *n);
    } statements[] = {{"for", JN_FOR, parse_for},
                      {"if", JN_IF, parse_if},
                      {"set", JN_SET, parse_set},
                      {"with", JN_WITH, parse_with},
                      {"macro", JN_MACRO, parse_macro},
                      {"call", JN_CALL_BLOCK, parse_call_block},
                      {"filter", JN_FILTER_BLOCK, parse_filter_block}};
    if (p->cur->type != JT_NAME) {
        jparse_unexpected(p, "the name of a statement");
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        if (jparse_at_name(p, refused[i])) {
            jparse_fail(p, "{%% %s %%} is not supported in a chat template", refused[i]);
            return NULL;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(statements); i++) {
        if (!jparse_at_name(p, statements[i].name))
            continue;
        struct jnode *n = jnode_new(p, statements[i].type);
        p->cur++;
        return n ? statements[i].parse(p, n) : NULL;
    }
    if (jparse_at_name(p, "break") || jparse_at_name(p, "continue")) {
        struct jnode *n = jnode_new(p, jparse_at_name(p, "break") ? JN_BREAK : JN_CONTINUE);
        if (!p->loop_depth) {
            jparse_fail(p, "'%.*s' outside of a loop", (int)p->cur->str.len, p->cur->str.s);
            return NULL;
        }
        p->cur++;
        return jnode_finish(p, n, NULL, 0);
    }
    if (jparse_skip_name(p, "generation")) {
        struct jnode *n = jnode_new(p, JN_SCOPE), *body = n ? parse_call_body(p, "endgeneration") : NULL;
        return body ? jnode_finish(p, n, &body, 1) : NULL;
    }
    if (jparse_skip_name(p, "print")) {
        struct jnode_list l = {0};
        while (p->cur->type != JT_BLOCK_END) {
            if (l.num && !jparse_expect(p, JT_COMMA, "','"))
                return NULL;
            struct jnode *n = jnode_new(p, JN_PRINT), *e = n ? jparse_expr(p) : NULL;
            if (!e || !jlist_push(p, &l, jnode_finish(p, n, &e, 1)) || p->failed)
                return NULL;
        }
        return jnode_finish(p, jnode_new(p, JN_BLOCK), l.items, l.num);
    }
    jparse_fail(p, "unknown statement '%.*s'", (int)MIN(p->cur->str.len, 40u), p->cur->str.s);
    return NULL;
}

static bool at_end(const struct jparser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jparse_at_name(p, *ends))
            return true;
    return false;
}

static struct jnode *parse_until(struct jparser *p, const char *const *ends)
{
    struct jnode_list l = {0};
    struct jnode *block = jnode_new(p, JN_BLOCK);
    while (block) {
        struct jnode *n = NULL;
        if (p->cur->type == JT_DATA) {
            if (!(n = jnode_new(p, JN_TEXT)))
                return NULL;
            n->str = p->cur++->str;
        } else if (p->cur->type == JT_VAR_BEGIN) {
            p->cur++;
            struct jnode *e = jparse_tuple(p, true);
            n = e ? jnode_finish(p, jnode_new(p, JN_PRINT), &e, 1) : NULL;
            if (!n || !jparse_expect(p, JT_VAR_END, "}}"))
                return NULL;
        } else if (p->cur->type == JT_BLOCK_BEGIN) {
            p->cur++;
            if (at_end(p, ends))
                return jnode_finish(p, block, l.items, l.num);
            if (!(n = parse_statement(p)) || !jparse_expect(p, JT_BLOCK_END, "%}"))
                return NULL;
        } else if (p->cur->type == JT_EOF && !ends) {
            return jnode_finish(p, block, l.items, l.num);
        } else {
            char what[64];
            snprintf(what, sizeof(what), "{%% %s %%}", ends ? ends[0] : "?");
            jparse_unexpected(p, what);
            return NULL;
        }
        if (!n || !jlist_push(p, &l, n))
            return NULL;
    }
    return NULL;
}

int jinja_parse(struct jinja_template *t, const struct jtoken *tokens, struct octavo_error *err)
{
    struct jparser p = {.t = t, .cur = tokens, .err = err};
    t->root = parse_until(&p, NULL);
    if (t->root && p.unresolved)
        return error_set(err, OCTAVO_EINVAL, "%s, line %u: no %s named '%.*s'", t->name, p.unresolved->line,
                         p.unresolved->type == JN_FILTER ? "filter" : "test", (int)MIN(p.unresolved->str.len, 40u),
                         p.unresolved->str.s);
    if (t->root && !p.failed)
        return 0;
    return p.failed ? OCTAVO_EINVAL : jparse_fail(&p, "cannot be parsed");
}
