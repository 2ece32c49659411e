/* Inside the methods of template values: what jinja_methods.c asks of jinja_strmethods.c. */
#ifndef OCTAVO_TEXT_JINJA_METHODS_H
#define OCTAVO_TEXT_JINJA_METHODS_H

#include "text/jinja_value.h"

/* The method of str with that name, or NULL. */
const struct jnative *jstrmethod_find(struct jname name);

#endif
