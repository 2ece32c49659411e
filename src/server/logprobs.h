/* Logprobs as JSON fragments, built token by token: completions' four parallel lists, chat's list of objects, vLLM's
 * prompt_logprobs. One owner thread. */
#ifndef OCTAVO_SERVER_LOGPROBS_H
#define OCTAVO_SERVER_LOGPROBS_H

#include "base/buf.h"
#include "text/tokenizer.h"

/* Comma-separated elements, to be put between brackets. Zero-initialise. */
struct logprob_lists {
    struct buf tokens, token_logprobs, top_logprobs, text_offset; /* completions */
    struct buf content;                                           /* chat */
    size_t text_len; /* characters of all tokens so far, also those that were taken away already */
};
void logprob_lists_clear(struct logprob_lists *l);
void logprob_lists_release(struct logprob_lists *l);
size_t logprob_lists_bytes(const struct logprob_lists *l);

struct logprob_style {
    const struct tokenizer *tok; /* NULL: tokens are "token_id:N" */
    bool as_token_ids;           /* return_tokens_as_token_ids */
};

/* One token of a completion; own is NULL for the first prompt token, which has no logprob. */
void logprob_lists_add(struct logprob_lists *l, const struct logprob_style *style, int32_t token_id,
                       const struct octavo_event *own);
void logprob_lists_add_chat(struct logprob_lists *l, const struct logprob_style *style, const struct octavo_event *e);
void logprob_lists_write(struct buf *out, const struct logprob_lists *l);      /* the object of a completion */
void logprob_lists_write_chat(struct buf *out, const struct logprob_lists *l); /* the object of a chat choice */
/* Appends ",{"17":{"logprob":..,"rank":..,"decoded_token":".."},..}". */
void prompt_logprob_add(struct buf *out, const struct logprob_style *style, const struct octavo_event *e);

/* A number as short as it can be and still read back as the same float; -inf and NaN are -9999, as vLLM writes them. */
void write_float(struct buf *out, float value);

#endif
