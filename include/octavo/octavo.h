/* octavo: the library API. An engine loads one checkpoint and serves requests on its own thread; a caller submits
 * token ids and pulls events. All functions are safe to call from any thread unless a comment says otherwise.
 * Names follow vLLM (SamplingParams, request, logprobs); units and ranges stand beside each field. */
#ifndef OCTAVO_OCTAVO_H
#define OCTAVO_OCTAVO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define OCTAVO_API __attribute__((visibility("default")))
#else
#define OCTAVO_API
#endif

/* ---- errors ------------------------------------------------------------------------------------------------ */

/* Every fallible function returns 0 or one of these, and fills *err when err is not NULL. */
enum octavo_status {
    OCTAVO_OK = 0,
    OCTAVO_EINVAL = -1,       /* the caller's input is wrong: HTTP 400 */
    OCTAVO_EUNSUPPORTED = -2, /* well formed, but octavo does not do it */
    OCTAVO_ENOMEM = -3,       /* memory that a size asked for is not there */
    OCTAVO_EIO = -4,          /* a file cannot be read */
    OCTAVO_EBUSY = -5,        /* shutting down or overloaded: HTTP 503, try again */
    OCTAVO_EINTERNAL = -6,    /* a bug or a dead engine: HTTP 500 */
};

struct octavo_error {
    int code;       /* enum octavo_status */
    char param[40]; /* name of the field that is wrong, or "" */
    char msg[1024]; /* what, where, and what to do; one line, no newline */
};

/* ---- engine ------------------------------------------------------------------------------------------------ */

struct octavo_engine;
struct octavo_request;

struct octavo_engine_options {
    const char *model;             /* folder of a checkpoint */
    const char *load_format;       /* "auto" (safetensors) or "dummy" (random weights from config.json alone) */
    const char *quantization;      /* NULL or "none"; "w8a8": quantise a float checkpoint's linears while loading;
                                      "ascend", "compressed-tensors": what the checkpoint must be */
    const char *kv_cache_dtype;    /* "auto" (INT8 where there are C8 scales, else the checkpoint's), "bfloat16",
                                      "float16",    "float32", "int8" */
    const char *isa;               /* "auto" (OCTAVO_ISA in the environment, else the best), or a tier to stay
                                      at: "ref", "avx2", "avx512", "avx512vnni" */
    uint64_t seed;                 /* of dummy weights; a request without a seed draws its own */
    int64_t max_model_len;         /* tokens of one request, prompt and output; 0: what the checkpoint allows */
    int max_num_seqs;              /* requests that run at once; 0: 128 */
    int max_num_batched_tokens;    /* token budget of one step; 0: 2048 */
    int block_size;                /* tokens in a KV block, a multiple of 32; 0: 32 */
    int64_t kv_cache_memory_bytes; /* 0: at most 4 GiB, less when max_num_seqs full requests need less */
    bool disable_prefix_caching;   /* compute every prompt from its beginning; the answers do not change */
    int num_threads;               /* compute workers; 0: one per usable core */
    bool profile;                  /* measure where the time goes: octavo_engine_profile */
    int max_logprobs;              /* most logprobs a request may ask for; -1: the whole vocabulary */
    int32_t tokenizer_vocab_size;  /* ids from here on pad the embedding and are never sampled; 0: none do */
    /* Called during octavo_engine_open on the calling thread; done and total in bytes. May be NULL. */
    void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
    void *progress_arg;
};

/* Sampling of one request; ranges as vLLM checks them. */
struct octavo_sampling_params {
    float temperature;        /* >= 0; below 1e-5 is greedy */
    float top_p;              /* (0, 1] */
    int32_t top_k;            /* 0 or -1: off; else >= 1 */
    float min_p;              /* [0, 1] */
    float presence_penalty;   /* [-2, 2], over output tokens */
    float frequency_penalty;  /* [-2, 2], over output tokens */
    float repetition_penalty; /* (0, 100], over prompt and output tokens; 1: off */
    bool seeded;              /* seed below is set; otherwise each request draws its own */
    int64_t seed;
    int64_t max_tokens; /* output tokens; -1: the rest of max_model_len; 0: only with prompt_logprobs (echo) */
    int64_t min_tokens; /* no stop token is sampled before this many */
    bool ignore_eos;
    const int32_t *stop_token_ids; /* (num_stop_token_ids), copied */
    size_t num_stop_token_ids;
    int32_t logprobs;        /* top logprobs for each output token besides its own; -1: whole vocabulary; -2: none */
    int32_t prompt_logprobs; /* the same for prompt tokens */
    const int32_t *logit_bias_ids; /* (num_logit_bias), copied */
    const float *logit_bias;       /* (num_logit_bias), clamped to [-100, 100] */
    size_t num_logit_bias;
};
#define OCTAVO_LOGPROBS_NONE (-2)
#define OCTAVO_LOGPROBS_ALL (-1)

