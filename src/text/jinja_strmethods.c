/* Methods of Python's str that templates call. Runs inside one render. */
#include "text/jinja_methods.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_str.h"

#include <string.h>
#include <utf8proc.h>

static int want_str(struct jrender *r, struct jval v, const char *what)
{
    if (v.type == JV_STR)
        return 0;
    if (v.type == JV_UNDEF)
        return jfail_undefined(r, v);
    return jfail(r, "%s must be str, not %s", what, jval_type_name(&v));
}

static int want_int(struct jrender *r, struct jval v, int64_t *ret)
{
    if (v.type == JV_UNDEF)
        return jfail_undefined(r, v);
    if (!jval_is_int(&v))
        return jfail(r, "'%s' object cannot be interpreted as an integer", jval_type_name(&v));
    *ret = jval_int_of(&v);
    return 0;
}

/* ---- case ------------------------------------------------------------------------------------------------------ */

enum jcase { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP };

static bool is_cased(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

static int put_cp(struct jrender *r, struct buf *b, uint32_t cp)
{
    char u[4];
    return jbuf_put(r, b, u, (size_t)utf8_encode(cp, u));
}

static int put_upper(struct jrender *r, struct buf *b, uint32_t cp, bool title)
{
    if (cp == 0xdf) /* the one full mapping that text meets: sharp s */
        return jbuf_put(r, b, title ? "Ss" : "SS", 2);
    return put_cp(r, b,
                  (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)cp) : utf8proc_toupper((utf8proc_int32_t)cp)));
}

/* Greek sigma at the end of a word has a lower case of its own. */
static int put_lower(struct jrender *r, struct buf *b, struct jval s, size_t at, size_t n, uint32_t cp)
{
    if (cp == 0x130)
        return jbuf_put(r, b, "i\xcc\x87", 3);
    if (cp == 0x3a3) {
        uint32_t next = 0, prev = 0;
        if (at + n < s.len)
            utf8_decode(s.s + at + n, s.len - at - n, &next);
        size_t p = at;
        while (p && ((unsigned char)s.s[--p] & 0xc0) == 0x80)
            ;
        if (at)
            utf8_decode(s.s + p, at - p, &prev);
        return put_cp(r, b, at && is_cased(prev) && !(next && is_cased(next)) ? 0x3c2 : 0x3c3);
    }
    return put_cp(r, b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

static int change_case(struct jrender *r, struct jval s, enum jcase how, struct jval *ret)
{
    struct buf b = {0};
    bool in_word = false;
    int rc = 0;
    for (size_t i = 0; i < s.len && rc == 0;) {
        uint32_t cp;
        int n = utf8_decode(s.s + i, s.len - i, &cp);
        if (n <= 0)
            break;
        bool upper = how == CASE_UPPER || ((how == CASE_TITLE || how == CASE_CAPITALIZE) && !in_word);
        if (how == CASE_SWAP)
            upper = utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LL;
        rc = upper ? put_upper(r, &b, cp, how == CASE_TITLE || how == CASE_CAPITALIZE)
                   : put_lower(r, &b, s, i, (size_t)n, cp);
        in_word = how == CASE_CAPITALIZE ? true : is_cased(cp);
        i += (size_t)n;
    }
    return jbuf_finish(r, &b, rc, ret);
}

static int m_upper(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return change_case(r, c->self, CASE_UPPER, ret);
}
static int m_lower(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return change_case(r, c->self, CASE_LOWER, ret);
}
static int m_title(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return change_case(r, c->self, CASE_TITLE, ret);
}
static int m_capitalize(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return change_case(r, c->self, CASE_CAPITALIZE, ret);
}
static int m_swapcase(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return change_case(r, c->self, CASE_SWAP, ret);
}

/* ---- stripping ------------------------------------------------------------------------------------------------- */

static bool strips(struct jval chars, const char *s, size_t n)
{
    if (chars.type != JV_STR)
        return jstr_space_at(s, n) == n;
    for (size_t i = 0, k; i < chars.len; i += k) {
        k = jstr_offset(chars.s + i, chars.len - i, 1);
        if (k == n && memcmp(chars.s + i, s, n) == 0)
            return true;
    }
    return false;
}

static int strip(struct jrender *r, const struct jcall *c, bool left, bool right, struct jval *ret)
{
    struct jval s = c->self, chars = c->a[0];
    size_t from = 0, to = s.len;
    if (chars.type != JV_ABSENT && chars.type != JV_NONE) {
        int rc = want_str(r, chars, "strip arg");
        if (rc == 0)
            rc = jcharge(r, chars.len);
        if (rc < 0)
            return rc;
    }
    while (left && from < to) {
        size_t n = jstr_offset(s.s + from, to - from, 1);
        if (!strips(chars, s.s + from, n))
            break;
        if (jcharge(r, chars.type == JV_STR ? chars.len : 1) < 0)
            return OCTAVO_EINVAL;
        from += n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)s.s[at] & 0xc0) == 0x80)
            at--;
        if (!strips(chars, s.s + at, to - at))
            break;
        if (jcharge(r, chars.type == JV_STR ? chars.len : 1) < 0)
            return OCTAVO_EINVAL;
        to = at;
    }
    *ret = jval_str(s.s + from, to - from);
    return 0;
}

