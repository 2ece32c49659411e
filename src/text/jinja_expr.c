/* Expressions of Jinja templates: tokens to trees, by precedence. See jinja_parse.c. */
#include "text/jinja_parse.h"

#include "base/mem.h"
#include "text/jinja_value.h"

#include <string.h>

static struct jnode *parse_or(struct jparser *p);
static struct jnode *parse_unary(struct jparser *p, bool with_filter);

static struct jnode *node1(struct jparser *p, enum jnode_type type, struct jnode *a)
{
    return a ? jnode_finish(p, jnode_new(p, type), &a, 1) : NULL;
}

static struct jnode *node2(struct jparser *p, enum jnode_type type, int op, struct jnode *a, struct jnode *b)
{
    if (!a || !b)
        return NULL;
    struct jnode *n = jnode_new(p, type), *kids[2] = {a, b};
    if (n)
        n->op = (uint8_t)op;
    return jnode_finish(p, n, kids, 2);
}

struct jnode *jparse_expr(struct jparser *p)
{
    if (!jparse_depth_ok(p))
        return NULL;
    p->depth++;
    const struct jnode *unresolved = p->unresolved;
    struct jnode *e = parse_or(p);
    while (e && jparse_skip_name(p, "if")) {
        p->soft++;
        p->unresolved = unresolved; /* what stands before the "if" is conditional too */
        struct jnode *n = jnode_new(p, JN_COND), *kids[3] = {parse_or(p), e, NULL};
        if (kids[0] && jparse_skip_name(p, "else"))
            kids[2] = jparse_expr(p);
        e = kids[0] ? jnode_finish(p, n, kids, 3) : NULL;
        p->soft--;
        if (p->failed)
            e = NULL;
    }
    p->depth--;
    return e;
}

static bool tuple_ends(const struct jparser *p)
{
    switch (p->cur->type) {
    case JT_VAR_END:
    case JT_BLOCK_END:
    case JT_RPAREN:
    case JT_EOF:
        return true;
    default:
        return jparse_at_name(p, "recursive");
    }
}

static struct jnode *tuple_rest(struct jparser *p, bool with_cond, bool may_be_empty)
{
    struct jnode_list l = {0};
    bool comma = false;
    while (!tuple_ends(p)) {
        struct jnode *e = with_cond ? jparse_expr(p) : parse_or(p);
        if (!e || !jlist_push(p, &l, e))
            return NULL;
        if (!jparse_skip(p, JT_COMMA))
            break;
        comma = true;
    }
    if (l.num == 1 && !comma)
        return l.items[0];
    if (!l.num && !may_be_empty) {
        jparse_unexpected(p, "an expression");
        return NULL;
    }
    return jnode_finish(p, jnode_new(p, JN_TUPLE), l.items, l.num);
}

struct jnode *jparse_tuple(struct jparser *p, bool with_cond)
{
    return tuple_rest(p, with_cond, false);
}

static struct jnode *parse_not(struct jparser *p);

static struct jnode *parse_and(struct jparser *p)
{
    struct jnode *e = parse_not(p);
    while (e && jparse_skip_name(p, "and"))
        e = node2(p, JN_AND, 0, e, parse_not(p));
    return e;
}

static struct jnode *parse_or(struct jparser *p)
{
    struct jnode *e = parse_and(p);
    while (e && jparse_skip_name(p, "or"))
        e = node2(p, JN_OR, 0, e, parse_and(p));
    return e;
}

static struct jnode *parse_pow(struct jparser *p)
{
    struct jnode *e = parse_unary(p, true);
    while (e && jparse_skip(p, JT_POW))
        e = node2(p, JN_BINOP, JOP_POW, e, parse_unary(p, true));
    return e;
}

static struct jnode *parse_mul(struct jparser *p)
{
    struct jnode *e = parse_pow(p);
    while (e) {
        int op;
        switch (p->cur->type) {
        case JT_MUL:
            op = JOP_MUL;
            break;
        case JT_DIV:
            op = JOP_DIV;
            break;
        case JT_FLOORDIV:
            op = JOP_FLOORDIV;
            break;
        case JT_MOD:
            op = JOP_MOD;
            break;
        default:
            return e;
        }
        p->cur++;
        e = node2(p, JN_BINOP, op, e, parse_pow(p));
    }
    return NULL;
}

