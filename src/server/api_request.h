/* The body of POST /v1/completions and /v1/chat/completions, parsed and checked field by field. Pure: knows neither
 * HTTP nor the engine, so that it can be fuzzed. Called on the thread of the HTTP request. */
#ifndef OCTAVO_SERVER_API_REQUEST_H
#define OCTAVO_SERVER_API_REQUEST_H

#include "base/err.h"
#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum api_kind { API_COMPLETIONS, API_CHAT };

/* Limits on what one request may ask for. Where vLLM has none, these are far above honest use. */
#define API_MAX_N 128
#define API_MAX_CHOICES 2048 /* prompts * n */
#define API_MAX_STOP 64
#define API_MAX_STOP_BYTES 1024
#define API_MAX_STOP_TOKEN_IDS 1024
#define API_MAX_LOGIT_BIAS 16384
#define API_MAX_ARGUMENTS_BYTES (2 << 20) /* JSON text of past tool calls, all together */
#define API_MAX_JSON_DEPTH 256
#define API_MAX_JSON_VALUES (4 << 20)
#define API_MAX_JSON_CONTAINERS (256 << 10)

/* What the server brings to a request: sampling defaults and the bounds to check against. */
struct api_defaults {
    const struct octavo_sampling_params *sampling; /* max_tokens: a cap on every request, or -1 */
    int32_t vocab_size;
    int max_logprobs; /* -1: the whole vocabulary */
    bool has_tokenizer;
};

struct api_request {
    enum api_kind kind;
    json_t *root;      /* owned; the pointers below point into it */
    const char *model; /* NULL when absent */
    const char *request_id;
    /* Arrays of sampling are owned by this struct. max_tokens is what the client asked for, -1 when it did not, in
     * which case default_max_tokens (or -1: the rest of the context) is meant. */
    struct octavo_sampling_params sampling;
    int64_t default_max_tokens;
    int64_t max_tokens_cap;         /* max_new_tokens of the checkpoint, or -1 */
    int64_t truncate_prompt_tokens; /* keep the last so many; 0: off; -1: as many as fit */
    int n;
    bool stream, include_usage, continuous_usage;
    bool echo;
    bool skip_special_tokens, include_stop_str_in_output, add_special_tokens;
    bool return_token_ids, return_tokens_as_token_ids;
    bool want_prompt_logprobs; /* the field, not what echo adds */
    size_t num_stop;
    const char **stop; /* (num_stop), owned array */
    size_t *stop_len;  /* (num_stop) bytes */
    /* completions */
    const json_t *prompt;
    size_t num_prompts;
    /* chat */
    const json_t *messages, *tools, *documents;
    json_t *kwargs; /* owned, or NULL */
    bool add_generation_prompt, continue_final_message;
};

/* Parses body into *ret, which the caller releases even after an error. EINVAL or EUNSUPPORTED, with param. */
int api_request_parse(enum api_kind kind, const char *body, size_t len, const struct api_defaults *defaults,
                      struct api_request *ret, struct octavo_error *err);
void api_request_release(struct api_request *r);

/* JSON of a client: bounded in depth, in values and in bytes by the caller. The root must be an object. */
int api_parse_json(const char *body, size_t len, json_t **ret_root, struct octavo_error *err);
/* The bounds on depth and values alone, for JSON text inside a string. err must not be NULL. */
int api_check_json_shape(const char *s, size_t len, struct octavo_error *err);
/* messages, tools, chat_template_kwargs and their switches, shared with /tokenize. */
int api_request_parse_chat(struct api_request *r, struct octavo_error *err);
/* The token ids of list (array of integers in 0..vocab_size-1) appended to *ids; what names it in messages. */
struct token_ids;
int api_token_ids(const json_t *list, const char *what, int32_t vocab_size, struct token_ids *ids,
                  struct octavo_error *err);

#endif