static int m_strip(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return strip(r, c, true, true, ret);
}
static int m_lstrip(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return strip(r, c, true, false, ret);
}
static int m_rstrip(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return strip(r, c, false, true, ret);
}

static int affix(struct jrender *r, const struct jcall *c, bool front, struct jval *ret)
{
    struct jval s = c->self, a = c->a[0];
    int rc = want_str(r, a, "argument");
    bool has = rc == 0 && a.len <= s.len && a.len && !memcmp(front ? s.s : s.s + s.len - a.len, a.s, a.len);
    *ret = has ? jval_str(front ? s.s + a.len : s.s, s.len - a.len) : s;
    return rc;
}
static int m_removeprefix(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return affix(r, c, true, ret);
}
static int m_removesuffix(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return affix(r, c, false, ret);
}

/* ---- searching ------------------------------------------------------------------------------------------------- */

/* c->self narrowed to the optional start and end, in code points; *ret_start is the bytes before it. */
static int narrow(struct jrender *r, const struct jcall *c, struct jval *ret, size_t *ret_start, bool *ret_ok)
{
    *ret = c->self;
    *ret_start = 0;
    *ret_ok = true;
    if (c->a[1].type == JV_ABSENT && c->a[2].type == JV_ABSENT)
        return jcharge(r, c->self.len);
    int64_t len;
    int rc = jval_length(r, c->self, &len);
    if (rc == 0 && jval_is_int(&c->a[1]) && jval_int_of(&c->a[1]) > len)
        *ret_ok = false;
    if (rc == 0)
        rc = jval_slice(r, c->self, c->a[1], c->a[2], jval_none(), ret);
    *ret_start = rc == 0 ? (size_t)(ret->s - c->self.s) : 0;
    return rc;
}

static int starts_or_ends(struct jrender *r, const struct jcall *c, bool front, struct jval *ret)
{
    struct jval s, one[1] = {c->a[0]};
    size_t start, n = 1;
    bool ok;
    const struct jval *fixes = one;
    int rc = narrow(r, c, &s, &start, &ok);
    *ret = jval_bool(false);
    if (c->a[0].type == JV_LIST && c->a[0].list->kind == JL_TUPLE) {
        fixes = c->a[0].list->items;
        n = c->a[0].list->num;
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = want_str(r, fixes[i], front ? "startswith first arg" : "endswith first arg");
        if (rc == 0 && ok && fixes[i].len <= s.len &&
            !memcmp(front ? s.s : s.s + s.len - fixes[i].len, fixes[i].s, fixes[i].len))
            *ret = jval_bool(true);
    }
    return rc;
}
static int m_startswith(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return starts_or_ends(r, c, true, ret);
}
static int m_endswith(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return starts_or_ends(r, c, false, ret);
}

