/* A Jinja engine for chat templates: the language of Jinja2 as transformers sets it up (sandboxed, trim_blocks,
 * lstrip_blocks, loop controls, `generation` blocks, its own tojson). Compile once; a template is immutable and renders
 * on any number of threads at once. Rendering reads the context and writes text: it reaches no file, clock apart from
 * strftime_now, or memory of the process, and is bounded in work, depth, memory and output. */
#ifndef OCTAVO_TEXT_JINJA_H
#define OCTAVO_TEXT_JINJA_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jinja_template;

/* name stands in messages: "chat_template.jinja". Fails with OCTAVO_EINVAL and the line. */
int jinja_compile(const char *text, size_t len, const char *name, struct jinja_template **ret_template,
                  struct octavo_error *err);
void jinja_free(struct jinja_template *t);

struct jinja_limits {
    uint64_t max_steps; /* expressions and statements evaluated, and units of 16 bytes copied or compared */
    size_t max_memory;  /* bytes of values alive or dead during one render */
    size_t max_output;  /* bytes of text */
};
void jinja_limits_init(struct jinja_limits *limits); /* the defaults */

/* Appends the text to *out; on failure *out may hold a part of it. context: an object, whose members are the template's
 * variables. limits may be NULL. What raise_exception says is the whole message of an OCTAVO_EINVAL. */
int jinja_render(const struct jinja_template *t, const json_t *context, const struct jinja_limits *limits,
                 struct buf *out, struct octavo_error *err);

/* True when the template loops over the content of the items of `messages`: it then expects a list of parts there. */
bool jinja_loops_over_content(const struct jinja_template *t);

#endif
