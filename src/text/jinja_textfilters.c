/* Jinja's filters over text, and tojson. Runs inside one render. */
#include "text/jinja_filters.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_str.h"

#include <stdlib.h>
#include <string.h>

/* Calls a str method on str(self) with the filter's own arguments. */
static int by_method(struct jrender *r, const struct jcall *c, const char *method, const struct jargs *args,
                     struct jval *ret)
{
    struct jval s;
    int rc = jval_to_str(r, c->self, &s);
    return rc < 0 ? rc
                  : jnative_call(r, jmethod_find(&s, (struct jname){method, (uint32_t)strlen(method)}), s, args, ret);
}

static const struct jargs no_args;

static int f_upper(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return by_method(r, c, "upper", &no_args, ret);
}
static int f_lower(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return by_method(r, c, "lower", &no_args, ret);
}
static int f_capitalize(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return by_method(r, c, "capitalize", &no_args, ret);
}
static int f_string(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return jval_to_str(r, c->self, ret);
}

static int f_trim(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval chars = c->a[0];
    struct jargs args = {.pos = &chars, .num_pos = chars.type != JV_ABSENT};
    return by_method(r, c, "strip", &args, ret);
}

static int f_center(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval width = c->a[0].type == JV_ABSENT ? jval_int(80) : c->a[0];
    struct jargs args = {.pos = &width, .num_pos = 1};
    return by_method(r, c, "center", &args, ret);
}

static int f_replace(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval a[3];
    int rc = jval_to_str(r, c->a[0], &a[0]);
    if (rc == 0)
        rc = jval_to_str(r, c->a[1], &a[1]);
    a[2] = c->a[2].type == JV_NONE || c->a[2].type == JV_ABSENT ? jval_int(-1) : c->a[2];
    struct jargs args = {.pos = a, .num_pos = 3};
    return rc < 0 ? rc : by_method(r, c, "replace", &args, ret);
}

/* Jinja's title: words begin after space, '-' and brackets; the rest of a word is lower case. */
static int f_title(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s, word;
    struct buf b = {0};
    int rc = jval_to_str(r, c->self, &s);
    for (size_t i = 0; rc == 0 && i < s.len;) {
        size_t from = i, n;
        while (i < s.len && !strchr("-({[<", s.s[i]) && !jstr_space_at(s.s + i, s.len - i))
            i += jstr_offset(s.s + i, s.len - i, 1);
        if (i > from) {
            n = jstr_offset(s.s + from, i - from, 1);
            struct jcall first = {.self = jval_str(s.s + from, n)},
                         rest = {.self = jval_str(s.s + from + n, i - from - n)};
            rc = by_method(r, &first, "upper", &no_args, &word);
            if (rc == 0)
                rc = jbuf_put(r, &b, word.s, word.len);
            if (rc == 0)
                rc = by_method(r, &rest, "lower", &no_args, &word);
            if (rc == 0)
                rc = jbuf_put(r, &b, word.s, word.len);
        }
        if (rc == 0 && i < s.len) {
            n = jstr_offset(s.s + i, s.len - i, 1);
            rc = jbuf_put(r, &b, s.s + i, n);
            i += n;
        }
    }
    return jbuf_finish(r, &b, rc, ret);
}

static int f_indent(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s, pad = jval_str("    ", 4), space = jval_str(" ", 1);
    struct buf b = {0};
    bool first = jval_truth(&c->a[1]), blank = jval_truth(&c->a[2]);
    int rc = jval_to_str(r, c->self, &s);
    if (rc == 0 && c->a[0].type == JV_STR)
        pad = c->a[0];
    else if (rc == 0 && c->a[0].type != JV_ABSENT)
        rc = jval_binop(r, JOP_MUL, space, c->a[0], &pad);
    for (size_t at = 0; rc == 0 && at <= s.len;) {
        const char *nl = memchr(s.s + at, '\n', s.len - at);
        size_t len = nl ? (size_t)(nl - s.s) - at : s.len - at;
        if (at ? (len || blank) : first)
            rc = jbuf_put(r, &b, pad.s, pad.len);
        if (rc == 0)
            rc = jbuf_put(r, &b, s.s + at, len + (nl != NULL));
        at += len + 1;
        if (!nl)
            break;
    }
    return jbuf_finish(r, &b, rc, ret);
}

