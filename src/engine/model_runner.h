/* Executes a scheduled step: builds the flat batch, runs the model, samples. Owns the model's workspace, the KV bytes
 * and the logits. Engine thread only; the work inside is spread over the pool. */
#ifndef OCTAVO_ENGINE_MODEL_RUNNER_H
#define OCTAVO_ENGINE_MODEL_RUNNER_H

#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "model/model.h"

/* What one row of logits was for. */
struct runner_row {
    struct request *request;
    int64_t prompt_position;       /* >= 1: logprob of that prompt token; -1: an output token was sampled */
    int32_t token;                 /* the sampled or the prompt token; SAMPLER_NOT_FINITE: the logits were not */
    struct octavo_logprob logprob; /* of token, when asked for */
    struct octavo_logprob *top;    /* (num_top) from malloc, the receiver's to free; NULL when none */
    int32_t num_top;
};

struct model_runner;

/* Called for each row of a step in batch order, on the engine thread. */
typedef void runner_row_fn(void *arg, struct runner_row *row);

/* kv_dtypes (layers): the type of each layer's cache. profile: where steps add their times to, or NULL. */
int model_runner_new(const struct model *model, const enum dtype *kv_dtypes, int block_size, int64_t num_blocks,
                     int max_num_batched_tokens, const struct sampler *sampler, struct profile *profile,
                     struct model_runner **ret_runner, struct octavo_error *err);
void model_runner_free(struct model_runner *runner);
void model_runner_execute(struct model_runner *runner, const struct sched_output *out, runner_row_fn *fn, void *arg);
/* Bytes of everything but weights and KV that a runner of this size may come to use. */
size_t model_runner_workspace_bytes(const struct model_config *config, int max_num_batched_tokens, int num_workers);

#endif
