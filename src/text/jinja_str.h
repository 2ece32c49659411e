/* Strings of the Jinja engine as Python sees them: code points over UTF-8. Pure functions, any thread. */
#ifndef OCTAVO_TEXT_JINJA_STR_H
#define OCTAVO_TEXT_JINJA_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the whitespace character (str.isspace) at s, or 0. */
size_t jstr_space_at(const char *s, size_t len);
bool jstr_is_space(uint32_t cp);
/* Length of s without the whitespace at its end. */
size_t jstr_rstrip_len(const char *s, size_t len);
/* Code points in s. */
size_t jstr_count(const char *s, size_t len);
/* Byte offset of code point n (or len when there are fewer). */
size_t jstr_offset(const char *s, size_t len, size_t n);
/* First occurrence of needle, or SIZE_MAX; linear time. An empty needle is found at 0. */
size_t jstr_find(const char *s, size_t len, const char *needle, size_t needle_len);
size_t jstr_rfind(const char *s, size_t len, const char *needle, size_t needle_len);
/* Python's repr of a float, and of the shortest form that reads back the same; returns the length. */
size_t jstr_float_repr(double f, char out[40]);
/* str.isprintable for one code point. */
bool jstr_is_printable(uint32_t cp);

#endif
