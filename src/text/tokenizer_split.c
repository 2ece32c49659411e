/* Pre-tokenizers: one after the other they cut text into the pieces that BPE sees. Every piece goes through the
 * remaining steps at once, so that nothing but the matches of one step on one piece is kept. Any thread. */
#include "text/tokenizer_impl.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/tokenizer_unicode.h"

#include <stdlib.h>
#include <string.h>

#define WHAT "tokenizer.json: pre_tokenizer"

/* GPT-2's words: what ByteLevel splits by itself. */
#define GPT2_WORDS "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* ---- loading ------------------------------------------------------------------------------------------------ */

static int load_behavior(const json_t *node, enum split_behavior *ret, struct octavo_error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    int r = json_get_string(node, WHAT, "behavior", &name, err);
    if (r || !name)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(name, names[i])) {
            *ret = (enum split_behavior)i;
            return 0;
        }
    }
    return error_set(err, OCTAVO_EINVAL, WHAT ".behavior \"%.80s\" is unknown", name);
}

static int fixed_pattern(struct split_step *step, const char *pattern, bool literal, struct octavo_error *err)
{
    return regex_compile(pattern, strlen(pattern), literal, &step->regex, err);
}

static int load_byte_level(struct split_step *step, const json_t *node, struct octavo_error *err)
{
    bool use_regex = true;
    int r;
    step->byte_level = true;
    step->add_prefix_space = true;
    if ((r = json_get_bool(node, WHAT, "add_prefix_space", &step->add_prefix_space, err)) ||
        (r = json_get_bool(node, WHAT, "use_regex", &use_regex, err)))
        return r;
    return use_regex ? fixed_pattern(step, GPT2_WORDS, false, err) : 0;
}

static int load_step(struct split_step *step, const json_t *node, const char *type, struct octavo_error *err)
{
    int r;
    if (!strcmp(type, "ByteLevel"))
        return load_byte_level(step, node, err);
    if (!strcmp(type, "Split")) {
        if (!json_is_string(json_object_get(node, "behavior")))
            return error_set(err, OCTAVO_EINVAL, WHAT ".behavior must be a string");
        if ((r = load_behavior(node, &step->behavior, err)) ||
            (r = json_get_bool(node, WHAT, "invert", &step->invert, err)))
            return r;
        return tokenizer_load_pattern(json_object_get(node, "pattern"), WHAT ".pattern", &step->regex, err);
    }
    if (!strcmp(type, "Digits")) {
        bool each = false;
        if ((r = json_get_bool(node, WHAT, "individual_digits", &each, err)))
            return r;
        step->behavior = each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
        return fixed_pattern(step, "\\p{N}", false, err);
    }
    if (!strcmp(type, "Punctuation")) {
        step->behavior = SPLIT_ISOLATED;
        if ((r = load_behavior(node, &step->behavior, err)))
            return r;
        return fixed_pattern(step, "[\\p{P}!-/:-@\\[-`{-~]", false, err);
    }
    if (!strcmp(type, "Whitespace")) {
        step->behavior = SPLIT_REMOVED;
        step->invert = true;
        return fixed_pattern(step, "\\w+|[^\\w\\s]+", false, err);
    }
    if (!strcmp(type, "WhitespaceSplit")) {
        step->behavior = SPLIT_REMOVED;
        return fixed_pattern(step, "\\s", false, err);
    }
    if (!strcmp(type, "CharDelimiterSplit")) {
        const char *delimiter = NULL;
        if ((r = json_get_string(node, WHAT, "delimiter", &delimiter, err)))
            return r;
        if (!delimiter || !*delimiter)
            return error_set(err, OCTAVO_EINVAL, WHAT ".delimiter must be one character");
        step->behavior = SPLIT_REMOVED;
        return fixed_pattern(step, delimiter, true, err);
    }
    return error_set(err, OCTAVO_EUNSUPPORTED, WHAT " of type \"%.80s\" is not supported", type);
}

static int load_node(struct splitter *s, const json_t *node, int depth, struct octavo_error *err)
{
    if (!node || json_is_null(node))
        return 0;
    const char *type = NULL;
    int r = tokenizer_node_type(node, WHAT, &type, err);
    if (r)
        return r;
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(node, "pretokenizers");
        if (!json_is_array(list) || depth > 8)
            return error_set(err, OCTAVO_EINVAL, WHAT ".pretokenizers must be an array, not nested too deep");
        for (size_t i = 0; i < json_array_size(list) && !r; i++)
            r = load_node(s, json_array_get(list, i), depth + 1, err);
        return r;
    }
    if (s->num_steps == TOKENIZER_MAX_STEPS)
        return error_set(err, OCTAVO_EINVAL, WHAT " has more than %d steps", TOKENIZER_MAX_STEPS);
    return load_step(&s->steps[s->num_steps++], node, type, err);
}

int splitter_load(struct splitter *s, const json_t *node, struct octavo_error *err)
{
    s->steps = mem_calloc(TOKENIZER_MAX_STEPS, sizeof(*s->steps));
    return load_node(s, node, 0, err);
}

void splitter_release(struct splitter *s)
{
    for (size_t i = 0; i < s->num_steps; i++)
        regex_free(s->steps[i].regex);
    free(s->steps);
    *s = (struct splitter){0};
}

/* ---- running ------------------------------------------------------------------------------------------------ */

struct run {
    const struct splitter *splitter;
    struct regex_state *st;
    piece_fn *fn;
    void *arg;
    struct octavo_error *err;
};

/* The spans of one step on one piece, as they are found. The last one may still grow. */
struct spans {
    struct span *list;
    size_t len, cap;
    bool previous_match;
};

static int run_step(const struct run *run, size_t i, const char *text, const char *match_text, size_t len);

