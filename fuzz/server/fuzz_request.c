/* Parses arbitrary bytes as the body of a completion and of a chat completion, with a tokenizer and without. */
#include "server/api_request.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the code behind the parser relies on. */
static void check(const struct api_request *r, const struct api_defaults *d)
{
    const struct octavo_sampling_params *s = &r->sampling;
    bool ok = r->n >= 1 && r->n <= API_MAX_N && s->temperature >= 0 && s->top_p > 0 && s->top_p <= 1 &&
              s->repetition_penalty > 0 && s->max_tokens >= -1 && s->min_tokens >= 0 && r->num_stop <= API_MAX_STOP &&
              s->num_logit_bias <= API_MAX_LOGIT_BIAS && (d->has_tokenizer || r->num_stop == 0);
    for (size_t i = 0; i < r->num_stop; i++)
        ok &= r->stop_len[i] > 0 && r->stop_len[i] <= API_MAX_STOP_BYTES;
    for (size_t i = 0; i < s->num_logit_bias; i++)
        ok &= s->logit_bias_ids[i] >= 0 && s->logit_bias_ids[i] < d->vocab_size && s->logit_bias[i] <= 100;
    if (r->kind == API_CHAT)
        for (size_t i = 0; i < json_array_size(r->messages); i++)
            ok &= json_is_string(json_object_get(json_array_get(r->messages, i), "role"));
    else
        ok &= r->prompt && r->num_prompts >= 1 && r->num_prompts * (size_t)r->n <= API_MAX_CHOICES;
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct octavo_sampling_params sampling;
    octavo_sampling_params_init(&sampling);
    for (int i = 0; i < 4; i++) {
        struct api_defaults defaults = {
            .sampling = &sampling,
            .vocab_size = 1000,
            .max_logprobs = i & 1 ? 20 : -1,
            .has_tokenizer = i & 1,
        };
        struct api_request request;
        struct octavo_error err = {0};
        int r =
            api_request_parse(i & 2 ? API_CHAT : API_COMPLETIONS, (const char *)data, size, &defaults, &request, &err);
        if (r == 0)
            check(&request, &defaults);
        else if (err.code != r || !err.msg[0])
            abort(); /* every refusal says why */
        api_request_release(&request);
    }
    return 0;
}
