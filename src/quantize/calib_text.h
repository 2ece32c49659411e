/* Text to calibrate with, or to judge by, as windows of token ids. Called on one thread. */
#ifndef OCTAVO_QUANTIZE_CALIB_TEXT_H
#define OCTAVO_QUANTIZE_CALIB_TEXT_H

#include "base/err.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <stdbool.h>

struct calib_text {
    int32_t *ids; /* (num_windows, window) */
    int num_windows, window;
};

/* Reads path: plain text, or, when its name ends in .jsonl, one JSON object a line with "text" or "messages" (rendered
 * with the chat template), or, when it ends in .json, one array of token ids, for which tok and template may be NULL.
 * Takes at most num_tokens tokens, in windows of window tokens spread evenly over the text;
 * a text shorter than one window makes one shorter window. vocab_size: of the model; an id beyond it is an error. */
/* Whether path holds token ids. */
bool calib_text_is_ids(const char *path);
int calib_text_load(const char *path, const struct tokenizer *tok, const struct chat_template *template,
                    int64_t num_tokens, int window, int vocab_size, struct calib_text *ret, struct octavo_error *err);
void calib_text_release(struct calib_text *t);

#endif
