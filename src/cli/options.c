/* Flags: see options.h. Runs on the main thread before anything else starts. */
#include "cli/options.h"

#include "base/log.h"
#include "base/mem.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- values ---- */

int parse_human_int(const char *text, int64_t *ret)
{
    static const char units[] = "kmgt";
    const char *p = text;
    bool negative = *p == '-';
    if (*p == '-' || *p == '+')
        p++;
    if (!isdigit((unsigned char)*p))
        return -1;
    long double value = 0, place = 1;
    bool fraction = false;
    for (; isdigit((unsigned char)*p) || *p == '.' || *p == '_'; p++) {
        if (*p == '_')
            continue;
        if (*p == '.') {
            if (fraction)
                return -1;
            fraction = true;
        } else if (fraction) {
            place /= 10;
            value += place * (*p - '0');
        } else {
            value = value * 10 + (*p - '0');
        }
    }
    if (*p) {
        const char *u = strchr(units, tolower((unsigned char)*p));
        if (!u)
            return -1;
        bool binary = isupper((unsigned char)*p);
        p++;
        if (!strcmp(p, "iB") || !strcmp(p, "ib"))
            binary = true;
        else if (!strcmp(p, "B"))
            binary = false;
        else if (*p)
            return -1;
        for (const char *i = units; i <= u; i++)
            value *= binary ? 1024 : 1000;
    }
    long double whole = roundl(value);
    /* 25.6k is 25600 but for rounding; 2.5 is no integer */
    if (whole >= 0x1p63L || fabsl(value - whole) > 1e-6L)
        return -1;
    *ret = negative ? -(int64_t)whole : (int64_t)whole;
    return 0;
}

/* Edit distance with a small bound: flags are short. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { MAX = 48 };
    size_t row[MAX + 1], m = strlen(a), n = strlen(b);
    if (m > MAX || n > MAX)
        return MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t up = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = MIN(best, up + 1);
            row[j] = MIN(best, row[j - 1] + 1);
            diagonal = up;
        }
    }
    return row[n];
}

const char *closest_word(const char *word, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(word, candidates[i]);
        if (d <= best_distance && (!best || d < best_distance)) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}

void option_list_release(struct option_list *l)
{
    free(l->items);
    *l = (struct option_list){0};
}

void option_list_add(struct option_list *l, const char *item)
{
    l->items = mem_realloc(l->items, (l->len + 1) * sizeof(*l->items));
    l->items[l->len++] = item;
}

/* ---- lookup ---- */

struct found {
    const struct option_spec *spec;
    void *values;
    bool negated; /* --no-x */
};

/* Whether name is one of the spellings "a,b,c". A one-letter spelling is meant for a single dash. */
static bool spelled(const struct option_spec *spec, const char *name, size_t len)
{
    for (const char *p = spec->name;;) {
        size_t n = strcspn(p, ",");
        if (n == len && !memcmp(p, name, n))
            return true;
        if (!p[n])
            return false;
        p += n + 1;
    }
}

static bool find_exact(const struct option_set *sets, size_t num_sets, const char *name, size_t len, struct found *ret)
{
    for (size_t s = 0; s < num_sets; s++)
        for (size_t i = 0; i < sets[s].num_specs; i++)
            if (spelled(&sets[s].specs[i], name, len)) {
                *ret = (struct found){&sets[s].specs[i], sets[s].values, false};
                return true;
            }
    return false;
}

static int unknown_flag(const struct option_set *sets, size_t num_sets, const char *word, struct octavo_error *err)
{
    const char *names[512];
    char *copies[512];
    size_t n = 0;
    for (size_t s = 0; s < num_sets; s++)
        for (size_t i = 0; i < sets[s].num_specs; i++)
            for (const char *p = sets[s].specs[i].name; *p && n < ARRAY_LEN(names);) {
                size_t len = strcspn(p, ",");
                if (len > 1) {
                    copies[n] = mem_strndup(p, len);
                    names[n] = copies[n];
                    n++;
                }
                p += len + (p[len] == ',');
            }
    char bare[64];
    snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(word + strspn(word, "-"), "="), word + strspn(word, "-"));
    const char *near = closest_word(bare, names, n);
    int r = near ? error_set(err, OCTAVO_EINVAL, "unknown flag --%s; did you mean --%s?", bare, near)
                 : error_set(err, OCTAVO_EINVAL, "unknown flag %s; --help lists them all", word);
    while (n)
        free(copies[--n]);
    return r;
}

