/* Errors at the edges: a code and one line that says what, where and what to do.
 * Every layer fills it; the one type is the library's own (octavo.h), so nothing is copied on the way out. */
#ifndef OCTAVO_BASE_ERR_H
#define OCTAVO_BASE_ERR_H

#include <octavo/octavo.h>

#include <stdarg.h>

/* Fills *err (which may be NULL) and returns code, so that callers write `return error_set(err, ...)`. */
int error_set(struct octavo_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, naming the field at fault: the `param` of an OpenAI error. */
int error_set_param(struct octavo_error *err, int code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts "context: " before the message; returns err's code. */
int error_prefix(struct octavo_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
