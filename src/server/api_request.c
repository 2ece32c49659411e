/* Fields of a completion request: see api_request.h. What is not said here about a field is as vLLM has it. */
#include "server/api_request.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/chat_messages.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "request"

/* ---- fields octavo does not have ---- */

static bool is_text_format(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    return type && !strcmp(type, "text");
}
static bool is_one(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) == 1;
}
static bool is_zero(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) == 0;
}
static bool is_false(const json_t *v)
{
    return json_is_false(v);
}
static bool is_empty(const json_t *v)
{
    return json_is_array(v) ? json_array_size(v) == 0 : json_is_string(v) ? json_string_length(v) == 0 : false;
}
static bool is_text_only(const json_t *v)
{
    const char *only = json_string_value(json_array_get(v, 0));
    return json_array_size(v) == 1 && only && !strcmp(only, "text");
}
static bool is_never(const json_t *v)
{
    (void)v;
    return false;
}

/* Silence would be a wrong answer, so each is refused by name unless its value asks for nothing. */
static const struct unsupported_field {
    const char *name;
    bool (*harmless)(const json_t *v);
    const char *advice;
} unsupported_fields[] = {
    {"best_of", is_one, "use n"},
    {"suffix", is_empty, "fill-in-the-middle is not supported"},
    {"response_format", is_text_format, "only {\"type\": \"text\"} is supported"},
    {"structured_outputs", is_never, "structured output is not supported yet"},
    {"guided_json", is_never, "structured output is not supported yet"},
    {"guided_regex", is_never, "structured output is not supported yet"},
    {"guided_choice", is_never, "structured output is not supported yet"},
    {"guided_grammar", is_never, "structured output is not supported yet"},
    {"guided_decoding_backend", is_never, "structured output is not supported yet"},
    {"guided_whitespace_pattern", is_never, "structured output is not supported yet"},
    {"structural_tag", is_never, "structured output is not supported yet"},
    {"use_beam_search", is_false, "beam search is not supported"},
    {"length_penalty", is_one, "beam search is not supported"},
    {"bad_words", is_empty, "use logit_bias"},
    {"allowed_token_ids", is_never, "use logit_bias"},
    {"logprob_token_ids", is_never, "use logprobs"},
    {"prompt_embeds", is_never, "send text or token ids"},
    {"priority", is_zero, "requests run first come, first served"},
    {"chat_template", is_never, "the server's operator chooses it with --chat-template"},
    {"functions", is_empty, "use tools"},
    {"function_call", is_never, "use tools"},
    {"modalities", is_text_only, "only text is supported"},
    {"audio", is_never, "only text is supported"},
    {"prediction", is_never, "predicted output is not supported"},
    {"web_search_options", is_never, "there is no web search"},
    {"thinking_token_budget", is_never, "a thinking budget is not supported yet"},
    {"logits_processors", is_empty, "logits processors are not supported"},
    {"repetition_detection", is_never, "use repetition_penalty"},
    {"kv_transfer_params", is_never, "disaggregated serving is not supported yet"},
};

/* Fields that are read somewhere below, or that need nothing to be done. The rest is logged. */
static const char *const known_fields[] = {
    "model",
    "prompt",
    "messages",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "n",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "echo",
    "logit_bias",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "add_special_tokens",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "stream",
    "stream_options",
    "user",
    "request_id",
    "truncate_prompt_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "reasoning_effort",
    "include_reasoning",
    "store",
    "metadata",
    "service_tier",
    "cache_salt",
    "safety_identifier",
    "prompt_cache_key",
};

static int check_unsupported(const json_t *root, struct octavo_error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(unsupported_fields); i++) {
        const struct unsupported_field *f = &unsupported_fields[i];
        const json_t *v = json_object_get(root, f->name);
        if (v && !json_is_null(v) && !f->harmless(v))
            return error_set_param(err, OCTAVO_EUNSUPPORTED, f->name, "%s is not supported here: %s", f->name,
                                   f->advice);
    }
    return 0;
}

static void log_unknown(const json_t *root)
{
    struct buf names = {0};
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)root, key, value) {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(known_fields) && !known; i++)
            known = !strcmp(known_fields[i], key);
        for (size_t i = 0; i < ARRAY_LEN(unsupported_fields) && !known; i++)
            known = !strcmp(unsupported_fields[i].name, key);
        if (!known && names.len < 200)
            buf_printf(&names, "%s%.40s", names.len ? ", " : "", key);
    }
    if (names.len)
        log_debug("request fields without effect: %s", names.data);
    buf_release(&names);
}

/* ---- small readers ---- */

