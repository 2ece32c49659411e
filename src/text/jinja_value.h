/* Values of the Jinja engine and the state of one render. Private to jinja*.c.
 * A function that returns int returns 0, or a negative code after jfail() has filled the error. */
#ifndef OCTAVO_TEXT_JINJA_VALUE_H
#define OCTAVO_TEXT_JINJA_VALUE_H

#include "text/jinja_ast.h"

enum jlist_kind {
    JL_LIST,
    JL_TUPLE,
    JL_RANGE,     /* first, step */
    JL_GENERATOR, /* what map() and kin give: goes by once, has no length */
    JL_KEYS,
    JL_VALUES,
    JL_ITEMS,
};

struct jlist {
    struct jval *items;
    size_t num, cap;
    size_t pos;          /* JL_GENERATOR: items that are gone */
    int64_t first, step; /* JL_RANGE */
    uint8_t kind;
};

struct jentry {
    struct jval key, value;
    uint64_t hash;
};

/* Insertion-ordered; slots is an open-addressed index once there are more than a few entries. */
struct jdict {
    struct jentry *entries;
    size_t num, cap;
    uint32_t *slots; /* (num_slots), entry + 1, 0 empty */
    size_t num_slots;
};

struct jundef {
    struct jname name;
    uint8_t owner;   /* enum jval_type of what had no such attribute; JV_ABSENT: a variable */
    const char *why; /* replaces the usual message; may be NULL */
};

struct jscope {
    struct jscope *parent;
    struct jvar *vars;
};

struct jvar {
    struct jvar *next;
    struct jname name;
    struct jval value;
};

struct jmacro {
    const struct jnode *node;
    struct jscope *scope; /* where it was defined */
};

struct jloop {
    const struct jnode *node;
    struct jscope *scope; /* outside of the loop */
    struct jlist source;
    size_t source_pos;
    struct jlist items;       /* those that passed the filter so far */
    size_t index;             /* of the current one, from 0 */
    int depth;                /* from 0 */
    struct jval last_changed; /* JV_ABSENT at first */
};

struct jmethod {
    struct jval self;
    const struct jnative *native;
};

struct jcycler {
    struct jlist items; /* of a joiner: the separator */
    size_t pos;
};

struct jargs {
    struct jval *pos;
    struct jname *kw_names;
    struct jval *kw;
    size_t num_pos, num_kw;
};

enum { JCALL_MAX_PARAMS = 8 };

/* A call of a native function: self is the filter's input, the tested value or the method's object. */
struct jcall {
    struct jval self;
    struct jval a[JCALL_MAX_PARAMS]; /* by the native's params; JV_ABSENT where none was given */
    const struct jargs *args;        /* as given */
};

struct jrender;
struct jnative {
    const char *name;
    int (*fn)(struct jrender *r, const struct jcall *c, struct jval *ret);
    const char *params; /* names, separated by spaces; NULL: takes the arguments as they are */
    int required;
};

struct jrender {
    const struct jinja_template *t;
    struct jinja_limits limits;
    struct jarena arena;
    uint64_t steps;
    int depth;
    uint32_t line;
    struct jscope *globals; /* the context */
    struct buf *out;
    char *grow_end; /* end of the text that was concatenated last, and bytes free behind it */
    size_t grow_room;
    struct octavo_error *err;
};

/* ---- failing, charging, allocating ---------------------------------------------------------------------------- */

