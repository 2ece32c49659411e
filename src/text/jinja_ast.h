/* What a Jinja template is after parsing: nodes in an arena that the template owns. Shared by the parser (writes), the
 * evaluator and the content detector (read). Private to jinja*.c. */
#ifndef OCTAVO_TEXT_JINJA_AST_H
#define OCTAVO_TEXT_JINJA_AST_H

#include "text/jinja.h"

enum jinja_limit {
    JINJA_MAX_TEMPLATE = 1 << 20, /* bytes of template text */
    JINJA_MAX_PARSE_DEPTH = 100,  /* nested brackets, and nested blocks */
    JINJA_MAX_HEIGHT = 200,       /* levels of one expression tree: a + b + c + ... is a tree that leans left */
    JINJA_MAX_EVAL_DEPTH = 1200,  /* frames of the evaluator, through macros and all */
    JINJA_MAX_VALUE_DEPTH = 256,  /* lists in lists */
    JINJA_MAX_RANGE = 100000,     /* what Jinja's sandbox allows */
};

enum jnode_type {
    /* expressions */
    JN_CONST,   /* value */
    JN_NAME,    /* str */
    JN_LIST,    /* kids */
    JN_TUPLE,   /* kids */
    JN_DICT,    /* kids: key, value, key, value */
    JN_COND,    /* kids: test, then, else or NULL */
    JN_OR,      /* kids: two */
    JN_AND,     /* kids: two */
    JN_NOT,     /* kids: one */
    JN_NEG,     /* kids: one */
    JN_POS,     /* kids: one */
    JN_BINOP,   /* op, kids: two */
    JN_COMPARE, /* kids: operands (n), ops[n-1] */
    JN_CONCAT,  /* kids: n */
    JN_ATTR,    /* kids: object; str */
    JN_ITEM,    /* kids: object, key */
    JN_SLICE,   /* kids: start, stop, step, each or NULL; only as the key of a JN_ITEM */
    JN_CALL,    /* kids: callee; args */
    JN_FILTER,  /* kids: input (NULL in a filter block); str, native, args */
    JN_TEST,    /* kids: input; str, native, args */
    /* statements */
    JN_TEXT,         /* str */
    JN_PRINT,        /* kids: one expression */
    JN_IF,           /* kids: test, body (JN_BLOCK), test, body, ..., and one more body for else */
    JN_FOR,          /* kids: target, iter, test or NULL, body, else or NULL; op: 1 when recursive */
    JN_SET,          /* kids: target, value */
    JN_SET_BLOCK,    /* kids: target, filter or NULL, body */
    JN_NSREF,        /* target ns.attr: str, attr */
    JN_WITH,         /* kids: target, value, target, value, ..., body */
    JN_MACRO,        /* str; params, kids: defaults (NULL: none) for each param, then body */
    JN_CALL_BLOCK,   /* kids: call, macro */
    JN_FILTER_BLOCK, /* kids: filter, body */
    JN_SCOPE,        /* kids: body */
    JN_BLOCK,        /* kids: statements */
    JN_BREAK,
    JN_CONTINUE,
};

enum jop {
    JOP_ADD,
    JOP_SUB,
    JOP_MUL,
    JOP_DIV,
    JOP_FLOORDIV,
    JOP_MOD,
    JOP_POW,
    JOP_EQ,
    JOP_NE,
    JOP_LT,
    JOP_LE,
    JOP_GT,
    JOP_GE,
    JOP_IN,
    JOP_NOT_IN
};

struct jname {
    const char *s;
    uint32_t len;
};

enum jval_type {
    JV_ABSENT, /* an argument that was not given; never seen by a template */
    JV_UNDEF,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_FLOAT,
    JV_STR,
    JV_LIST, /* every ordered thing: see jlist.kind */
    JV_DICT,
    JV_NAMESPACE,
    JV_MACRO,
    JV_METHOD, /* a method bound to its object */
    JV_GLOBAL, /* a function of the environment */
    JV_LOOP,
    JV_LOOP_FN, /* loop.cycle, loop.changed */
    JV_CYCLER,
    JV_JOINER,
};

