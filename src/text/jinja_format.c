/* Python's two ways of formatting: "%s" % x and "{}".format(x). Runs inside one render. */
#include "text/jinja_value.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 10000 };

struct spec {
    char fill[4];
    size_t fill_len;
    char align; /* '<' '>' '^' '=' or 0 */
    char sign;  /* '+' ' ' or 0 */
    char group; /* ',' '_' or 0 */
    bool alt;
    int width, prec; /* prec -1: none */
    char type;       /* 0: none */
};

static int put_fill(struct jrender *r, const struct spec *sp, size_t n, struct buf *out)
{
    int rc = 0;
    while (n-- && rc == 0)
        rc = jbuf_put(r, out, sp->fill, sp->fill_len);
    return rc;
}

/* sign is "", "-", "+" or "0x" and the like; it stays in front of the fill with '='. */
static int put_padded(struct jrender *r, const struct spec *sp, const char *sign, const char *s, size_t len,
                      char def_align, struct buf *out)
{
    size_t have = strlen(sign) + jstr_count(s, len),
           n = sp->width > 0 && (size_t)sp->width > have ? (size_t)sp->width - have : 0;
    char align = sp->align ? sp->align : def_align;
    size_t left = align == '>' ? n : align == '^' ? n / 2 : 0, mid = align == '=' ? n : 0;
    int rc = put_fill(r, sp, left, out);
    if (rc == 0)
        rc = jbuf_put(r, out, sign, strlen(sign));
    if (rc == 0)
        rc = put_fill(r, sp, mid, out);
    if (rc == 0)
        rc = jbuf_put(r, out, s, len);
    return rc < 0 ? rc : put_fill(r, sp, n - left - mid, out);
}

/* Puts group separators into the digits before the point. */
static void group_digits(char *s, size_t cap, char sep, int every)
{
    size_t digits = strspn(s, "0123456789abcdefABCDEF"), len = strlen(s);
    for (size_t at = digits; at > (size_t)every && len + 1 < cap; len++) {
        at -= (size_t)every;
        memmove(s + at + 1, s + at, len - at + 1);
        s[at] = sep;
    }
}

static int put_int(struct jrender *r, const struct spec *sp, int64_t i, struct buf *out)
{
    char text[160], sign[4] = "";
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    size_t n = 0;
    if (i < 0)
        sign[n++] = '-';
    else if (sp->sign)
        sign[n++] = sp->sign;
    switch (sp->type) {
    case 'x':
        snprintf(text, sizeof(text), "%llx", (unsigned long long)u);
        break;
    case 'X':
        snprintf(text, sizeof(text), "%llX", (unsigned long long)u);
        break;
    case 'o':
        snprintf(text, sizeof(text), "%llo", (unsigned long long)u);
        break;
    case 'b': {
        int bits = u ? 64 - __builtin_clzll(u) : 1;
        for (int b = 0; b < bits; b++)
            text[b] = (char)('0' + (u >> (bits - 1 - b) & 1));
        text[bits] = '\0';
        break;
    }
    default:
        snprintf(text, sizeof(text), "%llu", (unsigned long long)u);
    }
    if (sp->alt && sp->type && strchr("xXob", sp->type)) {
        sign[n++] = '0';
        sign[n++] = sp->type;
    }
    sign[n] = '\0';
    if (sp->group)
        group_digits(text, sizeof(text), sp->group, sp->type && strchr("xXob", sp->type) ? 4 : 3);
    return put_padded(r, sp, sign, text, strlen(text), '>', out);
}

static int put_float(struct jrender *r, const struct spec *sp, double f, struct buf *out)
{
    char text[600], sign[2] = "";
    int prec = sp->prec < 0 ? 6 : MIN(sp->prec, 100);
    double a = fabs(f);
    if (signbit(f) && !isnan(f))
        sign[0] = '-';
    else if (sp->sign)
        sign[0] = sp->sign;
    switch (sp->type) {
    case 'f':
    case 'F':
        snprintf(text, sizeof(text), "%.*f", prec, a);
        break;
    case '%':
        snprintf(text, sizeof(text), "%.*f%%", prec, a * 100);
        break;
    case 'e':
        snprintf(text, sizeof(text), "%.*e", prec, a);
        break;
    case 'E':
        snprintf(text, sizeof(text), "%.*E", prec, a);
        break;
    case 'g':
    case 'G':
        snprintf(text, sizeof(text), sp->type == 'g' ? "%.*g" : "%.*G", prec ? prec : 1, a);
        break;
    default:
        if (sp->prec < 0) {
            jstr_float_repr(a, text);
        } else {
            snprintf(text, sizeof(text), "%.*g", prec ? prec : 1, a);
            if (!strpbrk(text, ".ein"))
                memcpy(text + strlen(text), ".0", 3);
        }
    }
    if (sp->group)
        group_digits(text, sizeof(text), sp->group, 3);
    return put_padded(r, sp, sign, text, strlen(text), '>', out);
}

