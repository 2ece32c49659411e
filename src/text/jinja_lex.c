/* The lexer of Jinja templates: text to tokens, with trim_blocks and lstrip_blocks applied and strings decoded. Called
 * by jinja_compile on any thread; everything it makes lives in the template's arena. */
#include "text/jinja_ast.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_str.h"

#include <stdlib.h>
#include <string.h>

struct lexer {
    struct jinja_template *t;
    const char *s;
    size_t len, at;
    uint32_t line;
    bool line_starting; /* what was matched last ended with a newline */
    struct jtoken *toks;
    size_t num_toks, cap_toks;
    struct octavo_error *err;
};

static int lex_fail(struct lexer *lx, const char *what)
{
    return error_set(lx->err, OCTAVO_EINVAL, "%s, line %u: %s", lx->t->name, lx->line, what);
}

static int push(struct lexer *lx, enum jtok type, const char *s, size_t len)
{
    if (lx->num_toks == lx->cap_toks) {
        size_t cap = lx->cap_toks ? lx->cap_toks * 2 : 256;
        struct jtoken *toks = jarena_try_alloc(&lx->t->arena, cap * sizeof(*toks));
        if (!toks)
            return lex_fail(lx, "the template is too large");
        if (lx->num_toks)
            memcpy(toks, lx->toks, lx->num_toks * sizeof(*toks));
        lx->toks = toks;
        lx->cap_toks = cap;
    }
    lx->toks[lx->num_toks++] = (struct jtoken){.type = type, .line = lx->line, .str = {s, (uint32_t)len}};
    return 0;
}

/* Moves to `to`, counting lines. */
static void advance(struct lexer *lx, size_t to)
{
    for (size_t i = lx->at; i < to; i++)
        lx->line += lx->s[i] == '\n';
    if (to > lx->at)
        lx->line_starting = lx->s[to - 1] == '\n';
    lx->at = to;
}

static bool starts(const struct lexer *lx, size_t at, const char *what)
{
    size_t n = strlen(what);
    return lx->len - at >= n && memcmp(lx->s + at, what, n) == 0;
}

static size_t skip_space(const struct lexer *lx, size_t at)
{
    for (size_t n; at < lx->len && (n = jstr_space_at(lx->s + at, lx->len - at)) > 0;)
        at += n;
    return at;
}

static bool word_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

/* Emits the text between tags. sign is what follows the opening "{%": '-' strips all space before it, '+' keeps it, and
 * otherwise a block or comment (not a print) takes the blanks between the line's beginning and itself. */
static int push_data(struct lexer *lx, size_t from, size_t to, char sign, bool may_lstrip)
{
    size_t end = to;
    if (sign == '-') {
        end = from + jstr_rstrip_len(lx->s + from, to - from);
    } else if (sign != '+' && may_lstrip) {
        size_t bol = to;
        while (bol > from && lx->s[bol - 1] != '\n')
            bol--;
        if ((bol > from || lx->line_starting) && skip_space(lx, bol) >= to)
            end = bol;
    }
    return end > from ? push(lx, JT_DATA, lx->s + from, end - from) : 0;
}

/* The end of a block or comment at `at`, whose closing is two bytes: "+%}", "-%}" with the space after, "%}" with one
 * newline after. Returns the position after it, or 0. */
static size_t match_end(const struct lexer *lx, size_t at, const char *close, bool trim)
{
    if (at < lx->len && (lx->s[at] == '+' || lx->s[at] == '-') && starts(lx, at + 1, close)) {
        if (lx->s[at] == '-')
            return skip_space(lx, at + 3);
        return trim ? at + 3 : 0;
    }
    if (starts(lx, at, close)) {
        at += 2;
        return trim && at < lx->len && lx->s[at] == '\n' ? at + 1 : at;
    }
    return 0;
}

/* After "{%" and its sign: "raw %}"? Returns the position after the tag, or 0. */
static size_t match_raw_begin(const struct lexer *lx, size_t at)
{
    at = skip_space(lx, at);
    if (!starts(lx, at, "raw"))
        return 0;
    return match_end(lx, skip_space(lx, at + 3), "%}", false);
}