static int f_escape(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s;
    struct buf b = {0};
    int rc = jval_to_str(r, c->self, &s);
    for (size_t i = 0; rc == 0 && i < s.len; i++) {
        const char *e = s.s[i] == '&'    ? "&amp;"
                        : s.s[i] == '<'  ? "&lt;"
                        : s.s[i] == '>'  ? "&gt;"
                        : s.s[i] == '"'  ? "&#34;"
                        : s.s[i] == '\'' ? "&#39;"
                                         : NULL;
        rc = e ? jbuf_put(r, &b, e, strlen(e)) : jbuf_put(r, &b, s.s + i, 1);
    }
    return jbuf_finish(r, &b, rc, ret);
}

static int f_format(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s, v;
    int rc = jval_to_str(r, c->self, &s);
    if (rc < 0)
        return rc;
    if (c->args->num_kw) {
        struct jdict *d = jdict_new(r);
        rc = d ? 0 : OCTAVO_EINVAL;
        for (size_t i = 0; rc == 0 && i < c->args->num_kw; i++)
            rc = jdict_set(r, d, jval_str(c->args->kw_names[i].s, c->args->kw_names[i].len), c->args->kw[i]);
        v = jval_dict(d);
    } else {
        struct jlist *l = jlist_new(r, JL_TUPLE, 0);
        rc = l ? 0 : OCTAVO_EINVAL;
        for (size_t i = 0; rc == 0 && i < c->args->num_pos; i++)
            rc = jlist_add(r, l, c->args->pos[i]);
        v = jval_list(l);
    }
    return rc < 0 ? rc : jformat_percent(r, s, v, ret);
}