static struct jnode *parse_concat(struct jparser *p)
{
    struct jnode *e = parse_mul(p);
    if (!e || p->cur->type != JT_TILDE)
        return e;
    struct jnode_list l = {0};
    struct jnode *n = jnode_new(p, JN_CONCAT);
    jlist_push(p, &l, e);
    while (jparse_skip(p, JT_TILDE))
        if (!(e = parse_mul(p)) || !jlist_push(p, &l, e))
            return NULL;
    return jnode_finish(p, n, l.items, l.num);
}

static struct jnode *parse_add(struct jparser *p)
{
    struct jnode *e = parse_concat(p);
    while (e && (p->cur->type == JT_ADD || p->cur->type == JT_SUB)) {
        int op = p->cur++->type == JT_ADD ? JOP_ADD : JOP_SUB;
        e = node2(p, JN_BINOP, op, e, parse_concat(p));
    }
    return e;
}

static int compare_op(struct jparser *p)
{
    static const struct {
        enum jtok tok;
        enum jop op;
    } ops[] = {{JT_EQ, JOP_EQ}, {JT_NE, JOP_NE}, {JT_LT, JOP_LT}, {JT_LE, JOP_LE}, {JT_GT, JOP_GT}, {JT_GE, JOP_GE}};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (jparse_skip(p, ops[i].tok))
            return ops[i].op;
    if (jparse_skip_name(p, "in"))
        return JOP_IN;
    if (jparse_at_name(p, "not") && p->cur[1].type == JT_NAME && jname_is(p->cur[1].str, "in")) {
        p->cur += 2;
        return JOP_NOT_IN;
    }
    return -1;
}

static struct jnode *parse_compare(struct jparser *p)
{
    struct jnode *e = parse_add(p);
    struct jnode_list l = {0};
    uint8_t ops[64];
    int op;
    while (e && (op = compare_op(p)) >= 0) {
        if (!l.num)
            jlist_push(p, &l, e);
        if (l.num > ARRAY_LEN(ops)) {
            jparse_fail(p, "too many comparisons in a row");
            return NULL;
        }
        ops[l.num - 1] = (uint8_t)op;
        if (!(e = parse_add(p)) || !jlist_push(p, &l, e))
            return NULL;
    }
    if (!e || !l.num)
        return e;
    struct jnode *n = jnode_new(p, JN_COMPARE);
    if (!n || !(n->ops = jarena_try_alloc(&p->t->arena, l.num)))
        return NULL;
    memcpy(n->ops, ops, l.num - 1);
    return jnode_finish(p, n, l.items, l.num);
}

static struct jnode *parse_not(struct jparser *p)
{
    int nots = 0;
    while (jparse_skip_name(p, "not"))
        nots++;
    struct jnode *e = parse_compare(p);
    while (e && nots--)
        e = node1(p, JN_NOT, e);
    return e;
}

static bool push_kw(struct jparser *p, struct jarg_list *a, struct jnode_list *kws, struct jnode_list *names)
{
    struct jnode *name = jnode_new(p, JN_NAME);
    if (!name)
        return false;
    name->str = p->cur->str;
    for (size_t i = 0; i < names->num; i++) {
        if (names->items[i]->str.len == name->str.len && !memcmp(names->items[i]->str.s, name->str.s, name->str.len)) {
            jparse_fail(p, "keyword argument '%.*s' is given twice", (int)MIN(name->str.len, 40u), name->str.s);
            return false;
        }
    }
    p->cur += 2;
    struct jnode *e = jparse_expr(p);
    (void)a;
    return e && jlist_push(p, kws, e) && jlist_push(p, names, name);
}