int jfail(struct jrender *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int jfail_undefined(struct jrender *r, struct jval v);  /* v was used where a value is needed */
int jcharge(struct jrender *r, size_t bytes);           /* counts work; fails beyond the limit */
void *jalloc(struct jrender *r, size_t n, size_t elem); /* NULL after failing */

/* ---- making --------------------------------------------------------------------------------------------------- */

static inline struct jval jval_none(void)
{
    return (struct jval){.type = JV_NONE};
}
static inline struct jval jval_bool(bool b)
{
    return (struct jval){.type = JV_BOOL, .b = b};
}
static inline struct jval jval_int(int64_t i)
{
    return (struct jval){.type = JV_INT, .i = i};
}
static inline struct jval jval_float(double f)
{
    return (struct jval){.type = JV_FLOAT, .f = f};
}
static inline struct jval jval_str(const char *s, size_t len)
{
    return (struct jval){.type = JV_STR, .len = (uint32_t)len, .s = s};
}
static inline struct jval jval_list(struct jlist *l)
{
    return (struct jval){.type = JV_LIST, .list = l};
}
static inline struct jval jval_dict(struct jdict *d)
{
    return (struct jval){.type = JV_DICT, .dict = d};
}
struct jval jval_undef(struct jrender *r, struct jname name, enum jval_type owner, const char *why);
int jval_copy_str(struct jrender *r, const char *s, size_t len, struct jval *ret);
int jval_cstr(struct jrender *r, const char *s, struct jval *ret);
struct jlist *jlist_new(struct jrender *r, enum jlist_kind kind, size_t cap); /* NULL after failing */
int jlist_add(struct jrender *r, struct jlist *l, struct jval v);
struct jdict *jdict_new(struct jrender *r);
int jdict_set(struct jrender *r, struct jdict *d, struct jval key, struct jval value);
int jdict_get(struct jrender *r, const struct jdict *d, struct jval key, struct jval *ret, bool *ret_found);
int jdict_set_cstr(struct jrender *r, struct jdict *d, const char *key, struct jval value);
int jval_from_json(struct jrender *r, const json_t *j, int depth, struct jval *ret);

/* ---- looking -------------------------------------------------------------------------------------------------- */

bool jval_truth(const struct jval *v);
const char *jval_type_name(const struct jval *v); /* as Python names it */
bool jval_is_number(const struct jval *v);        /* bool, int, float */
double jval_double(const struct jval *v);         /* of a number */
static inline int64_t jval_int_of(const struct jval *v)
{
    return v->type == JV_BOOL ? v->b : v->i;
}
static inline bool jval_is_int(const struct jval *v)
{
    return v->type == JV_INT || v->type == JV_BOOL;
}
int jval_equal(struct jrender *r, struct jval a, struct jval b, bool *ret);
int jval_order(struct jrender *r, struct jval a, struct jval b, const char *op, int *ret); /* <0, 0, >0; 2: unordered */
int jval_contains(struct jrender *r, struct jval item, struct jval container, bool *ret);
int jval_length(struct jrender *r, struct jval v, int64_t *ret);
/* Everything v gives when looped over; a generator is used up. */
int jval_iterate(struct jrender *r, struct jval v, struct jlist *ret);
int jval_append_str(struct jrender *r, struct jval v, struct buf *out); /* str(v) */
int jval_append_repr(struct jrender *r, struct jval v, struct buf *out, int depth);
int jval_to_str(struct jrender *r, struct jval v, struct jval *ret);
/* Sorts items (num) by keys; stable. Fails when two keys have no order. */
int jval_sort(struct jrender *r, struct jval *items, struct jval *keys, size_t num, bool reverse);
int jval_slice(struct jrender *r, struct jval v, struct jval start, struct jval stop, struct jval step,
               struct jval *ret);
int jval_getattr(struct jrender *r, struct jval obj, struct jname name, struct jval *ret);
int jval_getitem(struct jrender *r, struct jval obj, struct jval key, struct jval *ret);
int jval_binop(struct jrender *r, enum jop op, struct jval a, struct jval b, struct jval *ret);
int jval_lower(struct jrender *r, struct jval s, struct jval *ret);

/* ---- text that a function builds ---------------------------------------------------------------------------- */

int jbuf_put(struct jrender *r, struct buf *b, const char *s, size_t len); /* fails beyond the memory limit */
/* Moves b into a value when rc is 0, and releases it either way; returns rc or the failure. */
int jbuf_finish(struct jrender *r, struct buf *b, int rc, struct jval *ret);

/* ---- calling, and what the parts look up in each other ------------------------------------------------------ */

const struct jnative *jfilter_find(struct jname name);
const struct jnative *jtest_find(struct jname name);
const struct jnative *jmethod_find(const struct jval *self, struct jname name);
/* True for methods of Python's lists and dicts that change them, which the sandbox hides. */
bool jmethod_is_unsafe(const struct jval *self, struct jname name);
bool jglobal_find(struct jname name, struct jval *ret);
const struct jnative *jglobal_native(unsigned which);
int jnative_call(struct jrender *r, const struct jnative *n, struct jval self, const struct jargs *args,
                 struct jval *ret);
int jval_call(struct jrender *r, struct jval callee, const struct jargs *args, struct jval *ret);
int jloop_getattr(struct jrender *r, struct jloop *loop, struct jname name, struct jval *ret);
int jloop_recurse(struct jrender *r, struct jloop *loop, struct jval iterable, struct jval *ret);

/* json.dumps. */
struct jdumps_options {
    bool ascii, sort_keys;
    const char *indent; /* text of one level, or NULL */
    size_t indent_len;
    struct jval item_sep, key_sep;
};
int jval_dumps(struct jrender *r, struct jval v, const struct jdumps_options *o, struct buf *out, int depth);
int jformat_percent(struct jrender *r, struct jval fmt, struct jval args, struct jval *ret);        /* fmt % args */
int jformat_braces(struct jrender *r, struct jval fmt, const struct jargs *args, struct jval *ret); /* fmt.format() */

bool jname_eq(struct jname name, const char *s);

#endif
