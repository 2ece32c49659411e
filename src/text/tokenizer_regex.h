/* The regular expressions of tokenizer.json, which are Oniguruma's, on PCRE2. A pattern is translated where the two
 * differ; what cannot be is refused by name. Immutable; each thread searches with its own regex_state. */
#ifndef OCTAVO_TEXT_TOKENIZER_REGEX_H
#define OCTAVO_TEXT_TOKENIZER_REGEX_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct regex;
struct regex_state; /* match data, JIT stack and limits of one thread */

/* literal: pattern is a plain string. */
int regex_compile(const char *pattern, size_t len, bool literal, struct regex **ret_regex, struct octavo_error *err);
void regex_free(struct regex *re);
struct regex_state *regex_state_new(void);
void regex_state_free(struct regex_state *st);

struct regex_match {
    size_t start, end; /* bytes */
};
/* Finds the first match at or after from in text (valid UTF-8). 1: found, 0: none, negative: a limit ran out. */
int regex_search(const struct regex *re, struct regex_state *st, const char *text, size_t len, size_t from,
                 struct regex_match *ret_match, struct octavo_error *err);

/* Oniguruma (Ruby syntax) to PCRE2; see tokenizer_regex_translate.c. */
int regex_translate(const char *pattern, size_t len, struct buf *out, struct octavo_error *err);

#endif
