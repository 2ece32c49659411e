/* The tensors of a folder while it is being opened: see source.h. */
#include "ckpt/source.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int source_init(struct tensor_source *s, const char *dir, const struct model_config *config,
                const struct shards *shards, struct octavo_error *err)
{
    size_t n = MAX(shards->num_tensors, (size_t)1);
    *s = (struct tensor_source){.dir = dir, .config = config, .shards = shards};
    s->marks = mem_try_calloc(n, 1);
    s->used = mem_try_calloc(n, sizeof(*s->used));
    return s->marks && s->used ? 0 : error_set(err, OCTAVO_ENOMEM, "%s: no memory for %zu tensors", dir, n);
}

void source_release(struct tensor_source *s)
{
    free(s->marks);
    free(s->used);
    *s = (struct tensor_source){0};
}

static int32_t find(const struct tensor_source *s, const char *module, const char *suffix)
{
    char name[256];
    int len = snprintf(name, sizeof(name), "%s%s%s", module, suffix ? "." : "", suffix ? suffix : "");
    return len < (int)sizeof(name) ? strmap_get(&s->shards->by_name, name, (size_t)len, -1) : -1;
}

const struct tensor *source_find(const struct tensor_source *s, const char *module, const char *suffix)
{
    int32_t i = find(s, module, suffix);
    return i < 0 ? NULL : s->shards->tensors[i];
}

int source_require(const struct tensor_source *s, const char *module, const char *suffix, const char *kind,
                   const struct tensor **ret, struct octavo_error *err)
{
    *ret = source_find(s, module, suffix);
    return *ret ? 0
                : error_set(err, OCTAVO_EINVAL,
                            "%s: tensor %s.%s is missing: a linear of kind %s needs it; finish the download, or "
                            "quantise the model again",
                            s->dir, module, suffix, kind);
}

void source_use(struct tensor_source *s, const struct tensor *t)
{
    int32_t i = t ? find(s, t->name, NULL) : -1;
    if (i >= 0 && s->marks[i] != MARK_USED) {
        s->marks[i] = MARK_USED;
        s->used[s->num_used++] = t;
    }
}

void source_know(struct tensor_source *s, const struct tensor *t)
{
    int32_t i = t ? find(s, t->name, NULL) : -1;
    if (i >= 0 && s->marks[i] == MARK_UNUSED)
        s->marks[i] = MARK_KNOWN;
}

enum tensor_mark source_mark(const struct tensor_source *s, size_t i)
{
    return (enum tensor_mark)s->marks[i];
}
