/* Oniguruma's regular expressions (Ruby syntax, UTF-8) written as PCRE2's. The two agree on most; here is where they do
 * not: what \s, \w, \d, \h, \v and \b mean, {n,m}+ (greedy twice, not possessive), {,m}, stacked quantifiers, (?m), and
 * classes with nested classes and intersections, which become look-aheads. What has no counterpart is refused by name.
 */
#include "text/tokenizer_regex.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#define MAX_NESTING 50
#define MAX_EXPANSION (1 << 20) /* bytes of translation: nested quantifiers and classes repeat their parts */

/* Contents of classes. */
#define SPACE                                                                                                          \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{No}\\p{Pc}"
#define HEX "0-9a-fA-F"

struct translator {
    const char *p;
    size_t len, at;
    struct octavo_error *err;
};

static int parse_branches(struct translator *t, struct buf *out, int depth);
static int parse_class(struct translator *t, struct buf *out, int depth);

static int refuse(const struct translator *t, const char *what)
{
    return error_set(t->err, OCTAVO_EUNSUPPORTED,
                     "tokenizer.json: the pattern \"%.200s\" uses %s at byte %zu, which is not "
                     "supported",
                     t->p, what, t->at);
}

static int peek(const struct translator *t, size_t ahead)
{
    return ahead < t->len - t->at ? (unsigned char)t->p[t->at + ahead] : -1;
}

static bool looking_at(const struct translator *t, const char *s)
{
    size_t n = strlen(s);
    return t->len - t->at >= n && !memcmp(t->p + t->at, s, n);
}

/* ---- characters and properties ------------------------------------------------------------------------------ */

