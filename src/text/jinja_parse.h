/* The parser's state and what its two halves (statements in jinja_parse.c, expressions in jinja_expr.c) share. A
 * function that returns a node returns NULL after an error, which is in *err already. */
#ifndef OCTAVO_TEXT_JINJA_PARSE_H
#define OCTAVO_TEXT_JINJA_PARSE_H

#include "text/jinja_ast.h"

struct jparser {
    struct jinja_template *t;
    const struct jtoken *cur;
    int depth;      /* nested brackets and blocks */
    int loop_depth; /* loops that break and continue can reach */
    int soft;       /* > 0 inside if: an unknown filter there is an error only when it is reached, as in Jinja */
    bool failed;
    const struct jnode *unresolved; /* the first filter or test, outside of any condition, that there is none of */
    struct octavo_error *err;
};

struct jnode_list {
    struct jnode **items;
    size_t num, cap;
};

int jparse_fail(struct jparser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int jparse_unexpected(struct jparser *p, const char *wanted);
bool jparse_depth_ok(struct jparser *p);
bool jparse_at_name(const struct jparser *p, const char *name);
bool jparse_skip_name(struct jparser *p, const char *name);
bool jparse_skip(struct jparser *p, enum jtok type);
bool jparse_expect(struct jparser *p, enum jtok type, const char *wanted);
bool jname_is(struct jname a, const char *b);

struct jnode *jnode_new(struct jparser *p, enum jnode_type type);
/* Gives n its kids (some may be NULL) and checks its height. */
struct jnode *jnode_finish(struct jparser *p, struct jnode *n, struct jnode *const *kids, size_t num);
bool jlist_push(struct jparser *p, struct jnode_list *l, struct jnode *n);

struct jnode *jparse_expr(struct jparser *p);
/* One expression, or several with commas: a tuple. */
struct jnode *jparse_tuple(struct jparser *p, bool with_cond);
/* "| a | b(1)" over input, or "a | b(1)" when inline_start; input NULL: of a block. */
struct jnode *jparse_filters(struct jparser *p, struct jnode *input, bool inline_start);

#endif