static int find(struct jrender *r, const struct jcall *c, bool last, bool must, struct jval *ret)
{
    struct jval s;
    size_t start, at = SIZE_MAX;
    bool ok;
    int rc = want_str(r, c->a[0], "argument");
    if (rc == 0)
        rc = narrow(r, c, &s, &start, &ok);
    if (rc < 0)
        return rc;
    if (ok)
        at = last ? jstr_rfind(s.s, s.len, c->a[0].s, c->a[0].len) : jstr_find(s.s, s.len, c->a[0].s, c->a[0].len);
    if (at == SIZE_MAX && must)
        return jfail(r, "substring not found");
    *ret = jval_int(at == SIZE_MAX ? -1 : (int64_t)jstr_count(c->self.s, start + at));
    return 0;
}
static int m_find(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return find(r, c, false, false, ret);
}
static int m_rfind(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return find(r, c, true, false, ret);
}
static int m_index(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return find(r, c, false, true, ret);
}
static int m_rindex(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return find(r, c, true, true, ret);
}

static int m_count(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s;
    size_t start;
    bool ok;
    int rc = want_str(r, c->a[0], "argument");
    if (rc == 0)
        rc = narrow(r, c, &s, &start, &ok);
    if (rc < 0)
        return rc;
    int64_t n = 0;
    if (!c->a[0].len)
        n = ok ? (int64_t)jstr_count(s.s, s.len) + 1 : 0;
    else
        for (size_t at = 0, f; (f = jstr_find(s.s + at, s.len - at, c->a[0].s, c->a[0].len)) != SIZE_MAX; n++)
            at += f + c->a[0].len;
    *ret = jval_int(n);
    return 0;
}

static int m_replace(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s = c->self, old = c->a[0], new = c->a[1];
    int64_t count = -1;
    int rc = want_str(r, old, "replace() argument 1");
    if (rc == 0)
        rc = want_str(r, new, "replace() argument 2");
    if (rc == 0 && c->a[2].type != JV_ABSENT && c->a[2].type != JV_NONE)
        rc = want_int(r, c->a[2], &count);
    struct buf b = {0};
    size_t at = 0;
    while (rc == 0 && count != 0) {
        size_t f;
        if (!old.len) { /* between all characters, and at both ends */
            rc = jbuf_put(r, &b, new.s, new.len);
            count -= count > 0;
            if (at >= s.len)
                break;
            size_t n = jstr_offset(s.s + at, s.len - at, 1);
            if (rc == 0)
                rc = jbuf_put(r, &b, s.s + at, n);
            at += n;
            continue;
        }
        f = jstr_find(s.s + at, s.len - at, old.s, old.len);
        if (f == SIZE_MAX)
            break;
        rc = jbuf_put(r, &b, s.s + at, f);
        if (rc == 0)
            rc = jbuf_put(r, &b, new.s, new.len);
        at += f + old.len;
        count -= count > 0;
    }
    if (rc == 0)
        rc = jbuf_put(r, &b, s.s + at, s.len - at);
    return jbuf_finish(r, &b, rc, ret);
}

/* ---- splitting and joining ------------------------------------------------------------------------------------- */

static int split_space(struct jrender *r, struct jval s, int64_t max, struct jlist *l)
{
    size_t at = 0, n;
    for (;;) {
        while (at < s.len && (n = jstr_space_at(s.s + at, s.len - at)) > 0)
            at += n;
        if (at >= s.len)
            return 0;
        size_t from = at;
        if (max == 0)
            return jlist_add(r, l, jval_str(s.s + from, jstr_rstrip_len(s.s + from, s.len - from)));
        while (at < s.len && !jstr_space_at(s.s + at, s.len - at))
            at++;
        int rc = jlist_add(r, l, jval_str(s.s + from, at - from));
        if (rc < 0)
            return rc;
        max -= max > 0;
    }
}

