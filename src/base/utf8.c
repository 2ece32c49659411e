/* UTF-8: see utf8.h. Table 3-7 of the Unicode standard, as ranges for the second byte. */
#include "base/utf8.h"

static int lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80, *hi = 0xbf;
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (c >= 0xe0 && c <= 0xef) {
        if (c == 0xe0)
            *lo = 0xa0;
        if (c == 0xed)
            *hi = 0x9f;
        return 3;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        if (c == 0xf0)
            *lo = 0x90;
        if (c == 0xf4)
            *hi = 0x8f;
        return 4;
    }
    return 0;
}

/* Number of bytes at s that are a prefix of some character; *ret_need is that character's length, 0 if none. */
static int good_prefix(const char *s, size_t len, int *ret_need)
{
    unsigned char lo, hi;
    int need = lead((unsigned char)s[0], &lo, &hi);
    *ret_need = need;
    if (!need)
        return 0;
    int n = 1;
    for (; n < need && (size_t)n < len; n++) {
        unsigned char c = (unsigned char)s[n];
        if (c < lo || c > hi)
            break;
        lo = 0x80, hi = 0xbf;
    }
    return n;
}

int utf8_decode(const char *s, size_t len, uint32_t *ret_cp)
{
    int need, n = good_prefix(s, len, &need);
    if (!need)
        return UTF8_INVALID;
    if (n < need)
        return (size_t)n == len ? UTF8_TRUNCATED : UTF8_INVALID;
    uint32_t cp = (unsigned char)s[0];
    if (need > 1)
        cp &= 0x7fu >> need;
    for (int i = 1; i < need; i++)
        cp = cp << 6 | ((unsigned char)s[i] & 0x3f);
    *ret_cp = cp;
    return need;
}

int utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00 >> n) | cp);
    return n;
}

bool utf8_valid(const char *s, size_t len)
{
    uint32_t cp;
    for (size_t i = 0; i < len;) {
        int n = utf8_decode(s + i, len - i, &cp);
        if (n < 0)
            return false;
        i += (size_t)n;
    }
    return true;
}

size_t utf8_bad_len(const char *s, size_t len)
{
    int need, n = good_prefix(s, len, &need);
    return n > 0 ? (size_t)n : 1;
}

size_t utf8_incomplete_tail(const char *s, size_t len)
{
    uint32_t cp;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)s[len - back];
        if ((c & 0xc0) == 0x80)
            continue;
        return utf8_decode(s + len - back, back, &cp) == UTF8_TRUNCATED ? back : 0;
    }
    return 0;
}
