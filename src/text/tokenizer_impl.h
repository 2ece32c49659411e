/* What the files of the tokenizer share. Nobody else includes this. Everything here is immutable after loading but
 * encode_state and decode_stream, which belong to one call and one stream. */
#ifndef OCTAVO_TEXT_TOKENIZER_IMPL_H
#define OCTAVO_TEXT_TOKENIZER_IMPL_H

#include "base/json.h"
#include "text/bpe.h"
#include "text/tokenizer.h"
#include "text/tokenizer_regex.h"

#define TOKENIZER_MAX_STEPS 64
#define TOKENIZER_MAX_ADDED_BYTES 4096 /* of one added token */

/* ---- normalizer --------------------------------------------------------------------------------------------- */

enum normal_kind {
    NORMAL_NFC,
    NORMAL_NFD,
    NORMAL_NFKC,
    NORMAL_NFKD,
    NORMAL_LOWERCASE,
    NORMAL_STRIP,
    NORMAL_PREPEND,
    NORMAL_REPLACE
};

struct normal_step {
    enum normal_kind kind;
    bool left, right;    /* STRIP */
    struct buf content;  /* PREPEND, REPLACE */
    struct regex *regex; /* REPLACE */
};

struct normalizer {
    struct normal_step *steps;
    size_t num_steps;
};

int normalizer_load(struct normalizer *n, const json_t *node, struct octavo_error *err);
void normalizer_release(struct normalizer *n);
/* Writes the normal form of text (valid UTF-8) to the empty out. */
int normalizer_apply(const struct normalizer *n, struct regex_state *st, const char *text, size_t len, struct buf *out,
                     struct octavo_error *err);

/* ---- pre-tokenizer ------------------------------------------------------------------------------------------ */

enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
};

struct split_step {
    struct regex *regex; /* NULL: no splitting (ByteLevel without use_regex) */
    enum split_behavior behavior;
    bool invert;
    bool byte_level;       /* afterwards every byte becomes its ByteLevel character */
    bool add_prefix_space; /* beforehand */
};

struct splitter {
    struct split_step *steps;
    size_t num_steps;
};

/* One stretch between two cuts; cut is where a match or a gap ends. */
struct span {
    size_t start, end;
    bool match;
};

/* Takes one finished piece; raw: its bytes still stand for ByteLevel characters. Nonzero ends the split. */
typedef int piece_fn(void *arg, const char *piece, size_t len, bool raw, struct octavo_error *err);

int splitter_load(struct splitter *s, const json_t *node, struct octavo_error *err);
void splitter_release(struct splitter *s);
int splitter_run(const struct splitter *s, struct regex_state *st, const char *text, size_t len, piece_fn *fn,
                 void *arg, struct octavo_error *err);

/* ---- added tokens ------------------------------------------------------------------------------------------- */

struct added_token {
    int32_t id;
    char *content;
    size_t len;
    bool single_word, lstrip, rstrip, normalized, special;
};

struct trie_node {
    uint32_t child, sibling; /* 0: none */
    int32_t token;           /* index of the added token that ends here, or -1 */
    uint8_t byte;
};

/* Finds the leftmost, and of those the longest, of a set of strings. */
struct trie {
    struct trie_node *nodes;
    size_t len, cap;
    uint32_t roots[256]; /* by first byte; 0: none */
};

struct added_tokens {
    struct added_token *list; /* (num), by rising id */
    size_t num, cap;
    struct strmap by_content; /* -> id */
    struct trie raw, normal;  /* normalized=false, normalized=true */
};

/* Reads one entry of added_tokens or added_tokens_decoder; an entry that is there takes the new flags. */
int added_tokens_put(struct added_tokens *a, const struct bpe *bpe, const json_t *entry, int64_t id, const char *where,
                     struct octavo_error *err);
void added_tokens_put_special(struct added_tokens *a, int32_t id, const char *content, size_t len);
/* Sorts and builds the tries; nothing may be put afterwards. */
int added_tokens_seal(struct added_tokens *a, const struct normalizer *n, struct octavo_error *err);
void added_tokens_release(struct added_tokens *a);
const struct added_token *added_tokens_find(const struct added_tokens *a, int32_t id);

struct added_match {
    const struct added_token *token;
    size_t start, end; /* with the whitespace that lstrip and rstrip take */
};
/* The walk over one text. Start with {0}. False at the end. */
struct added_walk {
    size_t at, done, space_end;
};
bool added_tokens_next(const struct added_tokens *a, const struct trie *trie, const char *text, size_t len,
                       struct added_walk *walk, struct added_match *ret_match);

/* ---- post-processor and decoder ----------------------------------------------------------------------------- */

struct affixes {
    struct token_ids before, after;
};
int affixes_load(struct affixes *x, const json_t *node, const struct tokenizer *tok, struct octavo_error *err);
void affixes_release(struct affixes *x);

struct decode_replace {
    struct buf pattern, content;
};

struct decoder {
    bool byte_level, byte_fallback, join_with_space;
    struct decode_replace *replaces;
    size_t num_replaces;
    struct buf strip; /* at the start of the text, at most strip_count times */
    size_t strip_count;
};
int decoder_load(struct decoder *d, const json_t *node, struct octavo_error *err);
void decoder_release(struct decoder *d);

/* Decoding one token after the other; the pieces joined are the text of the whole. */
struct decode_stream {
    const struct tokenizer *tok;
    bool skip_special, started;
    size_t stripped;  /* times that decoder.strip has been taken off; SIZE_MAX: over */
    struct buf bytes; /* not yet whole characters */
    struct buf run;   /* of byte_fallback tokens */
    struct buf token; /* scratch */
};
void decode_stream_init(struct decode_stream *s, const struct tokenizer *tok, bool skip_special);
void decode_stream_push(struct decode_stream *s, int32_t id, struct buf *out);
void decode_stream_finish(struct decode_stream *s, struct buf *out);
void decode_stream_release(struct decode_stream *s);

/* Appends bytes with U+FFFD for each maximal ill-formed part. */
void utf8_append_lossy(const char *s, size_t len, struct buf *out);

struct tokenizer {
    struct bpe bpe;
    struct added_tokens added;
    struct normalizer normalizer;
    struct splitter splitter;
    struct affixes affixes;
    struct decoder decoder;
    char *named[4]; /* bos, eos, pad, unk; or NULL */
};

/* The "type" of a part, an object. */
int tokenizer_node_type(const json_t *node, const char *what, const char **ret_type, struct octavo_error *err);
/* {"String": s} or {"Regex": s}, or s itself, compiled. */
int tokenizer_load_pattern(const json_t *node, const char *what, struct regex **ret_regex, struct octavo_error *err);

#endif