/* A string without NUL: names, never prompts. */
static int get_name(const json_t *root, const char *key, const char **ret, struct octavo_error *err)
{
    int r = json_get_string(root, WHAT, key, ret, err);
    const json_t *v = json_object_get(root, key);
    if (r == 0 && json_is_string(v) && strlen(json_string_value(v)) != json_string_length(v))
        return error_set_param(err, OCTAVO_EINVAL, key, "%s holds a NUL character", key);
    return r;
}

static const struct number_field {
    const char *name;
    size_t offset; /* of a float in octavo_sampling_params */
    double lo, hi;
    bool above_lo; /* lo itself is not allowed */
} number_fields[] = {
    {"temperature", offsetof(struct octavo_sampling_params, temperature), 0, 2, false},
    {"top_p", offsetof(struct octavo_sampling_params, top_p), 0, 1, true},
    {"min_p", offsetof(struct octavo_sampling_params, min_p), 0, 1, false},
    {"presence_penalty", offsetof(struct octavo_sampling_params, presence_penalty), -2, 2, false},
    {"frequency_penalty", offsetof(struct octavo_sampling_params, frequency_penalty), -2, 2, false},
    {"repetition_penalty", offsetof(struct octavo_sampling_params, repetition_penalty), 0, 100, true},
};

static int parse_numbers(struct api_request *r, struct octavo_error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(number_fields); i++) {
        const struct number_field *f = &number_fields[i];
        float *at = (float *)((char *)&r->sampling + f->offset);
        double d = (double)*at;
        int e = json_get_double(r->root, WHAT, f->name, &d, err);
        if (e < 0)
            return e;
        if (!(d >= f->lo && d <= f->hi) || (f->above_lo && (float)d <= (float)f->lo))
            return error_set_param(err, OCTAVO_EINVAL, f->name, "%s must be in %c%g, %g], got %g", f->name,
                                   f->above_lo ? '(' : '[', f->lo, f->hi, d);
        *at = (float)d;
    }
    int64_t top_k = r->sampling.top_k;
    if (json_get_int(r->root, WHAT, "top_k", -1, INT32_MAX, &top_k, err) < 0)
        return err->code;
    r->sampling.top_k = (int32_t)top_k;

    const json_t *seed = json_object_get(r->root, "seed");
    if (seed && !json_is_null(seed)) {
        if (json_get_int(r->root, WHAT, "seed", INT64_MIN, INT64_MAX, &r->sampling.seed, err) < 0)
            return err->code;
        r->sampling.seeded = r->sampling.seed != -1; /* vLLM's way to say none */
    }
    return 0;
}

static int parse_switches(struct api_request *r, struct octavo_error *err)
{
    bool unused = false;
    const struct {
        const char *name;
        bool *at;
    } switches[] = {
        {"stream", &r->stream},
        {"echo", &r->echo},
        {"ignore_eos", &r->sampling.ignore_eos},
        {"skip_special_tokens", &r->skip_special_tokens},
        {"include_stop_str_in_output", &r->include_stop_str_in_output},
        {"add_special_tokens", &r->add_special_tokens},
        {"return_token_ids", &r->return_token_ids},
        {"return_tokens_as_token_ids", &r->return_tokens_as_token_ids},
        {"spaces_between_special_tokens", &unused}, /* byte-level tokenizers put none */
        {"parallel_tool_calls", &unused},
    };
    for (size_t i = 0; i < ARRAY_LEN(switches); i++) {
        int e = json_get_bool(r->root, WHAT, switches[i].name, switches[i].at, err);
        if (e < 0)
            return e;
    }
    const json_t *opts = json_object_get(r->root, "stream_options");
    if (!opts || json_is_null(opts))
        return 0;
    if (!json_is_object(opts))
        return error_set_param(err, OCTAVO_EINVAL, "stream_options", "stream_options must be an object");
    if (!r->stream)
        return error_set_param(err, OCTAVO_EINVAL, "stream_options",
                               "stream_options can only be set together with stream: true");
    int e = json_get_bool(opts, "stream_options", "include_usage", &r->include_usage, err);
    if (e == 0)
        e = json_get_bool(opts, "stream_options", "continuous_usage_stats", &r->continuous_usage, err);
    r->continuous_usage = r->continuous_usage && r->include_usage;
    return e;
}