/* Finds the flag that word ("--x", "--x=v", "--no-x", "-p") names; *ret_value is what follows '=' or NULL. */
static int find_flag(const struct option_set *sets, size_t num_sets, const char *word, struct found *ret,
                     const char **ret_value, struct octavo_error *err)
{
    *ret_value = NULL;
    if (word[1] != '-') {
        if (find_exact(sets, num_sets, word + 1, 1, ret)) {
            *ret_value = word[2] ? word + 2 + (word[2] == '=') : NULL;
            return 0;
        }
        /* -tp 2 and the like are spelled with one dash in vLLM */
        if (word[2] && find_exact(sets, num_sets, word + 1, strcspn(word + 1, "="), ret))
            return 0;
        return unknown_flag(sets, num_sets, word, err);
    }
    char name[80];
    size_t len = strcspn(word + 2, "=");
    if (len < 2 || len >= sizeof(name))
        return unknown_flag(sets, num_sets, word, err);
    for (size_t i = 0; i < len; i++) /* vLLM takes --max_model_len too */
        name[i] = word[2 + i] == '_' ? '-' : word[2 + i];
    name[len] = '\0';
    if (word[2 + len] == '=')
        *ret_value = word + 2 + len + 1;
    if (find_exact(sets, num_sets, name, len, ret))
        return 0;
    if (!strncmp(name, "no-", 3) && find_exact(sets, num_sets, name + 3, len - 3, ret) &&
        (ret->spec->type == OPTION_SWITCH || (ret->spec->type == OPTION_IGNORED && !ret->spec->metavar))) {
        ret->negated = true;
        return 0;
    }
    return unknown_flag(sets, num_sets, word, err);
}

/* ---- storing ---- */

static int bad_value(struct octavo_error *err, const char *flag, const char *value, const char *want)
{
    return error_set(err, OCTAVO_EINVAL, "%.*s takes %s, not '%s'", (int)strcspn(flag, "="), flag, want, value);
}

static int store_int(const struct option_spec *spec, const char *flag, const char *value, int64_t *ret,
                     struct octavo_error *err)
{
    int64_t n;
    if (spec->zero_word && !strcmp(value, spec->zero_word)) {
        *ret = 0;
        return 0;
    }
    if (parse_human_int(value, &n))
        return bad_value(err, flag, value, "an integer such as 4096, 32k or 4GiB");
    if (n < spec->lo || n > spec->hi)
        return error_set(err, OCTAVO_EINVAL, "%.*s is %lld, but must be between %lld and %lld", (int)strcspn(flag, "="),
                         flag, (long long)n, (long long)spec->lo, (long long)spec->hi);
    *ret = n;
    return 0;
}

static int store_choice(const struct option_spec *spec, const char *flag, const char *value, const char **ret,
                        struct octavo_error *err)
{
    char all[256] = "";
    for (size_t i = 0; spec->choices[i]; i++) {
        if (!strcmp(spec->choices[i], value)) {
            *ret = spec->choices[i];
            return 0;
        }
        size_t at = strlen(all);
        snprintf(all + at, sizeof(all) - at, "%s%s", at ? ", " : "one of ", spec->choices[i]);
    }
    return bad_value(err, flag, value, all);
}

static int store_value(const struct found *f, const char *flag, const char *value, struct octavo_error *err)
{
    const struct option_spec *spec = f->spec;
    void *at = (char *)f->values + spec->offset;
    switch (spec->type) {
    case OPTION_STRING:
        *(const char **)at = value;
        return 0;
    case OPTION_LIST:
        option_list_add(at, value);
        return 0;
    case OPTION_INT:
        return store_int(spec, flag, value, at, err);
    case OPTION_DOUBLE: {
        char *end;
        double d = strtod(value, &end);
        if (*end || end == value || !isfinite(d))
            return bad_value(err, flag, value, "a number");
        if (d < (double)spec->lo || d > (double)spec->hi)
            return error_set(err, OCTAVO_EINVAL, "%.*s is %g, but must be between %lld and %lld",
                             (int)strcspn(flag, "="), flag, d, (long long)spec->lo, (long long)spec->hi);
        *(double *)at = d;
        return 0;
    }
    case OPTION_CHOICE:
        return store_choice(spec, flag, value, at, err);
    case OPTION_SWITCH:
        if (!strcasecmp(value, "true") || !strcmp(value, "1"))
            *(bool *)at = true;
        else if (!strcasecmp(value, "false") || !strcmp(value, "0"))
            *(bool *)at = false;
        else
            return bad_value(err, flag, value, "no value, or true or false");
        return 0;
    case OPTION_REFUSED: {
        int64_t n;
        if (!parse_human_int(value, &n) && n == spec->lo)
            return 0;
        return error_set(err, OCTAVO_EUNSUPPORTED, "%.*s is not supported: %s", (int)strcspn(flag, "="), flag,
                         spec->help);
    }
    case OPTION_IGNORED:
        log_warning("%.*s has no effect: %s", (int)strcspn(flag, "="), flag, spec->help);
        return 0;
    }
    return 0;
}