static int rsplit_space(struct jrender *r, struct jval s, int64_t max, struct jlist *l)
{
    size_t end = s.len;
    int rc = 0;
    while (rc == 0) {
        end = jstr_rstrip_len(s.s, end);
        if (!end)
            break;
        size_t from = end;
        if (max == 0) {
            rc = jlist_add(r, l, jval_str(s.s, end));
            break;
        }
        while (from) {
            size_t at = from - 1;
            while (at && ((unsigned char)s.s[at] & 0xc0) == 0x80)
                at--;
            if (jstr_space_at(s.s + at, from - at))
                break;
            from = at;
        }
        rc = jlist_add(r, l, jval_str(s.s + from, end - from));
        end = from;
        max -= max > 0;
    }
    for (size_t i = 0; i < l->num / 2; i++) {
        struct jval t = l->items[i];
        l->items[i] = l->items[l->num - 1 - i];
        l->items[l->num - 1 - i] = t;
    }
    return rc;
}

static int split(struct jrender *r, const struct jcall *c, bool right, struct jval *ret)
{
    struct jval s = c->self, sep = c->a[0];
    int64_t max = -1;
    struct jlist *l = jlist_new(r, JL_LIST, 0);
    int rc = l ? jcharge(r, s.len) : OCTAVO_EINVAL;
    if (rc == 0 && c->a[1].type != JV_ABSENT)
        rc = want_int(r, c->a[1], &max);
    if (rc < 0)
        return rc;
    *ret = jval_list(l);
    if (sep.type == JV_ABSENT || sep.type == JV_NONE)
        return right ? rsplit_space(r, s, max, l) : split_space(r, s, max, l);
    rc = want_str(r, sep, "separator");
    if (rc == 0 && !sep.len)
        rc = jfail(r, "empty separator");
    if (rc < 0)
        return rc;
    size_t at = 0;
    if (right && max >= 0) { /* leave the first of them joined: count all, skip the surplus */
        size_t total = 0, end = s.len, f;
        while ((int64_t)total < max && (f = jstr_rfind(s.s, end, sep.s, sep.len)) != SIZE_MAX) {
            rc = jlist_add(r, l, jval_str(s.s + f + sep.len, end - f - sep.len));
            if (rc == 0)
                rc = jcharge(r, end);
            if (rc < 0)
                return rc;
            end = f;
            total++;
        }
        rc = jlist_add(r, l, jval_str(s.s, end));
        for (size_t i = 0; i < l->num / 2; i++) {
            struct jval t = l->items[i];
            l->items[i] = l->items[l->num - 1 - i];
            l->items[l->num - 1 - i] = t;
        }
        return rc;
    }
    for (size_t f; max != 0 && (f = jstr_find(s.s + at, s.len - at, sep.s, sep.len)) != SIZE_MAX; max -= max > 0) {
        rc = jlist_add(r, l, jval_str(s.s + at, f));
        if (rc < 0)
            return rc;
        at += f + sep.len;
    }
    return jlist_add(r, l, jval_str(s.s + at, s.len - at));
}
static int m_split(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return split(r, c, false, ret);
}
static int m_rsplit(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return split(r, c, true, ret);
}

static int partition(struct jrender *r, const struct jcall *c, bool last, struct jval *ret)
{
    struct jval s = c->self, sep = c->a[0];
    int rc = want_str(r, sep, "separator");
    if (rc == 0 && !sep.len)
        rc = jfail(r, "empty separator");
    struct jlist *l = rc == 0 ? jlist_new(r, JL_TUPLE, 3) : NULL;
    if (!l)
        return OCTAVO_EINVAL;
    size_t f = last ? jstr_rfind(s.s, s.len, sep.s, sep.len) : jstr_find(s.s, s.len, sep.s, sep.len);
    l->num = 3;
    if (f == SIZE_MAX) {
        l->items[0] = last ? jval_str("", 0) : s;
        l->items[1] = jval_str("", 0);
        l->items[2] = last ? s : jval_str("", 0);
    } else {
        l->items[0] = jval_str(s.s, f);
        l->items[1] = sep;
        l->items[2] = jval_str(s.s + f + sep.len, s.len - f - sep.len);
    }
    *ret = jval_list(l);
    return jcharge(r, s.len);
}
static int m_partition(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return partition(r, c, false, ret);
}
static int m_rpartition(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return partition(r, c, true, ret);
}

