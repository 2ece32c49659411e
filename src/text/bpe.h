/* Byte-pair encoding: a vocabulary, ranked merges, and the merge loop. Immutable once loaded; bpe_encode may run on any
 * number of threads, each with its own scratch. */
#ifndef OCTAVO_TEXT_BPE_H
#define OCTAVO_TEXT_BPE_H

#include "base/err.h"
#include "base/json.h"
#include "base/strmap.h"
#include "text/tokenizer.h"

#define BPE_MAX_ID (1 << 24) /* ids are below */

struct bpe_merge {
    uint64_t pair; /* left id << 32 | right id; BPE_NO_PAIR marks a free slot */
    uint32_t rank;
    int32_t id; /* of the merged token */
};

/* A token as the file spells it, in bpe.strings. */
struct bpe_token {
    size_t at;
    uint32_t len;
    bool used;
};

struct bpe {
    struct strmap vocab;      /* spelling -> id */
    struct bpe_token *tokens; /* (num_ids), by id */
    int32_t num_ids;          /* one past the highest id of the vocabulary */
    struct buf strings;
    size_t longest;           /* bytes of the longest spelling */
    struct bpe_merge *merges; /* open addressing, (merges_mask + 1) */
    size_t merges_mask;
    int32_t byte_ids[256];     /* id of a byte's ByteLevel character, or -1 */
    int32_t fallback_ids[256]; /* id of "<0xNN>", or -1 */
    int32_t unk_id;            /* -1: none */
    char *prefix, *suffix;     /* continuing_subword_prefix and end_of_word_suffix, "" when unset */
    bool fuse_unk, byte_fallback, ignore_merges;
};

/* What one encode needs besides its input; grows to the largest piece. Zero-initialise. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    size_t symbols_cap, heap_cap;
    struct buf mapped;
};
void bpe_scratch_release(struct bpe_scratch *s);

int bpe_load(struct bpe *bpe, const json_t *model, struct octavo_error *err);
void bpe_release(struct bpe *bpe);
/* Appends the ids of one piece. raw: the bytes stand for their ByteLevel characters; else the piece is taken as is. */
int bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece, size_t len, bool raw,
               struct token_ids *out, struct octavo_error *err);

/* The ByteLevel alphabet: every byte has a printable character. */
uint32_t byte_level_char(uint8_t byte);
int byte_level_byte(uint32_t cp); /* its byte, or -1 */
void byte_level_map(const char *s, size_t len, struct buf *out);

#endif
