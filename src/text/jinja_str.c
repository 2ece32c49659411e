/* Strings as Python sees them: see jinja_str.h. */
#include "text/jinja_str.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

bool jstr_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t jstr_space_at(const char *s, size_t len)
{
    if (!len)
        return 0;
    if (!((unsigned char)*s & 0x80))
        return jstr_is_space((unsigned char)*s);
    uint32_t cp;
    int n = utf8_decode(s, len, &cp);
    return n > 0 && jstr_is_space(cp) ? (size_t)n : 0;
}

size_t jstr_rstrip_len(const char *s, size_t len)
{
    while (len) {
        size_t at = len - 1;
        while (at && ((unsigned char)s[at] & 0xc0) == 0x80)
            at--;
        if (jstr_space_at(s + at, len - at) != len - at)
            break;
        len = at;
    }
    return len;
}

size_t jstr_count(const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    return n;
}

size_t jstr_offset(const char *s, size_t len, size_t n)
{
    size_t i = 0;
    while (i < len && n) {
        i++;
        while (i < len && ((unsigned char)s[i] & 0xc0) == 0x80)
            i++;
        n--;
    }
    return i;
}

size_t jstr_find(const char *s, size_t len, const char *needle, size_t needle_len)
{
    if (!needle_len)
        return 0;
    const char *p = len >= needle_len ? memmem(s, len, needle, needle_len) : NULL;
    return p ? (size_t)(p - s) : SIZE_MAX;
}

size_t jstr_rfind(const char *s, size_t len, const char *needle, size_t needle_len)
{
    if (!needle_len)
        return len;
    size_t last = SIZE_MAX;
    for (size_t at = 0; at + needle_len <= len;) {
        size_t f = jstr_find(s + at, len - at, needle, needle_len);
        if (f == SIZE_MAX)
            break;
        last = at + f;
        at = last + 1;
    }
    return last;
}

size_t jstr_float_repr(double f, char out[40])
{
    if (isnan(f))
        return (size_t)snprintf(out, 40, "nan");
    if (isinf(f))
        return (size_t)snprintf(out, 40, f < 0 ? "-inf" : "inf");
    char digits[40];
    for (int prec = 0; prec < 17; prec++) {
        snprintf(digits, sizeof(digits), "%.*e", prec, f);
        if (strtod(digits, NULL) == f)
            break;
    }
    char *e = strchr(digits, 'e');
    int exp = (int)strtol(e + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        *e = '\0';
        return (size_t)snprintf(out, 40, "%se%c%02d", digits, exp < 0 ? '-' : '+', abs(exp));
    }
    /* Positional: the digits are known to be enough, so as many decimals as they reach. */
    int sig = (int)(e - digits) - (digits[0] == '-');
    sig -= sig > 1; /* the point */
    int decimals = sig - 1 - exp;
    return (size_t)snprintf(out, 40, "%.*f", decimals > 1 ? decimals : 1, f);
}

bool jstr_is_printable(uint32_t cp)
{
    if (cp < 0x7f)
        return cp >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}