static int put_str(struct jrender *r, const struct spec *sp, struct jval s, struct buf *out)
{
    size_t len = sp->prec >= 0 ? jstr_offset(s.s, s.len, (size_t)sp->prec) : s.len;
    return put_padded(r, sp, "", s.s, len, '<', out);
}

static size_t scan_int(const char *s, size_t len, int *ret)
{
    size_t n = 0;
    *ret = 0;
    for (; n < len && s[n] >= '0' && s[n] <= '9'; n++)
        *ret = MIN(*ret * 10 + (s[n] - '0'), MAX_WIDTH + 1);
    return n;
}

/* ---- % --------------------------------------------------------------------------------------------------------- */

static int percent_value(struct jrender *r, const struct spec *sp, struct jval v, struct buf *out)
{
    struct buf text = {0};
    struct jval s;
    int rc;
    switch (sp->type) {
    case 's':
        rc = jval_to_str(r, v, &s);
        break;
    case 'r':
    case 'a':
        rc = jbuf_finish(r, &text, jval_append_repr(r, v, &text, 0), &s);
        break;
    case 'c':
        if (jval_is_int(&v)) {
            char u[4];
            int64_t cp = jval_int_of(&v);
            if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
                return jfail(r, "%%c arg not in range(0x110000)");
            rc = jval_copy_str(r, u, (size_t)utf8_encode((uint32_t)cp, u), &s);
        } else {
            rc = v.type == JV_STR && jstr_count(v.s, v.len) == 1 ? 0 : jfail(r, "%%c requires int or char");
            s = v;
        }
        break;
    default:
        if (v.type == JV_UNDEF)
            return jfail_undefined(r, v);
        if (!jval_is_number(&v) || (strchr("xXo", sp->type) && v.type == JV_FLOAT))
            return jfail(r, "%%%c format: a number is required, not %s", sp->type, jval_type_name(&v));
        if (!strchr("diuxXo", sp->type))
            return put_float(r, sp, jval_double(&v), out);
        if (v.type == JV_FLOAT && !(fabs(v.f) < 9.2e18))
            return jfail(r, "an integer does not fit into 64 bits");
        return put_int(r, sp, v.type == JV_FLOAT ? (int64_t)v.f : jval_int_of(&v), out);
    }
    struct spec str = *sp;
    if (str.align == 0 || str.align == '=')
        str.align = '>';
    str.fill[0] = ' ';
    return rc < 0 ? rc : put_str(r, &str, s, out);
}

/* One "%..." at s[0] == '%'; returns its bytes in *ret_len. */
static int percent_one(struct jrender *r, const char *s, size_t len, struct jval args, size_t *next, size_t *ret_len,
                       struct buf *out)
{
    struct spec sp = {.fill = " ", .fill_len = 1, .prec = -1};
    struct jval v = args;
    size_t i = 1;
    bool by_key = false, tuple = args.type == JV_LIST && args.list->kind == JL_TUPLE;
    if (i < len && s[i] == '(') {
        const char *close = memchr(s + i, ')', len - i);
        if (!close || args.type != JV_DICT)
            return close ? jfail(r, "format requires a mapping") : jfail(r, "incomplete format key");
        bool found = false;
        int rc = jdict_get(r, args.dict, jval_str(s + i + 1, (size_t)(close - s) - i - 1), &v, &found);
        if (rc < 0 || !found)
            return rc < 0 ? rc : jfail(r, "a key of the format is not in the mapping");
        i = (size_t)(close - s) + 1;
        by_key = true;
    }
    for (; i < len && strchr("-+ 0#", s[i]) && s[i]; i++) {
        if (s[i] == '-')
            sp.align = '<';
        else if (s[i] == '0' && sp.align != '<') {
            sp.align = '=';
            sp.fill[0] = '0';
        } else if (s[i] == '+' || (s[i] == ' ' && !sp.sign))
            sp.sign = s[i];
        else if (s[i] == '#')
            sp.alt = true;
    }
    if (sp.align == '<')
        sp.fill[0] = ' ';
    i += scan_int(s + i, len - i, &sp.width);
    if (i < len && s[i] == '.') {
        i++;
        i += scan_int(s + i, len - i, &sp.prec);
    }
    if (i >= len)
        return jfail(r, "incomplete format");
    if (sp.width > MAX_WIDTH || sp.prec > MAX_WIDTH)
        return jfail(r, "a width or precision of a format is more than %d", MAX_WIDTH);
    sp.type = s[i];
    *ret_len = i + 1;
    if (sp.type == '%')
        return jbuf_put(r, out, "%", 1);
    if (!sp.type || !strchr("sradiuxXofFeEgGc", sp.type))
        return jfail(r, "unsupported format character");
    if (!by_key) {
        if (*next >= (tuple ? args.list->num : 1))
            return jfail(r, "not enough arguments for format string");
        v = tuple ? args.list->items[*next] : args;
        ++*next;
    }
    return percent_value(r, &sp, v, out);
}