/* What an open engine is. Pointers live as long as the engine. */
struct octavo_engine_info {
    const char *model;          /* folder */
    const char *architecture;   /* "Qwen3ForCausalLM" */
    const char *isa;            /* tier in use */
    const char *kv_cache_dtype; /* "bfloat16", ... */
    int32_t vocab_size;         /* rows of the logits */
    int64_t max_model_len;      /* tokens */
    int max_num_seqs;
    int max_num_batched_tokens;
    int max_logprobs;
    int num_threads;
    int block_size; /* tokens */
    int64_t num_blocks;
    int64_t kv_cache_bytes;
    int64_t kv_bytes_per_token;
    int64_t weights_bytes; /* packed, in memory */
    int64_t num_parameters;
    double load_seconds;          /* of which: */
    double open_seconds;          /* reading and checking the checkpoint's files, */
    double pack_seconds;          /* packing weights */
    const int32_t *eos_token_ids; /* (num_eos_token_ids): union of generation_config.json and config.json */
    size_t num_eos_token_ids;
    /* Sampling defaults: generation_config.json over vLLM's neutral ones; max_tokens is its max_new_tokens or -1. */
    struct octavo_sampling_params default_sampling;
};

/* Counters since open, and gauges of this moment. */
struct octavo_engine_stats {
    int64_t num_requests_running;
    int64_t num_requests_waiting;
    double kv_cache_usage;  /* 0..1 */
    uint64_t prompt_tokens; /* computed, not those taken from the prefix cache */
    uint64_t generation_tokens;
    uint64_t num_preemptions;
    uint64_t prefix_cache_queries; /* tokens of admitted requests that were looked up in the prefix cache */
    uint64_t prefix_cache_hits;    /* tokens among them that were found there */
    uint64_t requests_finished;
    uint64_t steps;
};

OCTAVO_API const char *octavo_version(void);

OCTAVO_API void octavo_engine_options_init(struct octavo_engine_options *opts);
/* Loads the checkpoint (blocking, seconds) and starts the engine thread. */
OCTAVO_API int octavo_engine_open(const struct octavo_engine_options *opts, struct octavo_engine **ret_engine,
                                  struct octavo_error *err);
/* Aborts what still runs and frees the engine. Every request must have been freed. NULL is fine. */
OCTAVO_API void octavo_engine_close(struct octavo_engine *engine);
OCTAVO_API const struct octavo_engine_info *octavo_engine_info(const struct octavo_engine *engine);
/* Where the time of all steps since open went, by phase of a step, with the profile option set. What an ideal machine
 * would need is in macs and bytes. */
struct octavo_profile_phase {
    const char *name; /* "attention"; lives for ever */
    double seconds;   /* of the engine's thread, which computes as the others do */
    double macs;      /* multiply-adds, of all threads */
    double bytes;     /* of weights and KV cache read, of all threads */
};
/* Fills at most max phases, in the order of a step, and returns how many there are; 0 without the option. */
OCTAVO_API size_t octavo_engine_profile(struct octavo_engine *engine, struct octavo_profile_phase *ret_phases,
                                        size_t max);
OCTAVO_API void octavo_engine_get_stats(struct octavo_engine *engine, struct octavo_engine_stats *ret_stats);

/* ---- requests ---------------------------------------------------------------------------------------------- */

OCTAVO_API void octavo_sampling_params_init(struct octavo_sampling_params *params); /* vLLM's neutral defaults */

struct octavo_request_params {
    const int32_t *prompt_token_ids; /* (num_prompt_tokens) in 0..vocab_size-1, copied */
    size_t num_prompt_tokens;        /* >= 1 */
    struct octavo_sampling_params sampling;
    /* Called on the engine thread after events were queued; must return at once and call nothing of octavo. The
     * last call returns before octavo_request_free does. May be NULL: octavo_request_next can wait by itself. */
    void (*notify)(void *arg);
    void *notify_arg;
};

enum octavo_event_type {
    OCTAVO_EVENT_PROMPT_TOKEN, /* prompt_logprobs: one for each prompt position from 1 on, in order */
    OCTAVO_EVENT_TOKEN,        /* one output token; the last one carries finish_reason */
    OCTAVO_EVENT_FINISHED,     /* the request ended without a further token (abort, error, max_tokens 0) */
};