static int parse_lengths(struct api_request *r, struct octavo_error *err)
{
    int64_t max_tokens = -1, n = 1;
    int e = json_get_int(r->root, WHAT, "max_tokens", 0, INT32_MAX, &max_tokens, err);
    if (e == 0 && r->kind == API_CHAT)
        e = json_get_int(r->root, WHAT, "max_completion_tokens", 0, INT32_MAX, &max_tokens, err);
    if (e == 0)
        e = json_get_int(r->root, WHAT, "min_tokens", 0, INT32_MAX, &r->sampling.min_tokens, err);
    if (e == 0)
        e = json_get_int(r->root, WHAT, "n", 1, API_MAX_N, &n, err);
    if (e == 0)
        e = json_get_int(r->root, WHAT, "truncate_prompt_tokens", -1, INT32_MAX, &r->truncate_prompt_tokens, err);
    if (e < 0)
        return e;
    r->n = (int)n;
    r->sampling.max_tokens = max_tokens;
    if (max_tokens >= 0 && r->sampling.min_tokens > max_tokens)
        return error_set_param(err, OCTAVO_EINVAL, "min_tokens", "min_tokens must be at most max_tokens=%lld, got %lld",
                               (long long)max_tokens, (long long)r->sampling.min_tokens);
    if (r->n > 1 && r->sampling.temperature < 1e-5f)
        return error_set_param(err, OCTAVO_EINVAL, "n",
                               "n must be 1 when using greedy sampling, got %d: all answers would be the same", r->n);
    return 0;
}

/* ---- logprobs ---- */

static int check_logprobs(int64_t n, const char *key, const char *which, const struct api_defaults *d, int32_t *ret,
                          struct octavo_error *err)
{
    int64_t max = d->max_logprobs < 0 ? d->vocab_size : d->max_logprobs;
    if (n == -1) {
        if (max < d->vocab_size)
            return error_set_param(
                err, OCTAVO_EINVAL, key,
                "%s=-1 asks for all %d tokens of the vocabulary, more than the %d that --max-logprobs "
                "allows",
                key, d->vocab_size, d->max_logprobs);
        *ret = OCTAVO_LOGPROBS_ALL;
        return 0;
    }
    if (n > max)
        return error_set_param(err, OCTAVO_EINVAL, key,
                               "Requested %s logprobs of %lld, which is greater than max allowed: %lld", which,
                               (long long)n, (long long)max);
    *ret = (int32_t)n;
    return 0;
}

static int parse_logprobs(struct api_request *r, const struct api_defaults *d, struct octavo_error *err)
{
    int64_t top = OCTAVO_LOGPROBS_NONE, prompt = OCTAVO_LOGPROBS_NONE;
    const char *key = "logprobs";
    r->sampling.logprobs = r->sampling.prompt_logprobs = OCTAVO_LOGPROBS_NONE;
    int e;
    if (r->kind == API_CHAT) {
        bool wanted = false;
        key = "top_logprobs";
        if ((e = json_get_bool(r->root, WHAT, "logprobs", &wanted, err)) < 0 ||
            (e = json_get_int(r->root, WHAT, key, -1, INT32_MAX, &top, err)) < 0)
            return e;
        if (!wanted && (top > 0 || top == -1))
            return error_set_param(err, OCTAVO_EINVAL, key, "when using top_logprobs, logprobs must be set to true");
        top = !wanted ? OCTAVO_LOGPROBS_NONE : top == OCTAVO_LOGPROBS_NONE ? 0 : top;
    } else if ((e = json_get_int(r->root, WHAT, key, -1, INT32_MAX, &top, err)) < 0) {
        return e;
    }
    if (top != OCTAVO_LOGPROBS_NONE && (e = check_logprobs(top, key, "sample", d, &r->sampling.logprobs, err)) < 0)
        return e;
    if ((e = json_get_int(r->root, WHAT, "prompt_logprobs", -1, INT32_MAX, &prompt, err)) < 0)
        return e;
    if (prompt != OCTAVO_LOGPROBS_NONE) {
        if (r->stream)
            return error_set_param(err, OCTAVO_EINVAL, "prompt_logprobs",
                                   "prompt_logprobs are not available when stream is true");
        r->want_prompt_logprobs = true;
        return check_logprobs(prompt, "prompt_logprobs", "prompt", d, &r->sampling.prompt_logprobs, err);
    }
    if (r->echo && r->kind == API_COMPLETIONS)
        r->sampling.prompt_logprobs = r->sampling.logprobs;
    return 0;
}

/* ---- stops and biases ---- */

static int add_stop(struct api_request *r, const json_t *v, struct octavo_error *err)
{
    size_t len = json_string_length(v);
    if (!json_is_string(v))
        return error_set_param(err, OCTAVO_EINVAL, "stop", "stop must be a string or a list of strings");
    if (len == 0)
        return error_set_param(err, OCTAVO_EINVAL, "stop", "stop cannot contain an empty string");
    if (len > API_MAX_STOP_BYTES)
        return error_set_param(err, OCTAVO_EINVAL, "stop", "a stop string may be at most %d bytes long, got %zu",
                               API_MAX_STOP_BYTES, len);
    r->stop[r->num_stop] = json_string_value(v);
    r->stop_len[r->num_stop++] = len;
    return 0;
}

