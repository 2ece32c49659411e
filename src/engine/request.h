/* A request as the scheduler and the sampler see it: its tokens, parameters and place. It knows no threads and no
 * clients; engine.c wraps it. Owned by the engine thread from submission to its end. */
#ifndef OCTAVO_ENGINE_REQUEST_H
#define OCTAVO_ENGINE_REQUEST_H

#include "base/err.h"
#include "engine/block_hash.h"

#include <stdbool.h>
#include <stdint.h>

enum request_status {
    REQUEST_WAITING,
    REQUEST_RUNNING,
    REQUEST_PREEMPTED,
    /* finished, from here on */
    REQUEST_FINISHED_STOPPED,
    REQUEST_FINISHED_LENGTH,
    REQUEST_FINISHED_ABORTED,
    REQUEST_FINISHED_ERROR,
};

struct request {
    uint64_t id; /* order of arrival */
    enum request_status status;
    struct octavo_sampling_params sampling; /* pointers owned; max_tokens resolved; seed drawn */
    int32_t *token_ids;                     /* (max_len) prompt, then output */
    int64_t num_prompt_tokens, num_tokens;
    int64_t max_len;             /* prompt + max_tokens, at most max_model_len */
    int64_t num_computed_tokens; /* tokens whose KV is in the cache, or will be after the step just scheduled */
    int32_t *block_table;        /* (num_blocks); room for max_len */
    int64_t num_blocks;
    uint64_t kv_salt; /* what besides the tokens before it decides a token's KV; 0 normally. Blocks are shared only
                         between requests with the same salt */
    struct block_hash *block_hashes; /* (num_block_hashes) of full blocks; room for max_len */
    int64_t num_block_hashes;
    int64_t num_cached_blocks; /* full blocks offered to the prefix cache, or taken from it */
    int64_t num_cached_tokens; /* taken from the prefix cache when it was first admitted */
    int64_t num_preemptions;
    int64_t num_prompt_logprobs_done; /* prompt positions already reported: a preempted prompt runs twice */
    struct request *prev, *next;      /* in the scheduler's waiting or running list */
};

static inline bool request_finished(const struct request *r)
{
    return r->status > REQUEST_PREEMPTED;
}

/* Prompt logprobs need the logits of every prompt position, so their KV alone would not do. */
static inline bool request_reads_prefix_cache(const struct request *r)
{
    return r->sampling.prompt_logprobs == OCTAVO_LOGPROBS_NONE;
}

/* vLLM's neutral defaults. */
void sampling_params_init(struct octavo_sampling_params *p);
/* Checks ranges; err->param names the field at fault. */
int sampling_params_check(const struct octavo_sampling_params *p, int32_t vocab_size, int max_logprobs,
                          struct octavo_error *err);

/* Copies prompt and params. max_model_len bounds the output; block_size sizes the table. Fails when memory is refused.
 */
int request_init(struct request *r, const int32_t *prompt, int64_t num_prompt_tokens,
                 const struct octavo_sampling_params *params, int64_t max_model_len, int block_size,
                 struct octavo_error *err);
void request_release(struct request *r);

/* Appends an output token; the new status says whether that ended the request. eos: the model's stop tokens. */
enum request_status request_append(struct request *r, int32_t token, const int32_t *eos, size_t num_eos, bool *ret_eos);

#endif
