/* The second half of the filters: jinja_textfilters.c. */
#ifndef OCTAVO_TEXT_JINJA_FILTERS_H
#define OCTAVO_TEXT_JINJA_FILTERS_H

#include "text/jinja_value.h"

const struct jnative *jtextfilter_find(struct jname name);

#endif