/* What follows the split of step i: its byte mapping, when it has one, and the next step. */
static int pass_on(const struct run *run, size_t i, const char *text, const char *match_text, size_t len)
{
    if (!len)
        return 0;
    const struct split_step *step = &run->splitter->steps[i];
    if (!step->byte_level)
        return run_step(run, i + 1, text, match_text, len);
    if (i + 1 == run->splitter->num_steps)
        return run->fn(run->arg, text, len, true, run->err);
    struct buf mapped = {0};
    byte_level_map(text, len, &mapped); /* its characters are old enough to be matched as they are */
    int r = run_step(run, i + 1, mapped.data, mapped.data, mapped.len);
    buf_release(&mapped);
    return r;
}

static int push_span(struct spans *s, struct span span, struct octavo_error *err)
{
    if (s->len == s->cap) {
        size_t cap = s->cap * 2 + 64;
        struct span *list = mem_try_array(cap, sizeof(*list));
        if (!list)
            return error_set(err, OCTAVO_ENOMEM, "no memory to split a text");
        if (s->len)
            memcpy(list, s->list, s->len * sizeof(*list));
        free(s->list);
        s->list = list;
        s->cap = cap;
    }
    s->list[s->len++] = span;
    return 0;
}

/* Isolated and Removed hand a span on as it comes; the others merge spans, so they gather them first. */
static int take_span(const struct run *run, size_t i, const char *text, const char *match_text, struct spans *s,
                     size_t start, size_t end, bool match)
{
    const struct split_step *step = &run->splitter->steps[i];
    match = match != step->invert;
    bool merge = false;
    switch (step->behavior) {
    case SPLIT_REMOVED:
        if (match)
            return 0;
        return pass_on(run, i, text + start, match_text + start, end - start);
    case SPLIT_ISOLATED:
        return pass_on(run, i, text + start, match_text + start, end - start);
    case SPLIT_CONTIGUOUS:
        merge = match == s->previous_match;
        break;
    case SPLIT_MERGED_WITH_PREVIOUS:
        merge = match && !s->previous_match;
        break;
    case SPLIT_MERGED_WITH_NEXT:
        break; /* decided from the end backwards */
    }
    s->previous_match = match;
    if (merge && s->len) {
        s->list[s->len - 1].end = end;
        return 0;
    }
    return push_span(s, (struct span){start, end, match}, run->err);
}

static int hand_on_spans(const struct run *run, size_t i, const char *text, const char *match_text, struct spans *s)
{
    if (run->splitter->steps[i].behavior == SPLIT_MERGED_WITH_NEXT) {
        bool next_match = false;
        for (size_t k = s->len; k-- > 0;) {
            bool match = s->list[k].match;
            if (match && !next_match && k + 1 < s->len) {
                s->list[k + 1].start = s->list[k].start;
                s->list[k].end = s->list[k].start; /* empty: passed over below */
            }
            next_match = match;
        }
    }
    int r = 0;
    for (size_t k = 0; k < s->len && !r; k++)
        r = pass_on(run, i, text + s->list[k].start, match_text + s->list[k].start, s->list[k].end - s->list[k].start);
    return r;
}

static int run_split(const struct run *run, size_t i, const char *text, const char *match_text, size_t len)
{
    const struct regex *re = run->splitter->steps[i].regex;
    struct spans spans = {0};
    size_t done = 0, from = 0, last_end = SIZE_MAX;
    int r = 0;
    while (from <= len) {
        struct regex_match m;
        r = regex_search(re, run->st, match_text, len, from, &m, run->err);
        if (r <= 0)
            break;
        r = 0;
        if (m.start == m.end && m.end == last_end) { /* an empty match right after a match does not count */
            uint32_t cp;
            from = m.end + (m.end < len ? (size_t)utf8_decode(text + m.end, len - m.end, &cp) : 1);
            continue;
        }
        if (done != m.start)
            r = take_span(run, i, text, match_text, &spans, done, m.start, false);
        if (!r)
            r = take_span(run, i, text, match_text, &spans, m.start, m.end, true);
        if (r)
            break;
        done = from = last_end = m.end;
    }
    if (!r && done != len)
        r = take_span(run, i, text, match_text, &spans, done, len, false);
    if (!r)
        r = hand_on_spans(run, i, text, match_text, &spans);
    free(spans.list);
    return r;
}

static int run_step(const struct run *run, size_t i, const char *text, const char *match_text, size_t len)
{
    if (i == run->splitter->num_steps)
        return run->fn(run->arg, text, len, false, run->err);
    const struct split_step *step = &run->splitter->steps[i];
    struct buf spaced = {0}, spaced_match = {0};
    if (step->add_prefix_space && text[0] != ' ') {
        buf_putc(&spaced, ' ');
        buf_append(&spaced, text, len);
        if (match_text != text) {
            buf_putc(&spaced_match, ' ');
            buf_append(&spaced_match, match_text, len);
        }
        match_text = match_text != text ? spaced_match.data : spaced.data;
        text = spaced.data;
        len++;
    }
    int r = step->regex ? run_split(run, i, text, match_text, len) : pass_on(run, i, text, match_text, len);
    buf_release(&spaced);
    buf_release(&spaced_match);
    return r;
}

int splitter_run(const struct splitter *s, struct regex_state *st, const char *text, size_t len, piece_fn *fn,
                 void *arg, struct octavo_error *err)
{
    if (!len)
        return 0;
    char *shadow;
    if (!unicode_shadow(text, len, &shadow))
        return error_set(err, OCTAVO_ENOMEM, "no memory to split %zu bytes", len);
    const struct run run = {s, st, fn, arg, err};
    int r = run_step(&run, 0, text, shadow ? shadow : text, len);
    free(shadow);
    return r;
}
