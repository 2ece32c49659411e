/* JSON through jansson, with limits and errors that name the file and the key. Objects are jansson's json_t, reference
 * counted: json_decref what json_parse_* returned; what a getter returns is borrowed. */
#ifndef OCTAVO_BASE_JSON_H
#define OCTAVO_BASE_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>

enum json_parse_flags {
    JSON_PARSE_REJECT_DUPLICATES = 1,
    JSON_PARSE_ALLOW_NUL = 2, /* "\u0000" in strings: read them with json_string_length */
};

/* Parses text; what names it in messages ("config.json"). Nesting is limited to 2,048 by the library. */
int json_parse_text(const char *text, size_t len, const char *what, unsigned flags, json_t **ret_root,
                    struct octavo_error *err);
/* Reads and parses a file of at most max_bytes. A missing file is OCTAVO_EIO. */
int json_parse_file(const char *path, size_t max_bytes, unsigned flags, json_t **ret_root, struct octavo_error *err);

/* Getters: absent or null leaves *ret as it is and returns 0; a wrong type or range is an error naming what.key. */
int json_get_int(const json_t *obj, const char *what, const char *key, int64_t lo, int64_t hi, int64_t *ret,
                 struct octavo_error *err);
int json_get_double(const json_t *obj, const char *what, const char *key, double *ret, struct octavo_error *err);
int json_get_bool(const json_t *obj, const char *what, const char *key, bool *ret, struct octavo_error *err);
int json_get_string(const json_t *obj, const char *what, const char *key, const char **ret, struct octavo_error *err);

/* Appends s as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. Only '"', '\\' and control
 * characters are escaped. */
void json_write_string(struct buf *out, const char *s, size_t len);

#endif