static struct jarg_list *parse_args(struct jparser *p)
{
    struct jarg_list *a = jarena_try_alloc(&p->t->arena, sizeof(*a));
    struct jnode_list pos = {0}, kws = {0}, names = {0};
    bool comma = false;
    if (!a || !jparse_expect(p, JT_LPAREN, "'('"))
        return NULL;
    *a = (struct jarg_list){0};
    while (p->cur->type != JT_RPAREN) {
        if (comma) {
            if (!jparse_expect(p, JT_COMMA, "',' or ')'"))
                return NULL;
            if (p->cur->type == JT_RPAREN)
                break;
        }
        bool ok;
        if (p->cur->type == JT_MUL && !a->star && !a->star_star) {
            p->cur++;
            ok = (a->star = jparse_expr(p)) != NULL;
        } else if (p->cur->type == JT_POW && !a->star_star) {
            p->cur++;
            ok = (a->star_star = jparse_expr(p)) != NULL;
        } else if (p->cur->type == JT_NAME && p->cur[1].type == JT_ASSIGN && !a->star_star) {
            ok = names.num < 64 && push_kw(p, a, &kws, &names);
        } else if (!a->star && !a->star_star && !kws.num) {
            struct jnode *e = jparse_expr(p);
            ok = e && jlist_push(p, &pos, e);
        } else {
            ok = false;
        }
        if (!ok) {
            jparse_fail(p, "invalid arguments of a call");
            return NULL;
        }
        comma = true;
    }
    p->cur++;
    a->pos = pos.items;
    a->num_pos = (uint32_t)pos.num;
    a->kw = kws.items;
    a->num_kw = (uint32_t)kws.num;
    a->kw_names = jarena_try_alloc(&p->t->arena, (kws.num + 1) * sizeof(*a->kw_names));
    if (!a->kw_names)
        return NULL;
    for (size_t i = 0; i < kws.num; i++)
        a->kw_names[i] = names.items[i]->str;
    return a;
}

static struct jnode *parse_call(struct jparser *p, struct jnode *callee)
{
    struct jnode *n = jnode_new(p, JN_CALL);
    if (!n || !(n->args = parse_args(p)))
        return NULL;
    return jnode_finish(p, n, &callee, 1);
}

/* One of "a", "a:b", "a:b:c" in brackets. */
static struct jnode *parse_index(struct jparser *p)
{
    struct jnode *part[3] = {0};
    int n = 0;
    bool slice = false;
    for (;;) {
        if (p->cur->type == JT_COLON) {
            slice = true;
            p->cur++;
            if (++n > 2) {
                jparse_unexpected(p, "']'");
                return NULL;
            }
        } else if (p->cur->type == JT_RBRACKET || p->cur->type == JT_COMMA) {
            break;
        } else if (part[n]) {
            jparse_unexpected(p, "']'");
            return NULL;
        } else if (!(part[n] = jparse_expr(p))) {
            return NULL;
        }
    }
    if (slice)
        return jnode_finish(p, jnode_new(p, JN_SLICE), part, 3);
    if (!part[0])
        jparse_unexpected(p, "an expression");
    return part[0];
}

static struct jnode *const_int(struct jparser *p, int64_t i)
{
    struct jnode *n = jnode_new(p, JN_CONST);
    if (n)
        n->value = jval_int(i);
    return n;
}

static struct jnode *parse_subscript(struct jparser *p, struct jnode *obj)
{
    if (jparse_skip(p, JT_DOT)) {
        if (p->cur->type == JT_NAME) {
            struct jnode *n = jnode_new(p, JN_ATTR);
            if (n)
                n->str = p->cur++->str;
            return jnode_finish(p, n, &obj, 1);
        }
        if (p->cur->type == JT_INT) {
            struct jnode *key = const_int(p, p->cur->i);
            p->cur++;
            return node2(p, JN_ITEM, 0, obj, key);
        }
        jparse_unexpected(p, "a name or a number");
        return NULL;
    }
    p->cur++;
    struct jnode_list l = {0};
    while (p->cur->type != JT_RBRACKET) {
        if (l.num && !jparse_expect(p, JT_COMMA, "',' or ']'"))
            return NULL;
        struct jnode *e = parse_index(p);
        if (!e || !jlist_push(p, &l, e))
            return NULL;
    }
    p->cur++;
    if (!l.num) {
        jparse_unexpected(p, "an expression before ']'");
        return NULL;
    }
    struct jnode *key = l.items[0];
    if (l.num > 1) {
        for (size_t i = 0; i < l.num; i++) {
            if (l.items[i]->type == JN_SLICE) {
                jparse_fail(p, "a slice cannot stand beside other subscripts");
                return NULL;
            }
        }
        key = jnode_finish(p, jnode_new(p, JN_TUPLE), l.items, l.num);
    }
    return node2(p, JN_ITEM, 0, obj, key);
}

