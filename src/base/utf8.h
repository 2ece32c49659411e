/* UTF-8, as Unicode defines it: no surrogates, no overlong forms, at most U+10FFFF. */
#ifndef OCTAVO_BASE_UTF8_H
#define OCTAVO_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID (-1)   /* the bytes at s can never become a character */
#define UTF8_TRUNCATED (-2) /* a good beginning, cut off by the end */

/* Decodes one character at s[0..len), len >= 1. Returns its bytes (1..4) and *ret_cp, or UTF8_INVALID / _TRUNCATED. */
int utf8_decode(const char *s, size_t len, uint32_t *ret_cp);
/* Writes cp (a scalar value) to out[4]; returns bytes. */
int utf8_encode(uint32_t cp, char out[4]);
bool utf8_valid(const char *s, size_t len);
/* Length of the maximal ill-formed subpart at s (>= 1): what one U+FFFD stands for, as Rust and Python replace. */
size_t utf8_bad_len(const char *s, size_t len);
/* Bytes at the end of s that begin a character which is not complete (0..3): what a stream holds back. */
size_t utf8_incomplete_tail(const char *s, size_t len);

#endif
