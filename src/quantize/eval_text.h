/* The text of an evaluation: a file to documents of token ids. Main thread. */
#ifndef OCTAVO_QUANTIZE_EVAL_TEXT_H
#define OCTAVO_QUANTIZE_EVAL_TEXT_H

#include "quantize/eval.h"
#include "text/tokenizer.h"

#include <stdbool.h>

struct eval_text {
    struct token_ids ids;            /* of all documents, one after another */
    struct eval_document *documents; /* (num_documents), pointing into ids */
    size_t num_documents;
};

/* Tokenises text (len bytes; name stands in messages): one document, or, when jsonl, the "text" of the object on each
 * line, a document each; blank lines are skipped. Special tokens (bos) are added to each as the tokenizer's
 * post-processor says. Keeps the first max_tokens tokens; 0: all. When against is not NULL and cuts a document
 * differently, or spells a token differently, that is an error. */
int eval_text_read(const char *text, size_t len, const char *name, bool jsonl, int64_t max_tokens,
                   const struct tokenizer *tok, const struct tokenizer *against, struct eval_text *ret,
                   struct octavo_error *err);
void eval_text_release(struct eval_text *t);

#endif
