/* tokenizer.json: byte-level BPE as Hugging Face `tokenizers` runs it (Qwen2/3, Llama 3 and kin).
 * Immutable after tokenizer_open: encode and decode may run on any number of threads at once. */
#ifndef OCTAVO_TEXT_TOKENIZER_H
#define OCTAVO_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* A growing list of ids. Zero-initialise; token_ids_release frees. */
struct token_ids {
    int32_t *ids;
    size_t len, cap;
};
void token_ids_push(struct token_ids *t, int32_t id);
void token_ids_release(struct token_ids *t);

/* Reads dir/tokenizer.json and, when there is one, dir/tokenizer_config.json. */
int tokenizer_open(const char *dir, struct tokenizer **ret_tok, struct octavo_error *err);
/* The same from texts, for tests and fuzzing; config may be NULL. */
int tokenizer_parse(const char *json, size_t json_len, const char *config, size_t config_len,
                    struct tokenizer **ret_tok, struct octavo_error *err);
void tokenizer_free(struct tokenizer *tok);

enum tokenizer_encode_flags {
    TOKENIZER_ADD_SPECIAL = 1, /* run the post-processor: bos and friends (completions do, chat does not) */
};
/* Appends the ids of text. Bytes that are not UTF-8 are replaced by U+FFFD first. Linear-ish in len, whatever the
 * text. Fails only when memory or a match limit runs out. */
int tokenizer_encode(const struct tokenizer *tok, const char *text, size_t len, unsigned flags, struct token_ids *out,
                     struct octavo_error *err);
/* Appends the text of ids, ill-formed UTF-8 replaced by U+FFFD. An id that no token has gives nothing. */
void tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, bool skip_special, struct buf *out);

/* One past the highest id. */
int32_t tokenizer_vocab_size(const struct tokenizer *tok);
/* Appends the bytes that one token stands for (perhaps a part of a character); false when no token has the id. */
bool tokenizer_token_bytes(const struct tokenizer *tok, int32_t id, struct buf *out);
/* The token as the file spells it ("Ġthe"); NULL when no token has the id. */
const char *tokenizer_token_string(const struct tokenizer *tok, int32_t id, size_t *ret_len);
/* The id of a token by its spelling in the file, or -1. */
int32_t tokenizer_token_id(const struct tokenizer *tok, const char *string, size_t len);
bool tokenizer_is_special(const struct tokenizer *tok, int32_t id);
/* "bos_token", "eos_token", "pad_token", "unk_token" of tokenizer_config.json; NULL when it has none. */
const char *tokenizer_named_token(const struct tokenizer *tok, const char *name);

#endif