int jformat_percent(struct jrender *r, struct jval fmt, struct jval args, struct jval *ret)
{
    struct buf b = {0};
    size_t next = 0;
    int rc = 0;
    for (size_t i = 0; i < fmt.len && rc == 0;) {
        const char *p = memchr(fmt.s + i, '%', fmt.len - i);
        size_t n = p ? (size_t)(p - fmt.s) - i : fmt.len - i;
        rc = jbuf_put(r, &b, fmt.s + i, n);
        i += n;
        if (rc == 0 && i < fmt.len) {
            n = 0;
            rc = percent_one(r, fmt.s + i, fmt.len - i, args, &next, &n, &b);
            i += n;
        }
    }
    bool tuple = args.type == JV_LIST && args.list->kind == JL_TUPLE;
    bool all =
        tuple ? next >= args.list->num : next || args.type == JV_DICT || args.type == JV_LIST || args.type == JV_UNDEF;
    if (rc == 0 && !all)
        rc = jfail(r, "not all arguments converted during string formatting");
    return jbuf_finish(r, &b, rc, ret);
}

/* ---- {} -------------------------------------------------------------------------------------------------------- */

static int parse_spec(struct jrender *r, const char *s, size_t len, struct spec *sp)
{
    *sp = (struct spec){.fill = " ", .fill_len = 1, .prec = -1};
    size_t i = 0, c = len ? jstr_offset(s, len, 1) : 0;
    if (c && c < len && strchr("<>^=", s[c]) && c <= 4) {
        memcpy(sp->fill, s, c);
        sp->fill_len = c;
        sp->align = s[c];
        i = c + 1;
    } else if (len && s[0] && strchr("<>^=", s[0])) {
        sp->align = s[0];
        i = 1;
    }
    if (i < len && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) {
        sp->sign = s[i] == '-' ? 0 : s[i];
        i++;
    }
    if (i < len && s[i] == '#') {
        sp->alt = true;
        i++;
    }
    if (i < len && s[i] == '0') {
        if (!sp->align) {
            sp->align = '=';
            sp->fill[0] = '0';
            sp->fill_len = 1;
        }
        i++;
    }
    i += scan_int(s + i, len - i, &sp->width);
    if (i < len && (s[i] == ',' || s[i] == '_'))
        sp->group = s[i++];
    if (i < len && s[i] == '.') {
        i++;
        i += scan_int(s + i, len - i, &sp->prec);
    }
    if (i < len)
        sp->type = s[i++];
    if (i != len || sp->width > MAX_WIDTH || sp->prec > MAX_WIDTH)
        return jfail(r, "invalid format specifier");
    return 0;
}