static int lex_raw(struct lexer *lx)
{
    size_t from = lx->at;
    for (size_t i = from; i + 1 < lx->len; i++) {
        if (lx->s[i] != '{' || lx->s[i + 1] != '%')
            continue;
        size_t at = i + 2;
        char sign = at < lx->len && (lx->s[at] == '-' || lx->s[at] == '+') ? lx->s[at++] : 0;
        at = skip_space(lx, at);
        if (!starts(lx, at, "endraw"))
            continue;
        size_t after = match_end(lx, skip_space(lx, at + 6), "%}", true);
        if (!after)
            continue;
        int r = push_data(lx, from, i, sign, true);
        advance(lx, after);
        return r;
    }
    return lex_fail(lx, "{% raw %} has no {% endraw %}");
}

static int lex_comment(struct lexer *lx)
{
    for (size_t i = lx->at; i + 1 < lx->len; i++) {
        size_t after = match_end(lx, i, "#}", true);
        if (after) {
            advance(lx, after);
            return 0;
        }
    }
    if (lx->at == lx->len) /* Jinja lets a template end with {# and nothing after it */
        return 0;
    return lex_fail(lx, "a comment {# has no #}");
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One escape of a Python string at s[0] == '\\'; writes its text to *out, returns the bytes it took, or 0. */
static size_t decode_escape(const char *s, size_t len, char *out, size_t *out_len)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = s[1];
    const char *p = memchr(from, c, sizeof(from) - 1);
    if (p) {
        out[(*out_len)++] = to[p - from];
        return 2;
    }
    if (c == '\n')
        return 2;
    uint32_t cp = 0;
    size_t n = 2;
    if (c >= '0' && c <= '7') {
        for (n = 1; n < 4 && n < len && s[n] >= '0' && s[n] <= '7'; n++)
            cp = cp * 8 + (uint32_t)(s[n] - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        for (; n < 2 + digits; n++) {
            int v = n < len ? hex_value(s[n]) : -1;
            if (v < 0)
                return 0;
            cp = cp << 4 | (uint32_t)v;
        }
    } else {
        out[(*out_len)++] = '\\'; /* Python keeps the backslash of an escape that it does not know */
        return 1;
    }
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        return 0;
    *out_len += (size_t)utf8_encode(cp, out + *out_len);
    return n;
}

static int lex_string(struct lexer *lx)
{
    char quote = lx->s[lx->at];
    size_t end = lx->at + 1;
    bool escaped = false;
    while (end < lx->len && lx->s[end] != quote) {
        if (lx->s[end] == '\\') {
            escaped = true;
            end++;
        }
        end++;
    }
    if (end >= lx->len)
        return lex_fail(lx, "a string has no closing quote");
    const char *body = lx->s + lx->at + 1;
    size_t len = end - lx->at - 1;
    if (escaped) {
        char *out = jarena_try_alloc(&lx->t->arena, len * 2 + 4);
        if (!out)
            return lex_fail(lx, "the template is too large");
        size_t n = 0;
        for (size_t i = 0; i < len;) {
            if (body[i] != '\\') {
                out[n++] = body[i++];
                continue;
            }
            size_t took = decode_escape(body + i, len - i, out, &n);
            if (!took || (body[i + 1] == 'N' && took == 1))
                return lex_fail(lx, "a string has an escape that is not a character");
            i += took;
        }
        body = out;
        len = n;
    }
    int r = push(lx, JT_STRING, body, len);
    advance(lx, end + 1);
    return r;
}

/* digits with single underscores between them; returns the end. */
static size_t digit_run(const struct lexer *lx, size_t at)
{
    size_t start = at;
    while (at < lx->len) {
        if (lx->s[at] >= '0' && lx->s[at] <= '9')
            at++;
        else if (lx->s[at] == '_' && at > start && lx->s[at - 1] != '_' && at + 1 < lx->len && lx->s[at + 1] >= '0' &&
                 lx->s[at + 1] <= '9')
            at++;
        else
            break;
    }
    return at;
}

static int lex_int(struct lexer *lx, size_t at, size_t *ret_end, int64_t *ret)
{
    unsigned base = 10;
    char c = at + 1 < lx->len ? (char)(lx->s[at + 1] | 0x20) : 0;
    if (lx->s[at] == '0' && (c == 'x' || c == 'o' || c == 'b')) {
        unsigned b = c == 'x' ? 16 : c == 'o' ? 8 : 2;
        size_t first = at + 2 + (at + 2 < lx->len && lx->s[at + 2] == '_');
        int v = first < lx->len ? hex_value(lx->s[first]) : -1;
        if (v >= 0 && (unsigned)v < b) {
            base = b;
            at += 2;
        }
    }
    bool zero = base == 10 && lx->s[at] == '0'; /* Jinja reads 007 as 00 and then 7 */
    int64_t value = 0;
    for (; at < lx->len; at++) {
        int v = hex_value(lx->s[at]);
        if (lx->s[at] == '_') {
            v = at + 1 < lx->len ? hex_value(lx->s[at + 1]) : -1;
            if (v < 0 || (unsigned)v >= base || (zero && v))
                break;
            continue;
        }
        if (v < 0 || (unsigned)v >= base || (zero && v))
            break;
        if (__builtin_mul_overflow(value, (int64_t)base, &value) || __builtin_add_overflow(value, (int64_t)v, &value))
            return lex_fail(lx, "an integer does not fit into 64 bits");
    }
    *ret_end = at;
    *ret = value;
    return 0;
}

static int lex_number(struct lexer *lx)
{
    size_t from = lx->at, end = digit_run(lx, from), frac = end;
    bool is_float = false;
    if (from == 0 || lx->s[from - 1] != '.') { /* in a.0.1 the numbers are two subscripts */
        if (end + 1 < lx->len && lx->s[end] == '.' && digit_run(lx, end + 1) > end + 1) {
            frac = digit_run(lx, end + 1);
            is_float = true;
        }
        if (frac < lx->len && (lx->s[frac] | 0x20) == 'e') {
            size_t e = frac + 1;
            e += e < lx->len && (lx->s[e] == '+' || lx->s[e] == '-');
            if (digit_run(lx, e) > e) {
                frac = digit_run(lx, e);
                is_float = true;
            }
        }
    }
    int r;
    if (is_float) {
        char text[128];
        size_t n = 0;
        for (size_t i = from; i < frac; i++) {
            if (lx->s[i] == '_')
                continue;
            if (n == sizeof(text) - 1)
                return lex_fail(lx, "a number is too long");
            text[n++] = lx->s[i];
        }
        text[n] = '\0';
        r = push(lx, JT_FLOAT, lx->s + from, frac - from);
        if (r == 0)
            lx->toks[lx->num_toks - 1].f = strtod(text, NULL);
        end = frac;
    } else {
        int64_t value = 0;
        r = lex_int(lx, from, &end, &value);
        if (r == 0)
            r = push(lx, JT_INT, lx->s + from, end - from);
        if (r == 0)
            lx->toks[lx->num_toks - 1].i = value;
    }
    advance(lx, end);
    return r;
}

static int lex_operator(struct lexer *lx, char *stack, size_t *depth)
{
    static const struct {
        const char *text;
        enum jtok type;
    } ops[] = {{"//", JT_FLOORDIV}, {"**", JT_POW},   {"==", JT_EQ},      {"!=", JT_NE},      {">=", JT_GE},
               {"<=", JT_LE},       {"+", JT_ADD},    {"-", JT_SUB},      {"/", JT_DIV},      {"*", JT_MUL},
               {"%", JT_MOD},       {"~", JT_TILDE},  {"[", JT_LBRACKET}, {"]", JT_RBRACKET}, {"(", JT_LPAREN},
               {")", JT_RPAREN},    {"{", JT_LBRACE}, {"}", JT_RBRACE},   {">", JT_GT},       {"<", JT_LT},
               {"=", JT_ASSIGN},    {".", JT_DOT},    {":", JT_COLON},    {"|", JT_PIPE},     {",", JT_COMMA},
               {";", JT_SEMICOLON}};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (!starts(lx, lx->at, ops[i].text))
            continue;
        char c = ops[i].text[0];
        if (c == '(' || c == '[' || c == '{') {
            if (*depth == JINJA_MAX_PARSE_DEPTH)
                return lex_fail(lx, "brackets are nested too deeply");
            stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!*depth || stack[*depth - 1] != c)
                return lex_fail(lx, "a closing bracket matches no opening one");
            --*depth;
        }
        size_t n = strlen(ops[i].text);
        int r = push(lx, ops[i].type, lx->s + lx->at, n);
        advance(lx, lx->at + n);
        return r;
    }
    char msg[64], c = lx->s[lx->at];
    snprintf(msg, sizeof(msg), "unexpected character '%c'", c >= 0x20 && c < 0x7f ? c : '?');
    return lex_fail(lx, msg);
}

