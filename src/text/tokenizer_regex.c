/* Compiling and searching: see tokenizer_regex.h. */
#include "text/tokenizer_regex.h"

#include "base/mem.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MAX_PATTERN_BYTES (1 << 16)
#define MATCH_LIMIT 50000000u /* backtracking steps of one search: seconds, not hours */
#define DEPTH_LIMIT 1000000u
#define HEAP_LIMIT_KIB (256u << 10)
#define JIT_STACK_MAX (8u << 20)

struct regex {
    pcre2_code *code;
    bool jit;
};

struct regex_state {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

int regex_compile(const char *pattern, size_t len, bool literal, struct regex **ret_regex, struct octavo_error *err)
{
    if (len > MAX_PATTERN_BYTES)
        return error_set(err, OCTAVO_EINVAL, "tokenizer.json: a pattern of %zu bytes is too long", len);
    struct buf text = {0};
    pcre2_compile_context *context = NULL;
    struct regex *re = NULL;
    int r = 0;
    if (literal)
        buf_append(&text, pattern, len);
    else
        r = regex_translate(pattern, len, &text, err);
    if (r)
        goto out;
    context = pcre2_compile_context_create(NULL);
    if (!context) {
        r = error_set(err, OCTAVO_ENOMEM, "no memory for a pattern");
        goto out;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int code;
    PCRE2_SIZE at;
    re = mem_calloc(1, sizeof(*re));
    re->code =
        pcre2_compile((PCRE2_SPTR)buf_str(&text), text.len,
                      PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C),
                      &code, &at, context);
    if (!re->code) {
        char msg[200];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)msg, sizeof(msg));
        r = error_set(err, OCTAVO_EUNSUPPORTED, "tokenizer.json: the pattern \"%.200s\" does not compile: %s", pattern,
                      msg);
        goto out;
    }
    re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0; /* else the interpreter does it */
    *ret_regex = re;
    re = NULL;
out:
    regex_free(re);
    pcre2_compile_context_free(context);
    buf_release(&text);
    return r;
}

void regex_free(struct regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    free(re);
}

struct regex_state *regex_state_new(void)
{
    struct regex_state *st = mem_calloc(1, sizeof(*st));
    st->data = pcre2_match_data_create(1, NULL); /* where the whole match lies is all that is asked */
    st->context = pcre2_match_context_create(NULL);
    if (!st->data || !st->context) {
        regex_state_free(st);
        return NULL;
    }
    pcre2_set_match_limit(st->context, MATCH_LIMIT);
    pcre2_set_depth_limit(st->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(st->context, HEAP_LIMIT_KIB);
    st->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_MAX, NULL);
    if (st->stack)
        pcre2_jit_stack_assign(st->context, NULL, st->stack);
    return st;
}

void regex_state_free(struct regex_state *st)
{
    if (!st)
        return;
    pcre2_match_data_free(st->data);
    pcre2_match_context_free(st->context);
    pcre2_jit_stack_free(st->stack);
    free(st);
}

int regex_search(const struct regex *re, struct regex_state *st, const char *text, size_t len, size_t from,
                 struct regex_match *ret_match, struct octavo_error *err)
{
    int r = PCRE2_ERROR_JIT_STACKLIMIT;
    if (re->jit)
        r = pcre2_jit_match(re->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, st->data, st->context);
    if (r == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its state on the heap */
        r = pcre2_match(re->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, st->data,
                        st->context);
    if (r == PCRE2_ERROR_NOMATCH)
        return 0;
    if (r < 0) {
        char msg[200];
        pcre2_get_error_message(r, (PCRE2_UCHAR *)msg, sizeof(msg));
        return error_set(err, OCTAVO_ENOMEM, "a pattern of tokenizer.json gave up at byte %zu of %zu: %s", from, len,
                         msg);
    }
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(st->data);
    *ret_match = (struct regex_match){v[0], MAX(v[1], v[0])};
    return 1;
}