static int braces_value(struct jrender *r, struct jval v, char conv, const char *spec, size_t spec_len, struct buf *out)
{
    struct spec sp;
    struct buf text = {0};
    int rc = parse_spec(r, spec, spec_len, &sp);
    if (rc == 0 && (conv == 'r' || conv == 'a'))
        rc = jbuf_finish(r, &text, jval_append_repr(r, v, &text, 0), &v);
    else if (rc == 0 && (conv == 's' || !spec_len || v.type == JV_UNDEF))
        rc = jval_to_str(r, v, &v);
    if (rc < 0)
        return rc;
    if (v.type == JV_STR) {
        if ((sp.type && sp.type != 's') || sp.align == '=')
            return jfail(r, "unknown format code '%c' for a str", sp.type ? sp.type : '=');
        return put_str(r, &sp, v, out);
    }
    if (!jval_is_number(&v))
        return jfail(r, "unsupported format string passed to %s.__format__", jval_type_name(&v));
    if (jval_is_int(&v) && (!sp.type || strchr("dxXobn", sp.type)))
        return put_int(r, &sp, jval_int_of(&v), out);
    if (sp.type && !strchr("eEfFgG%n", sp.type))
        return jfail(r, "unknown format code '%c' for a number", sp.type);
    return put_float(r, &sp, jval_double(&v), out);
}

/* "name.attr[0]" of a field. */
static int braces_field(struct jrender *r, const char *s, size_t len, const struct jargs *args, size_t *auto_at,
                        struct jval *ret)
{
    size_t i = 0;
    while (i < len && s[i] != '.' && s[i] != '[')
        i++;
    int at;
    if (!i || scan_int(s, i, &at) == i) {
        size_t n = i ? (size_t)at : (*auto_at)++;
        if (n >= args->num_pos)
            return jfail(r, "Replacement index %zu out of range for positional args tuple", n);
        *ret = args->pos[n];
    } else {
        size_t k = 0;
        while (k < args->num_kw && !(args->kw_names[k].len == i && !memcmp(args->kw_names[k].s, s, i)))
            k++;
        if (k == args->num_kw)
            return jfail(r, "format() has no argument '%.*s'", (int)MIN(i, 60u), s);
        *ret = args->kw[k];
    }
    while (i < len) {
        size_t from = i + 1, to = from;
        bool attr = s[i] == '.';
        while (to < len && (attr ? s[to] != '.' && s[to] != '[' : s[to] != ']'))
            to++;
        if (to == from || (!attr && to == len))
            return jfail(r, "a format has an empty attribute");
        struct jval key = jval_str(s + from, to - from);
        if (!attr && scan_int(s + from, to - from, &at) == to - from)
            key = jval_int(at);
        int rc = attr ? jval_getattr(r, *ret, (struct jname){s + from, (uint32_t)(to - from)}, ret)
                      : jval_getitem(r, *ret, key, ret);
        if (rc < 0)
            return rc;
        i = to + !attr;
    }
    return 0;
}

int jformat_braces(struct jrender *r, struct jval fmt, const struct jargs *args, struct jval *ret)
{
    struct buf b = {0};
    size_t auto_at = 0;
    int rc = 0;
    for (size_t i = 0; i < fmt.len && rc == 0;) {
        char c = fmt.s[i];
        if ((c == '{' || c == '}') && i + 1 < fmt.len && fmt.s[i + 1] == c) {
            rc = jbuf_put(r, &b, &c, 1);
            i += 2;
            continue;
        }
        if (c == '}') {
            rc = jfail(r, "Single '}' encountered in format string");
            break;
        }
        if (c != '{') {
            rc = jbuf_put(r, &b, &c, 1);
            i++;
            continue;
        }
        const char *s = fmt.s + i + 1, *close = memchr(s, '}', fmt.len - i - 1);
        if (!close || memchr(s, '{', (size_t)(close - s))) {
            rc = jfail(r, "a '{' of a format string has no '}', or holds another '{'");
            break;
        }
        size_t len = (size_t)(close - s), name = 0, spec;
        while (name < len && s[name] != '!' && s[name] != ':')
            name++;
        spec = name;
        char conv = 0;
        if (spec < len && s[spec] == '!') {
            conv = spec + 1 < len ? s[spec + 1] : '?';
            spec += 2;
            if (!strchr("rsa", conv) || (spec < len && s[spec] != ':')) {
                rc = jfail(r, "a format has a conversion that is not r, s or a");
                break;
            }
        }
        spec += spec < len;
        struct jval v;
        rc = braces_field(r, s, name, args, &auto_at, &v);
        if (rc == 0)
            rc = braces_value(r, v, conv, s + MIN(spec, len), len - MIN(spec, len), &b);
        i += len + 2;
    }
    return jbuf_finish(r, &b, rc, ret);
}
