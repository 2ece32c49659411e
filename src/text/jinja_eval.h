/* What the evaluator of expressions (jinja_eval.c) and of statements (jinja_exec.c) need of each other. */
#ifndef OCTAVO_TEXT_JINJA_EVAL_H
#define OCTAVO_TEXT_JINJA_EVAL_H

#include "text/jinja_value.h"

int jeval_enter(struct jrender *r, const struct jnode *n); /* counts a step and a level; r->depth-- leaves it */
int jeval(struct jrender *r, struct jscope *s, const struct jnode *n, struct jval *ret);
int jeval_args(struct jrender *r, struct jscope *s, const struct jarg_list *list, struct jargs *ret);
/* A chain of filters; block is the text that stands in for the input of the first one, or NULL. */
int jeval_filter(struct jrender *r, struct jscope *s, const struct jnode *n, const struct jval *block,
                 struct jval *ret);
int jval_compare(struct jrender *r, enum jop op, struct jval a, struct jval b, bool *ret);

struct jscope *jscope_new(struct jrender *r, struct jscope *parent); /* NULL after failing */
int jscope_set(struct jrender *r, struct jscope *s, struct jname name, struct jval value);

/* Runs a body and gives what it wrote as a string. */
int jexec_capture(struct jrender *r, struct jscope *s, const struct jnode *body, struct jval *ret);

#endif