static size_t line_end_at(const char *s, size_t len)
{
    uint32_t cp;
    int n = len ? utf8_decode(s, len, &cp) : 0;
    if (n <= 0)
        return 0;
    if (cp == '\r' && len > 1 && s[1] == '\n')
        return 2;
    bool yes = (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
    return yes ? (size_t)n : 0;
}

static int m_splitlines(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s = c->self;
    struct jlist *l = jlist_new(r, JL_LIST, 0);
    int rc = l ? jcharge(r, s.len) : OCTAVO_EINVAL;
    bool keep = jval_truth(&c->a[0]);
    for (size_t at = 0, from = 0; rc == 0 && from < s.len; from = at) {
        size_t n = 0;
        while (at < s.len && !(n = line_end_at(s.s + at, s.len - at)))
            at++;
        rc = jlist_add(r, l, jval_str(s.s + from, at - from + (keep ? n : 0)));
        at += n;
    }
    if (rc == 0)
        *ret = jval_list(l);
    return rc;
}

static int m_join(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jlist l;
    struct buf b = {0};
    int rc = jval_iterate(r, c->a[0], &l);
    for (size_t i = 0; rc == 0 && i < l.num; i++) {
        rc = want_str(r, l.items[i], "an item of join()");
        if (rc == 0 && i)
            rc = jbuf_put(r, &b, c->self.s, c->self.len);
        if (rc == 0)
            rc = jbuf_put(r, &b, l.items[i].s, l.items[i].len);
    }
    return jbuf_finish(r, &b, rc, ret);
}

/* ---- classes of characters ------------------------------------------------------------------------------------- */

static bool is_alpha(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
static bool is_digit(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND || cp == 0xb2 || cp == 0xb3 || cp == 0xb9;
}
static bool is_numeric(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}
static bool is_decimal(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}
static bool is_alnum(uint32_t cp)
{
    return is_alpha(cp) || is_numeric(cp);
}
static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

static int all_are(struct jrender *r, struct jval s, bool (*is)(uint32_t), bool empty, struct jval *ret)
{
    bool yes = s.len ? true : empty;
    for (size_t i = 0; i < s.len && yes;) {
        uint32_t cp;
        int n = utf8_decode(s.s + i, s.len - i, &cp);
        yes = n > 0 && is(cp);
        i += n > 0 ? (size_t)n : 1;
    }
    *ret = jval_bool(yes);
    return jcharge(r, s.len);
}
static int m_isalpha(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, is_alpha, false, ret);
}
static int m_isdigit(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, is_digit, false, ret);
}
static int m_isnumeric(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, is_numeric, false, ret);
}
static int m_isdecimal(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, is_decimal, false, ret);
}
static int m_isalnum(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, is_alnum, false, ret);
}
static int m_isspace(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, jstr_is_space, false, ret);
}
static int m_isascii(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return all_are(r, c->self, is_ascii, true, ret);
}

static int cased(struct jrender *r, struct jval s, bool upper, struct jval *ret)
{
    bool any = false;
    *ret = jval_bool(false);
    for (size_t i = 0; i < s.len;) {
        uint32_t cp;
        int n = utf8_decode(s.s + i, s.len - i, &cp);
        if (n <= 0)
            break;
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        if (c == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU) || c == UTF8PROC_CATEGORY_LT)
            return 0;
        any |= c == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
        i += (size_t)n;
    }
    *ret = jval_bool(any);
    return jcharge(r, s.len);
}
static int m_isupper(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return cased(r, c->self, true, ret);
}
static int m_islower(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return cased(r, c->self, false, ret);
}

/* ---- padding --------------------------------------------------------------------------------------------------- */