static int parse_hex(struct translator *t, int min, int max, uint32_t *ret)
{
    uint32_t v = 0;
    int n = 0;
    for (; n < max && peek(t, 0) >= 0 && isxdigit(peek(t, 0)); n++, t->at++) {
        int c = tolower(peek(t, 0));
        v = v * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (n < min || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
        return refuse(t, "a bad character number");
    *ret = v;
    return 0;
}

/* An escape that stands for one character, after the backslash. 1: it was one, 0: it is something else. */
static int parse_char_escape(struct translator *t, uint32_t *ret)
{
    static const char letters[] = "ntrfaev", values[] = "\n\t\r\f\a\x1b\v";
    int c = peek(t, 0), r;
    if (c < 0)
        return refuse(t, "a backslash at the end");
    const char *l = memchr(letters, c, sizeof(letters) - 1);
    if (l) {
        *ret = (unsigned char)values[l - letters];
        t->at++;
        return 1;
    }
    if (c == 'x' && peek(t, 1) == '{') {
        t->at += 2;
        if ((r = parse_hex(t, 1, 8, ret)))
            return r;
        if (peek(t, 0) != '}')
            return refuse(t, "an unfinished \\x{");
        t->at++;
        return 1;
    }
    if (c == 'x' || c == 'u') {
        t->at++;
        if ((r = parse_hex(t, c == 'x' ? 1 : 4, c == 'x' ? 2 : 4, ret)))
            return r;
        if (c == 'x' && *ret > 0x7f)
            return refuse(t, "a byte that is not a character");
        return 1;
    }
    if (isalnum(c))
        return 0;
    int n = utf8_decode(t->p + t->at, t->len - t->at, ret);
    if (n < 0)
        return refuse(t, "bytes that are not UTF-8");
    t->at += (size_t)n;
    return 1;
}

struct property {
    const char *name, *content;
};

/* Names without case, '_', '-' and ' '. One and two letters are general categories, which PCRE2 knows. */
static const struct property properties[] = {
    {"letter", "\\p{L}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"privateuse", "\\p{Co}"},
    {"unassigned", "\\p{Cn}"},
    {"any", "\\x{0}-\\x{10ffff}"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alphabetic", "\\p{Alphabetic}"},
    {"upper", "\\p{Uppercase}"},
    {"uppercase", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"lowercase", "\\p{Lowercase}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"digit", "\\p{Nd}"},
    {"xdigit", HEX},
    {"space", SPACE},
    {"whitespace", SPACE},
    {"blank", "\\p{Zs}\\x{9}"},
    {"cntrl", "\\p{Cc}"},
    {"punct", "\\p{P}$+<=>\\^`|~"},
    {"word", WORD},
    {"emoji", "\\p{Emoji}"},
    {"emojipresentation", "\\p{Emoji_Presentation}"},
    {"emojimodifier", "\\p{Emoji_Modifier}"},
    {"emojicomponent", "\\p{Emoji_Component}"},
    {"extendedpictographic", "\\p{Extended_Pictographic}"},
    {"ideographic", "\\p{Ideographic}"},
};

/* The content of a class for a property's name; a name that is in no list is taken for a script. */
static int property_content(struct translator *t, const char *name, size_t len, struct buf *out)
{
    char key[64];
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)name[i];
        if (c == '_' || c == '-' || c == ' ')
            continue;
        if (!isalnum(c) || n + 1 >= sizeof(key))
            return refuse(t, "a property with a strange name");
        key[n++] = (char)tolower(c);
    }
    key[n] = '\0';
    if (n == 0)
        return refuse(t, "a property without a name");
    if (n <= 2) {
        buf_printf(out, "\\p{%c%s}", toupper(key[0]), key + 1);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(properties); i++) {
        if (!strcmp(properties[i].name, key)) {
            buf_puts(out, properties[i].content);
            return 0;
        }
    }
    buf_printf(out, "\\p{sc:%s}", key);
    return 0;
}

/* \s \w \d \h \p and their opposites, after the backslash: *content receives what a class holds. 1: it was one. */
static int parse_set_escape(struct translator *t, struct buf *content, bool *ret_negated)
{
    int c = peek(t, 0);
    switch (c) {
    case 's':
    case 'S':
        buf_puts(content, SPACE);
        break;
    case 'w':
    case 'W':
        buf_puts(content, WORD);
        break;
    case 'd':
    case 'D':
        buf_puts(content, "\\p{Nd}");
        break;
    case 'h':
    case 'H':
        buf_puts(content, HEX);
        break;
    case 'p':
    case 'P': {
        const char *name = t->p + t->at + 2;
        const char *end = peek(t, 1) == '{' ? memchr(name, '}', t->len - t->at - 2) : NULL;
        if (!end)
            return refuse(t, "a \\p without a name in braces");
        bool caret = *name == '^';
        int r = property_content(t, name + caret, (size_t)(end - name) - caret, content);
        if (r)
            return r;
        *ret_negated = (c == 'P') != caret;
        t->at = (size_t)(end + 1 - t->p);
        return 1;
    }
    default:
        return 0;
    }
    *ret_negated = isupper(c);
    t->at++;
    return 1;
}

/* ---- classes ------------------------------------------------------------------------------------------------ */

/* What a class has gathered: plain content, and further one-character expressions, each with a leading '|'. */
struct gathered {
    struct buf content, others;
};

static void add_set(struct gathered *g, const struct buf *content, bool negated)
{
    if (negated)
        buf_printf(&g->others, "|[^%s]", buf_str(content));
    else
        buf_append(&g->content, content->data, content->len);
}

/* One operand of an intersection as an expression of one character. */
static void put_union(const struct gathered *g, struct buf *out)
{
    if (!g->others.len) {
        buf_printf(out, "[%s]", buf_str(&g->content));
        return;
    }
    buf_puts(out, "(?:");
    if (g->content.len)
        buf_printf(out, "[%s]%s", buf_str(&g->content), buf_str(&g->others));
    else
        buf_puts(out, buf_str(&g->others) + 1);
    buf_putc(out, ')');
}

static int parse_posix(struct translator *t, struct gathered *g)
{
    const char *name = t->p + t->at + 2;
    const char *end = memmem(name, t->len - t->at - 2, ":]", 2);
    bool negated = *name == '^';
    struct buf content = {0};
    int r = property_content(t, name + negated, (size_t)(end - name) - negated, &content);
    if (!r && content.len > 5 && !strncmp(content.data, "\\p{sc", 5))
        r = refuse(t, "an unknown bracket class");
    if (!r) {
        add_set(g, &content, negated);
        t->at = (size_t)(end + 2 - t->p);
    }
    buf_release(&content);
    return r;
}

/* One end of a range, or a set. 1: *ret_cp is a character; 0: a set was added to g. */
static int parse_class_atom(struct translator *t, struct gathered *g, uint32_t *ret_cp)
{
    if (peek(t, 0) != '\\') {
        int n = utf8_decode(t->p + t->at, t->len - t->at, ret_cp);
        if (n < 0)
            return refuse(t, "bytes that are not UTF-8");
        t->at += (size_t)n;
        return 1;
    }
    t->at++;
    struct buf content = {0};
    bool negated = false;
    int r = parse_set_escape(t, &content, &negated);
    if (r == 1) {
        add_set(g, &content, negated);
        r = 0;
    } else if (r == 0 && peek(t, 0) == 'b') {
        *ret_cp = '\b';
        t->at++;
        r = 1;
    } else if (r == 0) {
        r = parse_char_escape(t, ret_cp);
        if (r == 0)
            r = refuse(t, "an unknown escape in a class");
    }
    buf_release(&content);
    return r;
}

static int parse_class_item(struct translator *t, struct gathered *g, int depth)
{
    if (looking_at(t, "[:") && memmem(t->p + t->at + 2, t->len - t->at - 2, ":]", 2))
        return parse_posix(t, g);
    if (peek(t, 0) == '[') {
        buf_putc(&g->others, '|');
        return parse_class(t, &g->others, depth + 1);
    }
    uint32_t lo = 0, hi = 0;
    int r = parse_class_atom(t, g, &lo);
    if (r != 1)
        return r;
    if (peek(t, 0) == '-' && peek(t, 1) >= 0 && peek(t, 1) != ']' && peek(t, 1) != '[') {
        t->at++;
        r = parse_class_atom(t, g, &hi);
        if (r < 0)
            return r;
        if (r == 0) { /* [a-\s]: the hyphen is itself */
            buf_printf(&g->content, "\\x{%x}\\x{2d}", lo);
            return 0;
        }
        if (hi < lo)
            return refuse(t, "an empty range");
        buf_printf(&g->content, "\\x{%x}-\\x{%x}", lo, hi);
        return 0;
    }
    buf_printf(&g->content, "\\x{%x}", lo);
    return 0;
}

static int parse_class(struct translator *t, struct buf *out, int depth)
{
    if (depth > MAX_NESTING)
        return refuse(t, "deep nesting");
    t->at++; /* [ */
    bool negated = peek(t, 0) == '^', first = true;
    t->at += negated;
    struct gathered g = {0};
    struct buf ahead = {0}; /* look-aheads for all operands of && but the last */
    int r = 0;
    for (;; first = false) {
        if (out->len + ahead.len + g.content.len + g.others.len > MAX_EXPANSION)
            r = refuse(t, "a class that is too large");
        else if (peek(t, 0) < 0)
            r = refuse(t, "a class without an end");
        if (r)
            goto out;
        bool more = looking_at(t, "&&"), end = peek(t, 0) == ']' && !first;
        if (!more && !end) {
            r = parse_class_item(t, &g, depth);
            continue;
        }
        if (!g.content.len && !g.others.len) {
            r = refuse(t, "an empty class");
            goto out;
        }
        if (end)
            break;
        buf_puts(&ahead, "(?=");
        put_union(&g, &ahead);
        buf_putc(&ahead, ')');
        buf_clear(&g.content);
        buf_clear(&g.others);
        t->at += 2;
    }
    t->at++; /* ] */
    if (!ahead.len && !g.others.len) {
        buf_printf(out, negated ? "[^%s]" : "[%s]", buf_str(&g.content));
        goto out;
    }
    buf_puts(out, negated ? "(?:(?!" : "(?:");
    buf_append(out, ahead.data, ahead.len);
    put_union(&g, out);
    buf_puts(out, negated ? ")(?s:.))" : ")");
out:
    buf_release(&g.content);
    buf_release(&g.others);
    buf_release(&ahead);
    return r;
}

/* ---- the rest ----------------------------------------------------------------------------------------------- */

static int parse_escape(struct translator *t, struct buf *out)
{
    t->at++;
    struct buf content = {0};
    bool negated = false;
    uint32_t cp = 0;
    int r = parse_set_escape(t, &content, &negated);
    if (r == 1)
        buf_printf(out, negated ? "[^%s]" : "[%s]", buf_str(&content));
    buf_release(&content);
    if (r)
        return MIN(r, 0);
    int c = peek(t, 0);
    switch (c) {
    case 'b':
        buf_puts(out, "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
        t->at++;
        return 0;
    case 'B':
        buf_puts(out, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
        t->at++;
        return 0;
    case 'A':
    case 'z':
    case 'Z':
    case 'G':
    case 'R':
    case 'X':
        buf_printf(out, "\\%c", c);
        t->at++;
        return 0;
    case 'N':
    case 'O':
        buf_puts(out, c == 'N' ? "[^\\x{a}]" : "(?s:.)");
        t->at++;
        return 0;
    default:
        break;
    }
    if (c >= '1' && c <= '9') {
        if (peek(t, 1) >= '0' && peek(t, 1) <= '9')
            return refuse(t, "a group number above 9");
        buf_printf(out, "(?:\\%c)", c);
        t->at++;
        return 0;
    }
    r = parse_char_escape(t, &cp);
    if (r == 0)
        return refuse(t, "an unknown escape");
    if (r == 1)
        buf_printf(out, "\\x{%x}", cp);
    return MIN(r, 0);
}

/* (?imx-imx) and (?imx:...), after "(?". Ruby's m lets the dot match a newline, which is PCRE2's s. */
static int parse_flags(struct translator *t, struct buf *out, bool at_start, bool *ret_closed)
{
    buf_puts(out, "(?");
    for (;; t->at++) {
        int c = peek(t, 0);
        if (c == 'i' || c == '-') {
            buf_putc(out, (char)c);
        } else if (c == 'm') {
            buf_putc(out, 's');
        } else if (c == ':' || c == ')') {
            /* in the middle of a branch Ruby also takes in the branches that follow; PCRE2 does not */
            if (c == ')' && !at_start)
                return refuse(t, "an option in the middle of a group");
            buf_putc(out, (char)c);
            t->at++;
            *ret_closed = c == ')';
            return 0;
        } else {
            return refuse(t, "an unknown kind of group or option");
        }
    }
}

static int parse_group(struct translator *t, struct buf *out, int depth, bool at_start, bool *ret_atom)
{
    static const char *const openers[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (depth >= MAX_NESTING)
        return refuse(t, "deep nesting");
    *ret_atom = true;
    if (looking_at(t, "(?#")) {
        const char *end = memchr(t->p + t->at, ')', t->len - t->at);
        if (!end)
            return refuse(t, "a comment without an end");
        t->at = (size_t)(end + 1 - t->p);
        *ret_atom = false;
        return 0;
    }
    size_t opener = ARRAY_LEN(openers);
    for (size_t i = 0; i < ARRAY_LEN(openers); i++) {
        if (looking_at(t, openers[i]))
            opener = i;
    }
    if (opener < ARRAY_LEN(openers)) {
        buf_puts(out, openers[opener]);
        t->at += strlen(openers[opener]);
    } else if (looking_at(t, "(?")) {
        bool closed = false;
        t->at += 2;
        int r = parse_flags(t, out, at_start, &closed);
        if (r || closed) {
            *ret_atom = false;
            return r;
        }
    } else {
        if (peek(t, 1) == '*')
            return refuse(t, "(*");
        buf_putc(out, '(');
        t->at++;
    }
    int r = parse_branches(t, out, depth + 1);
    if (r)
        return r;
    if (peek(t, 0) != ')')
        return refuse(t, "a group without an end");
    buf_putc(out, ')');
    t->at++;
    return 0;
}

/* {n}, {n,}, {,m} or {n,m}: its bytes, or 0 when the brace is only a brace. */
static size_t interval_len(const struct translator *t, bool *ret_fixed, bool *ret_no_low)
{
    size_t i = 1, low = 0, high = 0;
    bool comma = false;
    for (; peek(t, i) >= '0' && peek(t, i) <= '9'; i++)
        low++;
    if (peek(t, i) == ',') {
        comma = true;
        for (i++; peek(t, i) >= '0' && peek(t, i) <= '9'; i++)
            high++;
    }
    if (peek(t, i) != '}' || (!low && !high))
        return 0;
    *ret_fixed = !comma;
    *ret_no_low = !low;
    return i + 1;
}

/* The quantifiers after the atom that out holds from start on. */
static int parse_quantifiers(struct translator *t, struct buf *out, size_t start)
{
    for (int count = 0;; count++) {
        int c = peek(t, 0);
        bool fixed = false, no_low = false;
        size_t len = c == '*' || c == '+' || c == '?' ? 1 : c == '{' ? interval_len(t, &fixed, &no_low) : 0;
        if (!len)
            return 0;
        if (count > MAX_NESTING || out->len > MAX_EXPANSION)
            return refuse(t, "too many quantifiers");
        if (count > 0) { /* of what is quantified already */
            struct buf atom = {0};
            buf_append(&atom, out->data + start, out->len - start);
            out->len = start;
            buf_printf(out, "(?:%s)", buf_str(&atom));
            buf_release(&atom);
        }
        if (no_low)
            buf_puts(out, "{0");
        buf_append(out, t->p + t->at + no_low, len - no_low);
        t->at += len;
        int mod = peek(t, 0);
        if ((mod == '?' && !fixed) || (mod == '+' && c != '{')) {
            buf_putc(out, (char)mod);
            t->at++;
        }
    }
}

static int parse_branches(struct translator *t, struct buf *out, int depth)
{
    bool at_start = true;
    while (t->at < t->len) {
        int c = peek(t, 0), r = 0;
        size_t start = out->len;
        bool atom = true;
        if (out->len > MAX_EXPANSION)
            return refuse(t, "too many parts");
        if (c == ')') {
            if (!depth)
                return refuse(t, "a closing parenthesis too many");
            return 0;
        } else if (c == '|') {
            buf_putc(out, '|');
            t->at++;
            atom = false;
        } else if (c == '(') {
            r = parse_group(t, out, depth, at_start, &atom);
        } else if (c == '[') {
            r = parse_class(t, out, depth);
        } else if (c == '\\') {
            r = parse_escape(t, out);
        } else if (c == '*' || c == '+' || c == '?') {
            r = refuse(t, "a quantifier of nothing");
        } else if (c == '.' || c == '^' || c == '$') {
            buf_putc(out, (char)c);
            t->at++;
        } else {
            uint32_t cp;
            int n = utf8_decode(t->p + t->at, t->len - t->at, &cp);
            if (n < 0)
                return refuse(t, "bytes that are not UTF-8");
            buf_printf(out, "\\x{%x}", cp);
            t->at += (size_t)n;
        }
        if (!r && atom)
            r = parse_quantifiers(t, out, start);
        if (r)
            return r;
        at_start = false;
    }
    return 0;
}

int regex_translate(const char *pattern, size_t len, struct buf *out, struct octavo_error *err)
{
    struct translator t = {pattern, len, 0, err};
    int r = parse_branches(&t, out, 0);
    if (!r && out->len > MAX_EXPANSION)
        r = refuse(&t, "too many parts");
    return r;
}
