/* One request's tokens to text, as they come: never half a UTF-8 character, never a piece of what may become a stop
 * string. The pieces of a stream joined are exactly the text of the whole. One owner thread at a time. */
#ifndef OCTAVO_TEXT_DETOKENIZER_H
#define OCTAVO_TEXT_DETOKENIZER_H

#include "base/buf.h"
#include "text/tokenizer.h"

struct detokenizer;

struct detokenizer_options {
    bool skip_special_tokens;
    bool include_stop_str_in_output;
    size_t num_stop;
    const char *const *stop; /* (num_stop), copied; none may be empty */
    const size_t *stop_len;  /* (num_stop) bytes */
};

struct detokenizer *detokenizer_new(const struct tokenizer *tok, const struct detokenizer_options *opts);
void detokenizer_free(struct detokenizer *d);
/* Adds one token and appends the text it releases. Returns -1, or the index of the stop string that is now complete
 * (the earliest match in the text): then all text up to it has been appended, and nothing may be pushed after. */
int detokenizer_push(struct detokenizer *d, int32_t token_id, struct buf *out);
/* The output ended without a stop string: appends what was held back (an incomplete character as U+FFFD). */
void detokenizer_finish(struct detokenizer *d, struct buf *out);

#endif