static int pad(struct jrender *r, const struct jcall *c, int where, struct jval *ret)
{
    int64_t width = 0, len = 0;
    struct jval fill = c->a[1].type == JV_ABSENT ? jval_str(" ", 1) : c->a[1];
    int rc = want_int(r, c->a[0], &width);
    if (rc == 0)
        rc = jval_length(r, c->self, &len);
    if (rc == 0 && (fill.type != JV_STR || jstr_count(fill.s, fill.len) != 1))
        rc = jfail(r, "the fill character must be exactly one character long");
    if (rc < 0)
        return rc;
    if (width > 0 && (uint64_t)width > r->limits.max_memory)
        return jfail(r, "a width of %lld is too large", (long long)width);
    int64_t n = width > len ? width - len : 0, left = where < 0 ? 0 : where > 0 ? n : n / 2 + (n & width & 1);
    struct buf b = {0};
    for (int64_t i = 0; i < left && rc == 0; i++)
        rc = jbuf_put(r, &b, fill.s, fill.len);
    if (rc == 0)
        rc = jbuf_put(r, &b, c->self.s, c->self.len);
    for (int64_t i = left; i < n && rc == 0; i++)
        rc = jbuf_put(r, &b, fill.s, fill.len);
    return jbuf_finish(r, &b, rc, ret);
}
static int m_center(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pad(r, c, 0, ret);
}
static int m_ljust(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pad(r, c, -1, ret);
}
static int m_rjust(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return pad(r, c, 1, ret);
}
static int m_zfill(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jcall p = {.self = c->self, .a = {c->a[0], jval_str("0", 1)}};
    bool sign = c->self.len && (c->self.s[0] == '-' || c->self.s[0] == '+');
    if (!sign)
        return pad(r, &p, 1, ret);
    p.self = jval_str(c->self.s + 1, c->self.len - 1);
    int64_t w = 0;
    int rc = want_int(r, c->a[0], &w);
    p.a[0] = jval_int(w > INT64_MIN ? w - 1 : w);
    if (rc == 0)
        rc = pad(r, &p, 1, ret);
    struct jval s = jval_str(c->self.s, 1), rest = *ret;
    return rc < 0 ? rc : jval_binop(r, JOP_ADD, s, rest, ret);
}

static int m_format(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return jformat_braces(r, c->self, c->args, ret);
}

static const struct jnative str_methods[] = {
    {"upper", m_upper, "", 0},
    {"lower", m_lower, "", 0},
    {"casefold", m_lower, "", 0},
    {"title", m_title, "", 0},
    {"capitalize", m_capitalize, "", 0},
    {"swapcase", m_swapcase, "", 0},
    {"strip", m_strip, "chars", 0},
    {"lstrip", m_lstrip, "chars", 0},
    {"rstrip", m_rstrip, "chars", 0},
    {"removeprefix", m_removeprefix, "prefix", 1},
    {"removesuffix", m_removesuffix, "suffix", 1},
    {"startswith", m_startswith, "prefix start end", 1},
    {"endswith", m_endswith, "suffix start end", 1},
    {"find", m_find, "sub start end", 1},
    {"rfind", m_rfind, "sub start end", 1},
    {"index", m_index, "sub start end", 1},
    {"rindex", m_rindex, "sub start end", 1},
    {"count", m_count, "sub start end", 1},
    {"replace", m_replace, "old new count", 2},
    {"split", m_split, "sep maxsplit", 0},
    {"rsplit", m_rsplit, "sep maxsplit", 0},
    {"partition", m_partition, "sep", 1},
    {"rpartition", m_rpartition, "sep", 1},
    {"splitlines", m_splitlines, "keepends", 0},
    {"join", m_join, "iterable", 1},
    {"isalpha", m_isalpha, "", 0},
    {"isdigit", m_isdigit, "", 0},
    {"isnumeric", m_isnumeric, "", 0},
    {"isdecimal", m_isdecimal, "", 0},
    {"isalnum", m_isalnum, "", 0},
    {"isspace", m_isspace, "", 0},
    {"isascii", m_isascii, "", 0},
    {"isupper", m_isupper, "", 0},
    {"islower", m_islower, "", 0},
    {"center", m_center, "width fillchar", 1},
    {"ljust", m_ljust, "width fillchar", 1},
    {"rjust", m_rjust, "width fillchar", 1},
    {"zfill", m_zfill, "width", 1},
    {"format", m_format, NULL, 0},
};

const struct jnative *jstrmethod_find(struct jname name)
{
    for (size_t i = 0; i < ARRAY_LEN(str_methods); i++)
        if (jname_eq(name, str_methods[i].name))
            return &str_methods[i];
    return NULL;
}