static int apply_flag(const struct found *f, int argc, char **argv, int *at, const char *value,
                      struct octavo_error *err)
{
    const struct option_spec *spec = f->spec;
    const char *flag = argv[*at];
    bool bare = spec->type == OPTION_SWITCH ||
                ((spec->type == OPTION_IGNORED || spec->type == OPTION_REFUSED) && !spec->metavar);
    if (bare && !value) {
        if (spec->type == OPTION_SWITCH) {
            *(bool *)((char *)f->values + spec->offset) = !f->negated;
            return 0;
        }
        value = "";
    } else if (f->negated) {
        return error_set(err, OCTAVO_EINVAL, "%s takes no value", flag);
    }
    if (!value) {
        /* "--seed -1" is a value; "--model --port" is a flag without one */
        if (*at + 1 >= argc || (argv[*at + 1][0] == '-' && argv[*at + 1][1] == '-' && argv[*at + 1][2]))
            return error_set(err, OCTAVO_EINVAL, "%s needs a value: %s %s", flag, flag,
                             spec->metavar ? spec->metavar : "WORD");
        value = argv[++*at];
    }
    int r = store_value(f, flag, value, err);
    while (r == 0 && spec->type == OPTION_LIST && spec->many && *at + 1 < argc && argv[*at + 1][0] != '-')
        r = store_value(f, flag, argv[++*at], err);
    return r;
}

int options_parse(const struct option_set *sets, size_t num_sets, int argc, char **argv, struct option_list *positional,
                  size_t max_positional, struct octavo_error *err)
{
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_positional && !strcmp(word, "--")) {
            only_positional = true;
        } else if (!only_positional && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
            return 1;
        } else if (!only_positional && word[0] == '-' && word[1]) {
            struct found f = {0};
            const char *value;
            int r = find_flag(sets, num_sets, word, &f, &value, err);
            if (r == 0)
                r = apply_flag(&f, argc, argv, &i, value, err);
            if (r < 0)
                return r;
        } else if (positional->len == max_positional) {
            return error_set(err, OCTAVO_EINVAL, "unexpected argument '%s'", word);
        } else {
            option_list_add(positional, word);
        }
    }
    return 0;
}

/* ---- help ---- */

static void print_wrapped(FILE *f, const char *text, int indent, int column)
{
    enum { WIDTH = 100 };
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column + len > WIDTH && column > indent) {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
        }
        fprintf(f, "%.*s", len, text);
        column += len;
        text += len;
        if (*text == ' ') {
            fputc(' ', f);
            column++;
            text++;
        }
    }
    fputc('\n', f);
}

static void print_flag(FILE *f, const struct option_spec *spec)
{
    enum { INDENT = 34 };
    int column = fprintf(f, "  ");
    for (const char *p = spec->name; *p;) {
        size_t len = strcspn(p, ",");
        column += fprintf(f, "%s%s%.*s", p == spec->name ? "" : ", ", len == 1 ? "-" : "--", (int)len, p);
        p += len + (p[len] == ',');
    }
    if (spec->type == OPTION_CHOICE) {
        for (size_t i = 0; spec->choices[i]; i++)
            column += fprintf(f, "%s%s", i ? "|" : " ", spec->choices[i]);
    } else if (spec->type != OPTION_SWITCH && spec->metavar) {
        column += fprintf(f, " %s%s", spec->metavar, spec->many ? "..." : "");
    }
    if (column + 2 > INDENT) {
        fputc('\n', f);
        column = 0;
    }
    fprintf(f, "%*s", INDENT - column, "");
    print_wrapped(f, spec->help, INDENT, INDENT);
}

void options_print_help(FILE *f, const struct option_set *sets, size_t num_sets)
{
    for (size_t s = 0; s < num_sets; s++)
        for (size_t i = 0; i < sets[s].num_specs; i++) {
            const struct option_spec *spec = &sets[s].specs[i];
            if (spec->type == OPTION_REFUSED || spec->type == OPTION_IGNORED)
                continue;
            if (spec->group)
                fprintf(f, "\n%s\n", spec->group);
            print_flag(f, spec);
        }
}
