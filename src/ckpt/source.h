/* The tensors of a folder while it is being opened, and what became of each; private to ckpt/. Loading thread. */
#ifndef OCTAVO_CKPT_SOURCE_H
#define OCTAVO_CKPT_SOURCE_H

#include "ckpt/config.h"
#include "ckpt/shards.h"

enum tensor_mark {
    MARK_UNUSED, /* nobody asked for it */
    MARK_KNOWN,  /* its meaning is known and it is not needed */
    MARK_USED,
};

struct tensor_source {
    const char *dir; /* for messages */
    const struct model_config *config;
    const struct shards *shards;
    uint8_t *marks;             /* enum tensor_mark, (shards->num_tensors) */
    const struct tensor **used; /* (num_used) of (shards->num_tensors), in the order of source_use */
    size_t num_used;
};

int source_init(struct tensor_source *s, const char *dir, const struct model_config *config,
                const struct shards *shards, struct octavo_error *err);
void source_release(struct tensor_source *s); /* used too; the caller takes it by setting it to NULL */

/* "module.suffix", or module alone when suffix is NULL; NULL when absent. */
const struct tensor *source_find(const struct tensor_source *s, const char *module, const char *suffix);
/* The same, but absence is an error that says who needs it. */
int source_require(const struct tensor_source *s, const char *module, const char *suffix, const char *kind,
                   const struct tensor **ret, struct octavo_error *err);
void source_use(struct tensor_source *s, const struct tensor *t); /* t may be NULL, or used already */
void source_know(struct tensor_source *s, const struct tensor *t);
enum tensor_mark source_mark(const struct tensor_source *s, size_t i);

#endif