static int parse_stop(struct api_request *r, const struct api_defaults *d, struct octavo_error *err)
{
    const json_t *v = json_object_get(r->root, "stop");
    if (!v || json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0))
        return 0;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > API_MAX_STOP)
        return error_set_param(err, OCTAVO_EINVAL, "stop", "at most %d stop strings are allowed, got %zu", API_MAX_STOP,
                               n);
    if (!d->has_tokenizer)
        return error_set_param(err, OCTAVO_EINVAL, "stop",
                               "stop strings need a tokenizer, and the server runs with --skip-tokenizer-init: use "
                               "stop_token_ids");
    r->stop = mem_calloc(n, sizeof(*r->stop));
    r->stop_len = mem_calloc(n, sizeof(*r->stop_len));
    int e = json_is_array(v) ? 0 : add_stop(r, v, err);
    for (size_t i = 0; json_is_array(v) && i < n && e == 0; i++)
        e = add_stop(r, json_array_get(v, i), err);
    return e;
}

static int parse_stop_token_ids(struct api_request *r, const struct api_defaults *d, struct octavo_error *err)
{
    const json_t *v = json_object_get(r->root, "stop_token_ids");
    if (!v || json_is_null(v))
        return 0;
    if (json_array_size(v) > API_MAX_STOP_TOKEN_IDS)
        return error_set_param(err, OCTAVO_EINVAL, "stop_token_ids", "at most %d stop_token_ids are allowed, got %zu",
                               API_MAX_STOP_TOKEN_IDS, json_array_size(v));
    struct token_ids ids = {0};
    int e = api_token_ids(v, "stop_token_ids", d->vocab_size, &ids, err);
    r->sampling.stop_token_ids = ids.ids; /* freed in api_request_release */
    r->sampling.num_stop_token_ids = ids.len;
    return e;
}

static int parse_logit_bias(struct api_request *r, const struct api_defaults *d, struct octavo_error *err)
{
    json_t *v = json_object_get(r->root, "logit_bias");
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_object(v))
        return error_set_param(err, OCTAVO_EINVAL, "logit_bias",
                               "logit_bias must be an object from token ids to numbers");
    size_t n = json_object_size(v);
    if (n > API_MAX_LOGIT_BIAS)
        return error_set_param(err, OCTAVO_EINVAL, "logit_bias", "logit_bias may have at most %d entries, got %zu",
                               API_MAX_LOGIT_BIAS, n);
    int32_t *ids = mem_calloc(n + 1, sizeof(*ids));
    float *bias = mem_calloc(n + 1, sizeof(*bias));
    r->sampling.logit_bias_ids = ids;
    r->sampling.logit_bias = bias;
    const char *key;
    json_t *value;
    json_object_foreach (v, key, value) {
        char *end;
        long id = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
        if (id < 0 || *end || !json_is_number(value))
            return error_set_param(err, OCTAVO_EINVAL, "logit_bias",
                                   "logit_bias must map token ids to numbers, but has \"%.40s\"", key);
        if (id >= d->vocab_size)
            return error_set_param(err, OCTAVO_EINVAL, "logit_bias",
                                   "logit_bias has token id %ld, out of the vocabulary of %d", id, d->vocab_size);
        double b = json_number_value(value);
        ids[r->sampling.num_logit_bias] = (int32_t)id;
        bias[r->sampling.num_logit_bias++] = (float)(b < -100 ? -100 : b > 100 ? 100 : b);
    }
    return 0;
}

/* ---- prompts ---- */