/* A value: 16 bytes, copied freely; what it points to lives in the arena of the render (or of the template, or in the
 * context that the caller holds). Strings are UTF-8 and not NUL-terminated. */
struct jval {
    uint8_t type; /* enum jval_type */
    uint8_t sub;  /* JV_GLOBAL: which */
    uint32_t len; /* JV_STR: bytes */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        const struct jundef *undef; /* may be NULL */
        struct jlist *list;
        struct jdict *dict; /* also of JV_NAMESPACE */
        struct jmacro *macro;
        struct jmethod *method;
        struct jloop *loop;
        struct jcycler *cycler;
    };
};

struct jnative;

struct jarg_list {
    struct jnode **pos;      /* (num_pos) */
    struct jname *kw_names;  /* (num_kw) */
    struct jnode **kw;       /* (num_kw) */
    struct jnode *star;      /* *args, or NULL */
    struct jnode *star_star; /* **kwargs, or NULL */
    uint32_t num_pos, num_kw;
};

struct jnode {
    uint8_t type; /* enum jnode_type */
    uint8_t op;   /* enum jop, or a flag */
    uint16_t height;
    uint32_t line;
    uint32_t num_kids;
    uint32_t num_params;
    struct jnode **kids;
    struct jname str;
    struct jname attr;
    struct jval value;
    uint8_t *ops;
    struct jarg_list *args;
    struct jname *params;
    const struct jnative *native;
    bool uses_caller, uses_varargs, uses_kwargs; /* JN_MACRO */
};

/* ---- arena --------------------------------------------------------------------------------------------------- */

struct jarena_chunk {
    struct jarena_chunk *next;
    size_t cap;
    char data[];
};

struct jarena {
    struct jarena_chunk *head;
    char *cur, *end;
    size_t used, limit; /* bytes asked of the system */
};

void *jarena_try_alloc(struct jarena *a,
                       size_t bytes); /* 16-byte aligned; NULL beyond the limit or the system's memory */
void jarena_release(struct jarena *a);

struct jinja_template {
    struct jarena arena;
    char *name;
    char *source; /* newlines normalised; strings of nodes point into it or the arena */
    struct jnode *root;
};

/* ---- lexer ----------------------------------------------------------------------------------------------------- */

enum jtok {
    JT_EOF,
    JT_DATA,
    JT_VAR_BEGIN,
    JT_VAR_END,
    JT_BLOCK_BEGIN,
    JT_BLOCK_END,
    JT_NAME,
    JT_STRING,
    JT_INT,
    JT_FLOAT,
    JT_ADD,
    JT_SUB,
    JT_MUL,
    JT_DIV,
    JT_FLOORDIV,
    JT_MOD,
    JT_POW,
    JT_TILDE,
    JT_EQ,
    JT_NE,
    JT_LT,
    JT_LE,
    JT_GT,
    JT_GE,
    JT_ASSIGN,
    JT_LPAREN,
    JT_RPAREN,
    JT_LBRACKET,
    JT_RBRACKET,
    JT_LBRACE,
    JT_RBRACE,
    JT_DOT,
    JT_COLON,
    JT_COMMA,
    JT_PIPE,
    JT_SEMICOLON,
};

struct jtoken {
    enum jtok type;
    uint32_t line;
    struct jname str; /* DATA, NAME, STRING (decoded), OPERATOR: the text */
    int64_t i;
    double f;
};

/* Splits source into tokens, whitespace control applied. *ret_tokens ends with JT_EOF and lives in t's arena. */
int jinja_lex(struct jinja_template *t, const char *text, size_t len, struct jtoken **ret_tokens,
              struct octavo_error *err);
int jinja_parse(struct jinja_template *t, const struct jtoken *tokens, struct octavo_error *err);

#endif