static struct jnode *parse_postfix(struct jparser *p, struct jnode *e)
{
    while (e) {
        if (p->cur->type == JT_DOT || p->cur->type == JT_LBRACKET)
            e = parse_subscript(p, e);
        else if (p->cur->type == JT_LPAREN)
            e = parse_call(p, e);
        else
            break;
    }
    return e;
}

/* "name" or "a.b" of a filter or test. */
static bool parse_dotted(struct jparser *p, struct jname *ret)
{
    if (p->cur->type != JT_NAME) {
        jparse_unexpected(p, "the name of a filter or test");
        return false;
    }
    *ret = p->cur++->str;
    while (p->cur->type == JT_DOT && p->cur[1].type == JT_NAME) {
        ret->len = (uint32_t)(p->cur[1].str.s + p->cur[1].str.len - ret->s);
        p->cur += 2;
    }
    return true;
}

static void resolve(struct jparser *p, struct jnode *n, bool filter)
{
    n->native = filter ? jfilter_find(n->str) : jtest_find(n->str);
    if (!n->native && !p->soft && !p->unresolved)
        p->unresolved = n;
}

struct jnode *jparse_filters(struct jparser *p, struct jnode *input, bool inline_start)
{
    struct jnode *e = input;
    while (p->cur->type == JT_PIPE || inline_start) {
        p->cur += !inline_start;
        inline_start = false;
        struct jnode *n = jnode_new(p, JN_FILTER);
        if (!n || !parse_dotted(p, &n->str))
            return NULL;
        resolve(p, n, true);
        if (p->cur->type == JT_LPAREN && !(n->args = parse_args(p)))
            return NULL;
        if (!(e = jnode_finish(p, n, &e, 1)))
            return NULL;
    }
    return e;
}

static struct jnode *parse_primary(struct jparser *p);

static bool test_takes_argument(const struct jparser *p)
{
    switch (p->cur->type) {
    case JT_NAME:
        return !jparse_at_name(p, "else") && !jparse_at_name(p, "or") && !jparse_at_name(p, "and");
    case JT_STRING:
    case JT_INT:
    case JT_FLOAT:
    case JT_LBRACKET:
    case JT_LBRACE:
        return true;
    default:
        return false;
    }
}

static struct jnode *parse_test(struct jparser *p, struct jnode *input)
{
    p->cur++; /* is */
    bool negated = jparse_skip_name(p, "not");
    struct jnode *n = jnode_new(p, JN_TEST);
    if (!n || !parse_dotted(p, &n->str))
        return NULL;
    resolve(p, n, false);
    if (p->cur->type == JT_LPAREN) {
        if (!(n->args = parse_args(p)))
            return NULL;
    } else if (test_takes_argument(p)) {
        if (jparse_at_name(p, "is")) {
            jparse_fail(p, "tests cannot be chained with 'is'");
            return NULL;
        }
        struct jnode *arg = parse_postfix(p, parse_primary(p));
        struct jnode_list l = {0};
        if (!arg || !jlist_push(p, &l, arg) || !(n->args = jarena_try_alloc(&p->t->arena, sizeof(*n->args))))
            return NULL;
        *n->args = (struct jarg_list){.pos = l.items, .num_pos = 1};
    }
    n = jnode_finish(p, n, &input, 1);
    return negated ? node1(p, JN_NOT, n) : n;
}

static struct jnode *parse_filter_expr(struct jparser *p, struct jnode *e)
{
    while (e) {
        if (p->cur->type == JT_PIPE)
            e = jparse_filters(p, e, false);
        else if (jparse_at_name(p, "is"))
            e = parse_test(p, e);
        else if (p->cur->type == JT_LPAREN)
            e = parse_call(p, e);
        else
            break;
    }
    return e;
}

