/* Requests: see request.h. */
#include "engine/request.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void sampling_params_init(struct octavo_sampling_params *p)
{
    *p = (struct octavo_sampling_params){
        .temperature = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
        .max_tokens = -1,
        .logprobs = OCTAVO_LOGPROBS_NONE,
        .prompt_logprobs = OCTAVO_LOGPROBS_NONE,
    };
}

static int out_of_range(struct octavo_error *err, const char *param, double value, const char *range)
{
    return error_set_param(err, OCTAVO_EINVAL, param, "%s must be %s, got %g", param, range, value);
}

static int check_logprobs(const char *param, int32_t n, int max_logprobs, struct octavo_error *err)
{
    if (n < OCTAVO_LOGPROBS_NONE)
        return out_of_range(err, param, n, "non-negative, or -1 for the whole vocabulary");
    if (max_logprobs >= 0 && (n > max_logprobs || n == OCTAVO_LOGPROBS_ALL))
        return error_set_param(
            err, OCTAVO_EINVAL, param, "%s asks for %s, but at most %d are allowed; see --max-logprobs", param,
            n == OCTAVO_LOGPROBS_ALL ? "the whole vocabulary" : "more logprobs than allowed", max_logprobs);
    return 0;
}

int sampling_params_check(const struct octavo_sampling_params *p, int32_t vocab_size, int max_logprobs,
                          struct octavo_error *err)
{
    /* written so that a NaN fails every test */
    if (!(p->temperature >= 0 && p->temperature <= 1e6f))
        return out_of_range(err, "temperature", (double)p->temperature, "finite and not negative");
    if (!(p->top_p > 0 && p->top_p <= 1))
        return out_of_range(err, "top_p", (double)p->top_p, "in (0, 1]");
    if (p->top_k < -1)
        return out_of_range(err, "top_k", p->top_k, "-1 or 0 (off), or at least 1");
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return out_of_range(err, "min_p", (double)p->min_p, "in [0, 1]");
    if (!(p->presence_penalty >= -2 && p->presence_penalty <= 2))
        return out_of_range(err, "presence_penalty", (double)p->presence_penalty, "in [-2, 2]");
    if (!(p->frequency_penalty >= -2 && p->frequency_penalty <= 2))
        return out_of_range(err, "frequency_penalty", (double)p->frequency_penalty, "in [-2, 2]");
    if (!(p->repetition_penalty > 0 && p->repetition_penalty <= 100))
        return out_of_range(err, "repetition_penalty", (double)p->repetition_penalty, "in (0, 100]");
    if (p->max_tokens < -1)
        return out_of_range(err, "max_tokens", (double)p->max_tokens, "at least 1");
    if (p->max_tokens == 0 && p->prompt_logprobs == OCTAVO_LOGPROBS_NONE)
        return error_set_param(err, OCTAVO_EINVAL, "max_tokens", "max_tokens must be at least 1, got 0");
    if (p->min_tokens < 0 || (p->max_tokens >= 0 && p->min_tokens > p->max_tokens))
        return out_of_range(err, "min_tokens", (double)p->min_tokens, "between 0 and max_tokens");
    if (p->num_stop_token_ids > 4096)
        return out_of_range(err, "stop_token_ids", (double)p->num_stop_token_ids, "a list of at most 4096 ids");
    for (size_t i = 0; i < p->num_stop_token_ids; i++)
        if (p->stop_token_ids[i] < 0)
            return out_of_range(err, "stop_token_ids", p->stop_token_ids[i], "a list of token ids");
    if (p->num_logit_bias > 4096)
        return out_of_range(err, "logit_bias", (double)p->num_logit_bias, "at most 4096 entries");
    for (size_t i = 0; i < p->num_logit_bias; i++) {
        if (p->logit_bias_ids[i] < 0 || p->logit_bias_ids[i] >= vocab_size)
            return error_set_param(err, OCTAVO_EINVAL, "logit_bias", "logit_bias: token id %d is not in [0, %d)",
                                   (int)p->logit_bias_ids[i], (int)vocab_size);
        if (isnan(p->logit_bias[i]))
            return error_set_param(err, OCTAVO_EINVAL, "logit_bias", "logit_bias of token %d is not a number",
                                   (int)p->logit_bias_ids[i]);
    }
    int r = check_logprobs("logprobs", p->logprobs, max_logprobs, err);
    return r < 0 ? r : check_logprobs("prompt_logprobs", p->prompt_logprobs, max_logprobs, err);
}

static void *copy(const void *p, size_t n, size_t elem)
{
    void *c = mem_alloc(n * elem);
    if (n)
        memcpy(c, p, n * elem);
    return c;
}

int request_init(struct request *r, const int32_t *prompt, int64_t num_prompt_tokens,
                 const struct octavo_sampling_params *params, int64_t max_model_len, int block_size,
                 struct octavo_error *err)
{
    *r = (struct request){.sampling = *params, .num_prompt_tokens = num_prompt_tokens, .num_tokens = num_prompt_tokens};
    struct octavo_sampling_params *s = &r->sampling;
    s->stop_token_ids = copy(params->stop_token_ids, params->num_stop_token_ids, sizeof(int32_t));
    s->logit_bias_ids = copy(params->logit_bias_ids, params->num_logit_bias, sizeof(int32_t));
    s->logit_bias = copy(params->logit_bias, params->num_logit_bias, sizeof(float));
    int64_t room = max_model_len - num_prompt_tokens;
    if (s->max_tokens < 0 || s->max_tokens > room)
        s->max_tokens = room;
    r->max_len = num_prompt_tokens + s->max_tokens;
    r->token_ids = mem_try_array((size_t)r->max_len, sizeof(int32_t));
    r->block_table = mem_try_array((size_t)((r->max_len + block_size - 1) / block_size), sizeof(int32_t));
    r->block_hashes = mem_try_array((size_t)(r->max_len / block_size), sizeof(*r->block_hashes));
    if (!r->token_ids || !r->block_table || !r->block_hashes) {
        request_release(r);
        return error_set(err, OCTAVO_ENOMEM, "no memory for a request of %lld tokens", (long long)r->max_len);
    }
    memcpy(r->token_ids, prompt, (size_t)num_prompt_tokens * sizeof(int32_t));
    return 0;
}

void request_release(struct request *r)
{
    free((void *)(uintptr_t)r->sampling.stop_token_ids);
    free((void *)(uintptr_t)r->sampling.logit_bias_ids);
    free((void *)(uintptr_t)r->sampling.logit_bias);
    free(r->token_ids);
    free(r->block_table);
    free(r->block_hashes);
    r->token_ids = NULL;
    r->block_table = NULL;
    r->block_hashes = NULL;
}

static bool contains(const int32_t *ids, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

enum request_status request_append(struct request *r, int32_t token, const int32_t *eos, size_t num_eos, bool *ret_eos)
{
    const struct octavo_sampling_params *s = &r->sampling;
    r->token_ids[r->num_tokens++] = token;
    int64_t num_output = r->num_tokens - r->num_prompt_tokens;
    *ret_eos = false;
    if (num_output > s->min_tokens || s->min_tokens == 0) {
        if (!s->ignore_eos && contains(eos, num_eos, token)) {
            *ret_eos = true;
            r->status = REQUEST_FINISHED_STOPPED;
        } else if (contains(s->stop_token_ids, s->num_stop_token_ids, token)) {
            r->status = REQUEST_FINISHED_STOPPED;
        }
    }
    if (r->status == REQUEST_RUNNING && r->num_tokens >= r->max_len)
        r->status = REQUEST_FINISHED_LENGTH;
    return r->status;
}