/* The inside of {{ }} or {% %}, up to and with its end. */
static int lex_tag(struct lexer *lx, bool block)
{
    char stack[JINJA_MAX_PARSE_DEPTH];
    size_t depth = 0;
    for (;;) {
        advance(lx, skip_space(lx, lx->at));
        if (lx->at >= lx->len)
            return lex_fail(lx, block ? "{% has no %}" : "{{ has no }}");
        if (!depth) {
            size_t after = block ? match_end(lx, lx->at, "%}", true) : 0;
            if (!block && starts(lx, lx->at, "-}}"))
                after = skip_space(lx, lx->at + 3);
            else if (!block && starts(lx, lx->at, "}}"))
                after = lx->at + 2;
            if (after) {
                int r = push(lx, block ? JT_BLOCK_END : JT_VAR_END, lx->s + lx->at, 2);
                advance(lx, after);
                return r;
            }
        }
        unsigned char c = (unsigned char)lx->s[lx->at];
        int r;
        if (c == '\'' || c == '"') {
            r = lex_string(lx);
        } else if (c >= '0' && c <= '9') {
            r = lex_number(lx);
        } else if (word_char(c)) {
            size_t end = lx->at + 1;
            while (end < lx->len && word_char((unsigned char)lx->s[end]) && !jstr_space_at(lx->s + end, lx->len - end))
                end++;
            r = push(lx, JT_NAME, lx->s + lx->at, end - lx->at);
            advance(lx, end);
        } else {
            r = lex_operator(lx, stack, &depth);
        }
        if (r < 0)
            return r;
    }
}

