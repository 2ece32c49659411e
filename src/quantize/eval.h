/* How good a model is on a text, and how far it is from another: perplexity, and per position the Kullback-Leibler
 * divergence from a reference with other weights or another KV cache. Called by `octavo eval`, on one thread; the work
 * spreads over a pool of its own. Numbers depend on neither threads nor batch.
 *
 * A text is documents of tokens. Windows of at most `window` tokens begin every `stride` tokens of a document; each is
 * one sequence of its own, from position 0 and an empty cache. Token t of a window is predicted from tokens 0..t-1 of
 * it, so its first token is not. With a stride below the window, a token that two windows hold counts in the first of
 * them; windows end with the one that reaches the document's end. */
#ifndef OCTAVO_QUANTIZE_EVAL_H
#define OCTAVO_QUANTIZE_EVAL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define EVAL_MAX_WINDOW (1 << 20)
#define EVAL_MAX_BATCH 4096

struct eval_side_options {
    const char *model;          /* folder of a checkpoint */
    const char *kv_cache_dtype; /* NULL, "auto", "bfloat16", "float16", "float32", "int8": as engine options have it */
    const char *quantization;   /* NULL, "none" or "w8a8": quantise float linears while loading */
};

struct eval_options {
    struct eval_side_options model;
    struct eval_side_options against; /* .model NULL: perplexity alone */
    const char *isa;                  /* NULL, "auto" or a tier */
    int num_threads;                  /* 0: one per usable core */
    int window;                       /* tokens, 2.. */
    int stride;                       /* tokens, 1..window; 0: window */
    int batch;                        /* windows in one pass; 0: what makes about 2,048 tokens */
    /* Of loading, in bytes of one side, and of evaluating, in predicted tokens. May be NULL. */
    void (*load_progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};

/* What was opened on one side. Strings live as long as the eval. */
struct eval_side_info {
    const char *architecture;
    const char *weights;        /* "BF16", "W8A8_DYNAMIC", "mixed", ... : of the linears below the head */
    const char *kv_cache_dtype; /* "bfloat16", ..., "mixed" */
    int64_t weights_bytes;      /* packed, in memory */
    int64_t kv_bytes_per_token;
    int32_t vocab_size;
};

struct eval_document {
    const int32_t *ids; /* (len) */
    int64_t len;
};

struct eval_window {
    int64_t document, begin, end; /* tokens [begin, end) of documents[document] */
    int64_t first_predicted;      /* of the document: begin < first_predicted <= end */
    int64_t first_position;       /* where its predicted tokens begin in the arrays of eval_result */
};

/* Everything in nats; released with eval_result_release. */
struct eval_result {
    struct eval_window *windows; /* (num_windows) */
    int64_t num_windows;
    int64_t num_tokens; /* in the documents */
    int64_t num_positions;
    double *nll; /* (num_positions) -log p(token | the window before it) */
    /* Only with a reference, else NULL: */
    double *against_nll; /* (num_positions) */
    double *kld;         /* (num_positions) KL(reference || model) over the whole vocabulary, >= 0 */
    uint8_t *same_top;   /* (num_positions) 1: both think the same token likeliest */
    double mean_nll, perplexity, against_mean_nll, against_perplexity;
    double perplexity_ratio;                        /* perplexity / against_perplexity */
    double kld_mean, kld_median, kld_p999, kld_max; /* percentiles interpolated linearly, as numpy does */
    double top1_agreement;                          /* 0..1 */
};

struct eval;

/* Loads one or two models (one, where both sides have the same folder and weights). Refuses sides whose logits have
 * different sizes. The options may go when it returns. */
int eval_open(const struct eval_options *opts, struct eval **ret_eval, struct octavo_error *err);
void eval_close(struct eval *eval); /* NULL is fine */
/* side 0: the model, 1: the reference */
const struct eval_side_info *eval_side_info(const struct eval *eval, int side);
/* Runs the documents. EINVAL when an id is not in the vocabulary or nothing is predicted; EINTERNAL when a model's
 * logits are not finite. */
int eval_run(struct eval *eval, const struct eval_document *documents, size_t num_documents,
             struct eval_result *ret_result, struct octavo_error *err);
void eval_result_release(struct eval_result *result);

#endif
