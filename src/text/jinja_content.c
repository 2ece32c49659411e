/* Whether a template treats a message's content as a list of parts: it loops over `content` of an item of `messages`,
 * perhaps through other names and filters. The rule is vLLM's for chat-template-content-format "auto". Any thread. */
#include "text/jinja_ast.h"

#include "base/mem.h"
#include "text/jinja_value.h"

#include <string.h>

enum { MAX_NAMES = 64 };

struct names {
    struct jname items[MAX_NAMES];
    size_t num;
};

static bool same(struct jname a, struct jname b)
{
    return a.len == b.len && memcmp(a.s, b.s, a.len) == 0;
}

static bool has(const struct names *n, struct jname name)
{
    for (size_t i = 0; i < n->num; i++)
        if (same(n->items[i], name))
            return true;
    return false;
}

/* A name of the set (key NULL) or its attribute key, perhaps filtered, tested or sliced. */
static bool accesses(const struct jnode *n, const struct names *names, const char *key)
{
    while (n && (n->type == JN_FILTER || n->type == JN_TEST || (n->type == JN_ITEM && n->kids[1]->type == JN_SLICE)))
        n = n->kids[0];
    if (n && key) {
        bool attr = n->type == JN_ATTR && jname_eq(n->str, key);
        bool item = n->type == JN_ITEM && n->kids[1]->type == JN_CONST && n->kids[1]->value.type == JV_STR &&
                    jname_eq((struct jname){n->kids[1]->value.s, n->kids[1]->value.len}, key);
        n = attr || item ? n->kids[0] : NULL;
    }
    return n && n->type == JN_NAME && has(names, n->str);
}

struct walk {
    const struct names *from;
    const char *key;
    struct names *to; /* targets of the loops (or assignments) over what `from` accesses; NULL: only ask */
    bool assignments, found;
};

/* Depth is bounded by the parser's limit on a tree's height. */
static void walk(struct walk *w, const struct jnode *n)
{
    if (!n)
        return;
    const struct jnode *value = n->type == (w->assignments ? JN_SET : JN_FOR) ? n->kids[1] : NULL;
    if (value && accesses(value, w->from, w->key)) {
        w->found = true;
        if (w->to && n->kids[0]->type == JN_NAME && !has(w->to, n->kids[0]->str) && w->to->num < MAX_NAMES)
            w->to->items[w->to->num++] = n->kids[0]->str;
    }
    for (uint32_t i = 0; i < n->num_kids; i++)
        walk(w, n->kids[i]);
}

bool jinja_loops_over_content(const struct jinja_template *t)
{
    struct names lists = {.items = {{"messages", 8}}, .num = 1}, items = {0};
    for (size_t before = 0; before != lists.num;) {
        before = lists.num;
        struct names from = lists;
        walk(&(struct walk){.from = &from, .to = &lists, .assignments = true}, t->root);
    }
    walk(&(struct walk){.from = &lists, .to = &items}, t->root);
    struct walk content = {.from = &items, .key = "content"};
    walk(&content, t->root);
    return content.found;
}