static int lex_all(struct lexer *lx)
{
    while (lx->at < lx->len) {
        size_t from = lx->at, i = from;
        while (i < lx->len && !(lx->s[i] == '{' && i + 1 < lx->len &&
                                (lx->s[i + 1] == '{' || lx->s[i + 1] == '%' || lx->s[i + 1] == '#')))
            i++;
        if (i >= lx->len) {
            int r = push(lx, JT_DATA, lx->s + from, lx->len - from);
            advance(lx, lx->len);
            return r;
        }
        char kind = lx->s[i + 1];
        size_t after = i + 2;
        char sign = after < lx->len && (lx->s[after] == '-' || lx->s[after] == '+') ? lx->s[after] : 0;
        after += sign != 0;
        int r = push_data(lx, from, i, sign, kind != '{');
        if (r < 0)
            return r;
        size_t raw = kind == '%' ? match_raw_begin(lx, after) : 0;
        if (raw) {
            advance(lx, raw);
            r = lex_raw(lx);
        } else if (kind == '#') {
            advance(lx, after);
            r = lex_comment(lx);
        } else {
            advance(lx, after);
            r = push(lx, kind == '%' ? JT_BLOCK_BEGIN : JT_VAR_BEGIN, lx->s + i, 2);
            if (r == 0)
                r = lex_tag(lx, kind == '%');
        }
        if (r < 0)
            return r;
    }
    return 0;
}

int jinja_lex(struct jinja_template *t, const char *text, size_t len, struct jtoken **ret_tokens,
              struct octavo_error *err)
{
    if (len > JINJA_MAX_TEMPLATE)
        return error_set(err, OCTAVO_EINVAL, "%s is larger than %d bytes", t->name, JINJA_MAX_TEMPLATE);
    if (!utf8_valid(text, len))
        return error_set(err, OCTAVO_EINVAL, "%s is not UTF-8", t->name);
    /* \r\n and \r become \n, and one newline at the end goes. */
    char *s = t->source = mem_alloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r') {
            s[n++] = '\n';
            i += i + 1 < len && text[i + 1] == '\n';
        } else {
            s[n++] = text[i];
        }
    }
    n -= n && s[n - 1] == '\n';
    s[n] = '\0';
    struct lexer lx = {.t = t, .s = s, .len = n, .line = 1, .line_starting = true, .err = err};
    int r = lex_all(&lx);
    if (r == 0)
        r = push(&lx, JT_EOF, s + n, 0);
    *ret_tokens = lx.toks;
    return r;
}
