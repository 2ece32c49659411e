/* The JSON of answers: whole ones and chunks of a stream, completions and chat, in the shapes that vLLM sends. */
#ifndef OCTAVO_SERVER_ANSWER_H
#define OCTAVO_SERVER_ANSWER_H

#include "server/generation.h"

/* What stands at the head of every answer and chunk. */
struct answer_head {
    char id[168];      /* "cmpl-..." or "chatcmpl-..." */
    int64_t created;   /* unix seconds */
    const char *model; /* the name the client used */
};

void write_answer(struct buf *out, const struct answer_head *head, const struct generation *g);
/* One chunk with the fragments of c, which it clears. */
void write_chunk(struct buf *out, const struct answer_head *head, const struct generation *g, struct choice *c);
/* The chunk that has usage and no choices. */
void write_usage_chunk(struct buf *out, const struct answer_head *head, const struct generation *g);

#endif