static bool word_byte(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static int f_wordcount(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s;
    int64_t n = 0;
    int rc = jval_to_str(r, c->self, &s);
    for (size_t i = 0; rc == 0 && i < s.len; i++)
        n += word_byte((unsigned char)s.s[i]) && (i == 0 || !word_byte((unsigned char)s.s[i - 1]));
    *ret = jval_int(n);
    return rc < 0 ? rc : jcharge(r, s.len);
}

static int f_truncate(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s, end = c->a[2].type == JV_STR ? c->a[2] : jval_str("...", 3), text;
    int64_t len, length = jval_is_int(&c->a[0]) ? jval_int_of(&c->a[0]) : 255, end_len;
    int64_t leeway = jval_is_int(&c->a[3]) ? jval_int_of(&c->a[3]) : 5;
    int rc = jval_length(r, c->self, &len);
    if (rc == 0)
        rc = jval_to_str(r, c->self, &s);
    if (rc == 0)
        rc = jval_length(r, end, &end_len);
    if (rc == 0 && (length < end_len || leeway < 0))
        rc = jfail(r, "truncate: length and leeway are too small");
    if (rc < 0)
        return rc;
    if (len <= length || len - length <= leeway) {
        *ret = s;
        return 0;
    }
    text = jval_str(s.s, jstr_offset(s.s, s.len, (size_t)(length - end_len)));
    if (!jval_truth(&c->a[1])) {
        size_t space = jstr_rfind(text.s, text.len, " ", 1);
        if (space != SIZE_MAX)
            text.len = (uint32_t)space;
    }
    return jval_binop(r, JOP_ADD, text, end, ret);
}

static int f_urlencode(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jval s;
    struct buf b = {0};
    int rc = c->self.type == JV_LIST || c->self.type == JV_DICT
                 ? jfail(r, "urlencode of a list or dict is not supported")
                 : jval_to_str(r, c->self, &s);
    for (size_t i = 0; rc == 0 && i < s.len; i++) {
        unsigned char ch = (unsigned char)s.s[i];
        char hex[4];
        snprintf(hex, sizeof(hex), "%%%02X", ch);
        bool plain = (word_byte(ch) && ch < 0x80) || strchr("-.~/", ch);
        rc = plain && ch ? jbuf_put(r, &b, s.s + i, 1) : jbuf_put(r, &b, hex, 3);
    }
    return jbuf_finish(r, &b, rc, ret);
}

static int f_safe(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    return jval_to_str(r, c->self, ret);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static int dump_string(struct jrender *r, struct jval v, bool ascii, struct buf *out)
{
    int rc = jbuf_put(r, out, "\"", 1);
    for (size_t i = 0; rc == 0 && i < v.len;) {
        size_t run = i;
        while (run < v.len && (unsigned char)v.s[run] >= 0x20 && v.s[run] != '"' && v.s[run] != '\\' &&
               !(ascii && (v.s[run] & 0x80)))
            run++;
        if (run > i) {
            rc = jbuf_put(r, out, v.s + i, run - i);
            i = run;
            continue;
        }
        char esc[16];
        unsigned char c = (unsigned char)v.s[i];
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
        const char *p = c ? strchr(from, c) : NULL;
        uint32_t cp = c;
        int n = c & 0x80 ? utf8_decode(v.s + i, v.len - i, &cp) : 1;
        if (p)
            snprintf(esc, sizeof(esc), "\\%c", to[p - from]);
        else if (cp >= 0x10000)
            snprintf(esc, sizeof(esc), "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                     0xdc00 + ((cp - 0x10000) & 0x3ff));
        else
            snprintf(esc, sizeof(esc), "\\u%04x", cp);
        rc = jbuf_put(r, out, esc, strlen(esc));
        i += n > 0 ? (size_t)n : 1;
    }
    return rc < 0 ? rc : jbuf_put(r, out, "\"", 1);
}

static int dump_break(struct jrender *r, const struct jdumps_options *o, struct buf *out, int depth)
{
    int rc = o->indent ? jbuf_put(r, out, "\n", 1) : 0;
    for (int i = 0; o->indent && i < depth && rc == 0; i++)
        rc = jbuf_put(r, out, o->indent, o->indent_len);
    return rc;
}

static int dump_key(struct jrender *r, struct jval key, const struct jdumps_options *o, struct buf *out)
{
    if (key.type == JV_STR)
        return dump_string(r, key, o->ascii, out);
    if (!jval_is_number(&key) && key.type != JV_NONE)
        return jfail(r, "keys must be str, int, float, bool or None, not %s", jval_type_name(&key));
    int rc = jbuf_put(r, out, "\"", 1);
    if (rc == 0)
        rc = jval_dumps(r, key, o, out, 0);
    return rc < 0 ? rc : jbuf_put(r, out, "\"", 1);
}

static int dump_container(struct jrender *r, struct jval v, const struct jdumps_options *o, struct buf *out, int depth)
{
    bool dict = v.type == JV_DICT;
    size_t num = dict ? v.dict->num : v.list->num;
    if (!num)
        return jbuf_put(r, out, dict ? "{}" : "[]", 2);
    struct jval *order = NULL;
    int rc = jbuf_put(r, out, dict ? "{" : "[", 1);
    if (dict && o->sort_keys) {
        struct jval *keys = jalloc(r, num, sizeof(*keys));
        order = keys ? jalloc(r, num, sizeof(*order)) : NULL;
        if (!order)
            return OCTAVO_EINVAL;
        for (size_t i = 0; i < num; i++) {
            keys[i] = v.dict->entries[i].key;
            order[i] = jval_int((int64_t)i);
        }
        rc = jval_sort(r, order, keys, num, false);
    }
    for (size_t i = 0; rc == 0 && i < num; i++) {
        const struct jentry *e = dict ? &v.dict->entries[order ? (size_t)order[i].i : i] : NULL;
        if (i)
            rc = jbuf_put(r, out, o->item_sep.s, o->item_sep.len);
        if (rc == 0)
            rc = dump_break(r, o, out, depth + 1);
        if (rc == 0 && dict)
            rc = dump_key(r, e->key, o, out);
        if (rc == 0 && dict)
            rc = jbuf_put(r, out, o->key_sep.s, o->key_sep.len);
        if (rc == 0)
            rc = jval_dumps(r, dict ? e->value : v.list->items[i], o, out, depth + 1);
    }
    if (rc == 0)
        rc = dump_break(r, o, out, depth);
    return rc < 0 ? rc : jbuf_put(r, out, dict ? "}" : "]", 1);
}

int jval_dumps(struct jrender *r, struct jval v, const struct jdumps_options *o, struct buf *out, int depth)
{
    char text[48];
    if (depth > JINJA_MAX_VALUE_DEPTH)
        return jfail(r, "values nest more than %d deep", JINJA_MAX_VALUE_DEPTH);
    switch (v.type) {
    case JV_NONE:
        return jbuf_put(r, out, "null", 4);
    case JV_BOOL:
        return v.b ? jbuf_put(r, out, "true", 4) : jbuf_put(r, out, "false", 5);
    case JV_STR:
        return dump_string(r, v, o->ascii, out);
    case JV_FLOAT:
        jstr_float_repr(v.f, text);
        if (strchr(text, 'n')) {
            const char *s = strchr(text, 'a') ? "NaN" : text[0] == '-' ? "-Infinity" : "Infinity";
            return jbuf_put(r, out, s, strlen(s));
        }
        return jbuf_put(r, out, text, strlen(text));
    case JV_INT:
        return jval_append_repr(r, v, out, 0);
    case JV_LIST:
        if (v.list->kind <= JL_TUPLE)
            return dump_container(r, v, o, out, depth);
        break;
    case JV_DICT:
        return dump_container(r, v, o, out, depth);
    default:
        break;
    }
    return jfail(r, "Object of type %s is not JSON serializable", jval_type_name(&v));
}

static int f_tojson(struct jrender *r, const struct jcall *c, struct jval *ret)
{
    struct jdumps_options o = {.ascii = jval_truth(&c->a[0]),
                               .sort_keys = jval_truth(&c->a[3]),
                               .item_sep = jval_str(", ", 2),
                               .key_sep = jval_str(": ", 2)};
    struct jval indent = c->a[1], spaces = jval_str(" ", 1);
    int rc = 0;
    if (indent.type == JV_UNDEF)
        return jfail_undefined(r, indent);
    if (indent.type != JV_ABSENT && indent.type != JV_NONE) {
        if (indent.type != JV_STR)
            rc = jval_binop(r, JOP_MUL, spaces, indent, &indent);
        if (rc < 0)
            return rc;
        o.indent = indent.s;
        o.indent_len = indent.len;
        o.item_sep = jval_str(",", 1);
    }
    if (c->a[2].type != JV_ABSENT && c->a[2].type != JV_NONE) {
        struct jlist l;
        rc = jval_iterate(r, c->a[2], &l);
        if (rc == 0 && (l.num != 2 || l.items[0].type != JV_STR || l.items[1].type != JV_STR))
            rc = jfail(r, "separators must be two strings");
        if (rc < 0)
            return rc;
        o.item_sep = l.items[0];
        o.key_sep = l.items[1];
    }
    struct buf b = {0};
    return jbuf_finish(r, &b, jval_dumps(r, c->self, &o, &b, 0), ret);
}

static const struct jnative filters[] = {
    {"upper", f_upper, "", 0},
    {"lower", f_lower, "", 0},
    {"capitalize", f_capitalize, "", 0},
    {"title", f_title, "", 0},
    {"string", f_string, "", 0},
    {"trim", f_trim, "chars", 0},
    {"center", f_center, "width", 0},
    {"replace", f_replace, "old new count", 2},
    {"indent", f_indent, "width first blank", 0},
    {"escape", f_escape, "", 0},
    {"e", f_escape, "", 0},
    {"forceescape", f_escape, "", 0},
    {"safe", f_safe, "", 0},
    {"format", f_format, NULL, 0},
    {"wordcount", f_wordcount, "", 0},
    {"truncate", f_truncate, "length killwords end leeway", 0},
    {"urlencode", f_urlencode, "", 0},
    {"tojson", f_tojson, "ensure_ascii indent separators sort_keys", 0},
};

const struct jnative *jtextfilter_find(struct jname name)
{
    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        if (jname_eq(name, filters[i].name))
            return &filters[i];
    return NULL;
}