enum octavo_finish_reason {
    OCTAVO_FINISH_NONE = 0,
    OCTAVO_FINISH_STOP,   /* an EOS or stop token: stop_token_id says which, and it is this event's token */
    OCTAVO_FINISH_LENGTH, /* max_tokens or max_model_len */
    OCTAVO_FINISH_ABORT,  /* octavo_request_abort or octavo_engine_close */
    OCTAVO_FINISH_ERROR,
};

/* One logprob of log_softmax(raw logits), before penalties and temperature. rank 1 is the likeliest token. */
struct octavo_logprob {
    int32_t token_id;
    float logprob;
    int32_t rank;
};

struct octavo_event {
    enum octavo_event_type type;
    enum octavo_finish_reason finish_reason;
    bool eos;                         /* FINISH_STOP by the model's EOS rather than the request's stop_token_ids */
    int32_t token_id;                 /* TOKEN, PROMPT_TOKEN */
    int32_t position;                 /* PROMPT_TOKEN: index in the prompt; TOKEN: index in the output */
    struct octavo_logprob logprob;    /* of token_id, when logprobs were asked for */
    const struct octavo_logprob *top; /* (num_top), best first; valid until the next call for this request */
    size_t num_top;
    /* TOKEN, FINISHED: prompt tokens whose KV came from the prefix cache when the request was first admitted */
    int32_t num_cached_tokens;
};

/* Checks everything, copies params and queues the request. Fails with EINVAL (param set) or EBUSY. */
OCTAVO_API int octavo_submit(struct octavo_engine *engine, const struct octavo_request_params *params,
                             struct octavo_request **ret_request, struct octavo_error *err);
/* Takes the next event. 1: *ret_event is filled; 0: none within timeout_ms (0: do not wait, -1: wait for ever) or the
 * request has finished and all its events were taken. One thread at a time for one request. */
OCTAVO_API int octavo_request_next(struct octavo_request *request, struct octavo_event *ret_event, int timeout_ms);
/* Asks the engine to stop it, wherever it is (queued, prefilling, decoding). Returns at once; idempotent. */
OCTAVO_API void octavo_request_abort(struct octavo_request *request);
/* Aborts when it still runs, then frees. After return no notify call comes. NULL is fine. */
OCTAVO_API void octavo_request_free(struct octavo_request *request);

/* ---- text -------------------------------------------------------------------------------------------------- */

/* The engine speaks token ids; this is the way from and to text, as the server goes it. */
struct octavo_tokenizer;
struct octavo_detokenizer;

/* Reads tokenizer.json, tokenizer_config.json and the chat template, if there is one, of a checkpoint's folder. */
OCTAVO_API int octavo_tokenizer_open(const char *dir, struct octavo_tokenizer **ret_tok, struct octavo_error *err);
OCTAVO_API void octavo_tokenizer_close(struct octavo_tokenizer *tok); /* NULL is fine */
/* One past the highest id: what octavo_engine_options.tokenizer_vocab_size wants. */
OCTAVO_API int32_t octavo_tokenizer_vocab_size(const struct octavo_tokenizer *tok);
/* The ids of text (len bytes of UTF-8); add_special puts what the tokenizer's post-processor adds (bos) around them.
 * *ret_ids is the caller's, to be given to octavo_free. */
OCTAVO_API int octavo_tokenize(const struct octavo_tokenizer *tok, const char *text, size_t len, bool add_special,
                               int32_t **ret_ids, size_t *ret_num_ids, struct octavo_error *err);
/* The ids of a conversation: messages_json is an array of {"role", "content"} objects, rendered with the chat template
 * up to where the assistant's answer begins. */
OCTAVO_API int octavo_tokenize_chat(const struct octavo_tokenizer *tok, const char *messages_json, size_t len,
                                    int32_t **ret_ids, size_t *ret_num_ids, struct octavo_error *err);
OCTAVO_API void octavo_free(void *p); /* memory that a function above returned; NULL is fine */

/* A stream of ids to a stream of text, special tokens left out; never half a character. One thread at a time. */
OCTAVO_API struct octavo_detokenizer *octavo_detokenizer_new(const struct octavo_tokenizer *tok);
OCTAVO_API void octavo_detokenizer_free(struct octavo_detokenizer *d); /* NULL is fine */
/* Adds a token; *ret_text (*ret_len bytes, NUL after them) is what can now be shown, valid until the next call. */
OCTAVO_API void octavo_detokenizer_push(struct octavo_detokenizer *d, int32_t token_id, const char **ret_text,
                                        size_t *ret_len);
/* The end: what was held back. */
OCTAVO_API void octavo_detokenizer_finish(struct octavo_detokenizer *d, const char **ret_text, size_t *ret_len);

#ifdef __cplusplus
}
#endif
#endif