static struct jnode *parse_unary(struct jparser *p, bool with_filter)
{
    struct jnode *e;
    if (p->cur->type == JT_SUB || p->cur->type == JT_ADD) {
        bool neg = p->cur->type == JT_SUB;
        if (!jparse_depth_ok(p))
            return NULL;
        p->cur++;
        p->depth++;
        e = node1(p, neg ? JN_NEG : JN_POS, parse_unary(p, false));
        p->depth--;
    } else {
        e = parse_primary(p);
    }
    e = parse_postfix(p, e);
    return with_filter ? parse_filter_expr(p, e) : e;
}

static struct jnode *parse_string(struct jparser *p)
{
    struct jnode *n = jnode_new(p, JN_CONST);
    size_t len = 0, num = 0;
    for (; p->cur[num].type == JT_STRING; num++)
        len += p->cur[num].str.len;
    if (!n)
        return NULL;
    if (num == 1) {
        n->value = jval_str(p->cur->str.s, len);
    } else {
        char *s = jarena_try_alloc(&p->t->arena, len ? len : 1);
        if (!s) {
            jparse_fail(p, "the template is too large");
            return NULL;
        }
        n->value = jval_str(s, len);
        for (size_t i = 0; i < num; i++) {
            memcpy(s, p->cur[i].str.s, p->cur[i].str.len);
            s += p->cur[i].str.len;
        }
    }
    p->cur += num;
    return n;
}

static struct jnode *parse_list(struct jparser *p)
{
    struct jnode *n = jnode_new(p, JN_LIST);
    struct jnode_list l = {0};
    p->cur++;
    while (p->cur->type != JT_RBRACKET) {
        if (l.num && !jparse_expect(p, JT_COMMA, "',' or ']'"))
            return NULL;
        if (p->cur->type == JT_RBRACKET)
            break;
        struct jnode *e = jparse_expr(p);
        if (!e || !jlist_push(p, &l, e))
            return NULL;
    }
    p->cur++;
    return jnode_finish(p, n, l.items, l.num);
}

static struct jnode *parse_dict(struct jparser *p)
{
    struct jnode *n = jnode_new(p, JN_DICT);
    struct jnode_list l = {0};
    p->cur++;
    while (p->cur->type != JT_RBRACE) {
        if (l.num && !jparse_expect(p, JT_COMMA, "',' or '}'"))
            return NULL;
        if (p->cur->type == JT_RBRACE)
            break;
        struct jnode *key = jparse_expr(p);
        if (!key || !jparse_expect(p, JT_COLON, "':'"))
            return NULL;
        struct jnode *value = jparse_expr(p);
        if (!value || !jlist_push(p, &l, key) || !jlist_push(p, &l, value))
            return NULL;
    }
    p->cur++;
    return jnode_finish(p, n, l.items, l.num);
}

static struct jnode *parse_primary(struct jparser *p)
{
    const struct jtoken *t = p->cur;
    struct jnode *n;
    switch (t->type) {
    case JT_NAME:
        n = jnode_new(p, JN_CONST);
        if (!n)
            return NULL;
        p->cur++;
        if (jname_is(t->str, "true") || jname_is(t->str, "True")) {
            n->value = jval_bool(true);
        } else if (jname_is(t->str, "false") || jname_is(t->str, "False")) {
            n->value = jval_bool(false);
        } else if (jname_is(t->str, "none") || jname_is(t->str, "None")) {
            n->value = jval_none();
        } else {
            n->type = JN_NAME;
            n->str = t->str;
        }
        return n;
    case JT_STRING:
        return parse_string(p);
    case JT_INT:
        n = const_int(p, t->i);
        p->cur++;
        return n;
    case JT_FLOAT:
        if ((n = jnode_new(p, JN_CONST)))
            n->value = jval_float(t->f);
        p->cur++;
        return n;
    case JT_LPAREN:
        p->cur++;
        n = tuple_rest(p, true, true);
        return n && jparse_expect(p, JT_RPAREN, "')'") ? n : NULL;
    case JT_LBRACKET:
        return parse_list(p);
    case JT_LBRACE:
        return parse_dict(p);
    default:
        jparse_unexpected(p, "an expression");
        return NULL;
    }
}