/* A string, a list of strings, a list of ids or a list of lists of ids: what the first element is, all are. */
static int parse_prompt(struct api_request *r, const struct api_defaults *d, struct octavo_error *err)
{
    const json_t *p = json_object_get(r->root, "prompt");
    if (!p || json_is_null(p))
        return error_set_param(err, OCTAVO_EINVAL, "prompt", "prompt is missing");
    r->prompt = p;
    r->num_prompts = 1;
    bool text = json_is_string(p);
    if (json_is_array(p)) {
        const json_t *first = json_array_get(p, 0);
        size_t n = json_array_size(p);
        if (n == 0)
            return error_set_param(err, OCTAVO_EINVAL, "prompt", "prompt is an empty list");
        if (!json_is_string(first) && !json_is_array(first) && !json_is_integer(first))
            return error_set_param(err, OCTAVO_EINVAL, "prompt",
                                   "prompt must be a string, a list of strings, a list of token ids or a list of lists "
                                   "of token ids");
        for (size_t i = 1; i < n; i++)
            if (json_typeof(json_array_get(p, i)) != json_typeof(first))
                return error_set_param(err, OCTAVO_EINVAL, "prompt",
                                       "prompt mixes types: element %zu is not of the same type as the first", i);
        text = json_is_string(first);
        if (!json_is_integer(first))
            r->num_prompts = n;
    } else if (!text) {
        return error_set_param(err, OCTAVO_EINVAL, "prompt",
                               "prompt must be a string, a list of strings, a list of token ids or a list of lists of "
                               "token ids");
    }
    if (text && !d->has_tokenizer)
        return error_set_param(err, OCTAVO_EINVAL, "prompt",
                               "the server runs with --skip-tokenizer-init: send the prompt as token ids");
    if (r->num_prompts * (size_t)r->n > API_MAX_CHOICES)
        return error_set_param(err, OCTAVO_EINVAL, "prompt",
                               "%zu prompts with n=%d make more than %d choices; send them in several requests",
                               r->num_prompts, r->n, API_MAX_CHOICES);
    return 0;
}

/* ---- the whole ---- */

static int parse_fields(struct api_request *r, const struct api_defaults *d, struct octavo_error *err)
{
    int e;
    if ((e = get_name(r->root, "model", &r->model, err)) < 0 ||
        (e = get_name(r->root, "request_id", &r->request_id, err)) < 0 || (e = check_unsupported(r->root, err)) < 0 ||
        (e = parse_switches(r, err)) < 0 || (e = parse_numbers(r, err)) < 0 || (e = parse_lengths(r, err)) < 0 ||
        (e = parse_logprobs(r, d, err)) < 0 || (e = parse_stop(r, d, err)) < 0 ||
        (e = parse_stop_token_ids(r, d, err)) < 0 || (e = parse_logit_bias(r, d, err)) < 0)
        return e;
    e = r->kind == API_CHAT ? api_request_parse_chat(r, err) : parse_prompt(r, d, err);
    if (e < 0)
        return e;
    if (r->kind == API_CHAT && !d->has_tokenizer)
        return error_set_param(err, OCTAVO_EINVAL, "messages",
                               "the server runs with --skip-tokenizer-init and cannot render messages: send token ids "
                               "to /v1/completions");
    bool prompt_only = (r->echo && r->kind == API_COMPLETIONS) || r->want_prompt_logprobs;
    if (r->sampling.max_tokens == 0 && !prompt_only)
        return error_set_param(err, OCTAVO_EINVAL, "max_tokens",
                               "max_tokens must be at least 1, got 0 (0 is for echo and prompt_logprobs)");
    if (r->sampling.max_tokens == 0 && r->sampling.prompt_logprobs == OCTAVO_LOGPROBS_NONE)
        r->sampling.prompt_logprobs = 0; /* the engine wants a reason to look at the prompt */
    return 0;
}

int api_request_parse(enum api_kind kind, const char *body, size_t len, const struct api_defaults *defaults,
                      struct api_request *ret, struct octavo_error *err)
{
    *ret = (struct api_request){
        .kind = kind,
        .sampling = *defaults->sampling,
        .default_max_tokens = kind == API_COMPLETIONS ? 16 : -1,
        .max_tokens_cap = defaults->sampling->max_tokens,
        .n = 1,
        .skip_special_tokens = true,
        .add_special_tokens = kind == API_COMPLETIONS,
        .add_generation_prompt = true,
    };
    /* the defaults bring no arrays of their own */
    ret->sampling.stop_token_ids = NULL;
    ret->sampling.num_stop_token_ids = 0;
    ret->sampling.logit_bias_ids = NULL;
    ret->sampling.logit_bias = NULL;
    ret->sampling.num_logit_bias = 0;
    ret->sampling.min_tokens = 0;
    int r = api_parse_json(body, len, &ret->root, err);
    if (r == 0)
        r = parse_fields(ret, defaults, err);
    if (r == 0)
        log_unknown(ret->root);
    return r;
}

void api_request_release(struct api_request *r)
{
    free((void *)(uintptr_t)r->sampling.stop_token_ids);
    free((void *)(uintptr_t)r->sampling.logit_bias_ids);
    free((void *)(uintptr_t)r->sampling.logit_bias);
    free(r->stop);
    free(r->stop_len);
    json_decref(r->kwargs);
    json_decref(r->root);
    *r = (struct api_request){0};
}
