/* A table-driven parser of long flags, shared by all subcommands: --flag value, --flag=value, --switch, --no-switch,
 * repeated flags, human-readable integers (32k, 25.6k, 4GiB), choices, ranges, "did you mean", and --help printed from
 * the same table. A table is const; the values land in the struct that it points into. */
#ifndef OCTAVO_CLI_OPTIONS_H
#define OCTAVO_CLI_OPTIONS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_type {
    OPTION_SWITCH,  /* bool: --x and --no-x */
    OPTION_STRING,  /* const char *, pointing into argv */
    OPTION_LIST,    /* struct option_list: may be repeated, and takes several words when many is set */
    OPTION_INT,     /* int64_t, human-readable */
    OPTION_DOUBLE,  /* double */
    OPTION_CHOICE,  /* const char *, one of choices */
    OPTION_REFUSED, /* a flag of vLLM that octavo does not have: help says what to do instead; value must be lo..lo
                       (an integer that means "off", such as --tensor-parallel-size 1) to pass */
    OPTION_IGNORED, /* accepted, without effect; help says why. Logged as a warning */
};

struct option_list {
    const char **items; /* (len), pointing into argv */
    size_t len;
};

struct option_spec {
    const char *name; /* without the dashes; "a,b" are two spellings of one flag; "p,prompt": -p and --prompt */
    enum option_type type;
    size_t offset;              /* of the value in the struct of its set */
    const char *metavar;        /* "N", "DIR": what help shows as the value; OPTION_IGNORED and _REFUSED: NULL when the
                                   flag takes no value */
    const char *help;           /* what it does; the default in words */
    const char *group;          /* heading in help; NULL: the heading of the one before */
    int64_t lo, hi;             /* OPTION_INT, OPTION_DOUBLE: range, both included */
    const char *const *choices; /* OPTION_CHOICE: NULL-terminated */
    const char *zero_word;      /* OPTION_INT: a word that stands for 0 ("auto"), or NULL */
    bool many;                  /* OPTION_LIST: takes all words up to the next flag */
};

/* One table and the struct it fills. */
struct option_set {
    const struct option_spec *specs; /* (num_specs) */
    size_t num_specs;
    void *values;
};

/* Parses argv[1..argc). Positional words go to *positional (at most max_positional, else an error).
 * Returns 0, 1 when --help was asked for (the caller prints it), or an error. */
int options_parse(const struct option_set *sets, size_t num_sets, int argc, char **argv, struct option_list *positional,
                  size_t max_positional, struct octavo_error *err);
/* Writes the flags of all sets by group, wrapped to 100 columns. Ignored and refused flags are left out. */
void options_print_help(FILE *f, const struct option_set *sets, size_t num_sets);
void option_list_add(struct option_list *l, const char *item);
void option_list_release(struct option_list *l);

/* "32k" 32000, "32K" and "32KiB" 32768, "25.6k" 25600, "4GiB", "1_000". Powers of 1000 in lower case and with B,
 * powers of 1024 in upper case and with iB, as vllm reads them. 0 or -1. */
int parse_human_int(const char *text, int64_t *ret);
/* The candidate closest to word, or NULL when none is close. */
const char *closest_word(const char *word, const char *const *candidates, size_t n);

#endif
