/* POST /v1/completions and /v1/chat/completions: parse, tokenise, check the lengths, submit, answer. Everything that
 * can be wrong with a request is found before the first byte of the answer. Connection threads. */
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/job.h"
#include "server/routes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* A whole answer is built in memory: logprobs of a whole vocabulary for thousands of tokens would be gigabytes. */
#define MAX_ANSWER_BYTES (512u << 20)

void job_stop(struct job *j)
{
    struct generation *g = &j->generation;
    if (g->num_finished < g->num_choices && !j->err.code)
        log_debug("%s: client left, stopping its requests", j->head.id);
    generation_release(g);
}

void job_free(struct job *j)
{
    if (!j)
        return;
    job_stop(j);
    for (size_t i = 0; i < j->num_prompts; i++) {
        token_ids_release(&j->prompts[i].ids);
        free(j->prompts[i].text);
    }
    free(j->prompts);
    api_request_release(&j->request);
    buf_release(&j->out);
    free(j);
}

/* X-Request-Id, request_id or 128 random bits, as vLLM names answers. */
static void name_job(struct job *j)
{
    char *id = j->head.id;
    size_t cap = sizeof(j->head.id);
    const char *given = exchange_header(j->ex, "X-Request-Id");
    if (!given || !*given)
        given = j->request.request_id;
    int n = snprintf(id, cap, j->request.kind == API_CHAT ? "chatcmpl-" : "cmpl-");
    if (given && *given) {
        snprintf(id + n, cap - (size_t)n, "%.128s", given);
        for (char *c = id; *c; c++)
            if ((unsigned char)*c < 0x21 || (unsigned char)*c > 0x7e)
                *c = '_';
    } else {
        uint64_t bits[2] = {0};
        if (getrandom(bits, sizeof(bits), 0) != sizeof(bits))
            bits[0] = (uint64_t)now_us();
        snprintf(id + n, cap - (size_t)n, "%016llx%016llx", (unsigned long long)bits[0], (unsigned long long)bits[1]);
    }
    j->head.created = time(NULL);
    j->head.model = j->request.model ? j->request.model : j->model->names[0];
}

/* ---- prompts ---- */

static int fill_prompt(const struct job *j, const json_t *source, struct prompt *p, struct octavo_error *err)
{
    const struct server_model *m = j->model;
    const struct api_request *r = &j->request;
    if (json_is_string(source)) {
        size_t len = json_string_length(source);
        if (r->echo) {
            p->text = mem_strndup(json_string_value(source), len);
            p->text_len = len;
            memcpy(p->text, json_string_value(source), len); /* NUL characters too */
        }
        return encode_text(m, json_string_value(source), len, r->add_special_tokens, &p->ids, err);
    }
    int e = api_token_ids(source, "prompt", octavo_engine_info(m->engine)->vocab_size, &p->ids, err);
    if (e == 0 && r->echo && m->tokenizer) {
        struct buf text = {0};
        tokenizer_decode(m->tokenizer, p->ids.ids, p->ids.len, r->skip_special_tokens, &text);
        p->text = buf_steal(&text, &p->text_len);
    }
    return e;
}

/* echo of a chat puts the last message in front when the assistant said it */
static void fill_chat_echo(const struct api_request *r, struct prompt *p)
{
    const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    const json_t *content = json_object_get(last, "content");
    if (!r->echo || !role || strcmp(role, "assistant") || !json_is_string(content))
        return;
    struct buf text = {0};
    buf_append(&text, json_string_value(content), json_string_length(content));
    p->text = buf_steal(&text, &p->text_len);
}

/* Keeps the last tokens when truncate_prompt_tokens asks for it, then checks that prompt and answer fit. */
static int check_length(struct job *j, struct prompt *p, struct octavo_error *err)
{
    const struct api_request *r = &j->request;
    int64_t max = octavo_engine_info(j->model->engine)->max_model_len;
    int64_t len = (int64_t)p->ids.len, want = r->sampling.max_tokens;
    const char *field = r->kind == API_CHAT ? "messages" : "prompt";
    int64_t keep = r->truncate_prompt_tokens < 0 ? MAX(max - MAX(want, 1), 1) : r->truncate_prompt_tokens;
    if (keep > 0 && len > keep) {
        memmove(p->ids.ids, p->ids.ids + (len - keep), (size_t)keep * sizeof(*p->ids.ids));
        p->ids.len = (size_t)keep;
        len = keep;
    }
    if (len == 0)
        return error_set_param(err, OCTAVO_EINVAL, field, "The prompt is empty: it must have at least one token");
    if (want == 0 ? len > max : len >= max)
        return error_set_param(err, OCTAVO_EINVAL, field,
                               "This model's maximum context length is %lld tokens. However, your request has %lld "
                               "input tokens. Please reduce the length of the %s.",
                               (long long)max, (long long)len, field);
    if (want > max - len)
        return error_set_param(err, OCTAVO_EINVAL, "max_tokens",
                               "'max_tokens' or 'max_completion_tokens' is too large: %lld. This model's maximum "
                               "context length is %lld tokens and your request has %lld input tokens (%lld > %lld - "
                               "%lld).",
                               (long long)want, (long long)max, (long long)len, (long long)want, (long long)max,
                               (long long)len);
    return 0;
}

static int fill_prompts(struct job *j, struct octavo_error *err)
{
    const struct api_request *r = &j->request;
    bool chat = r->kind == API_CHAT, many = !chat && r->num_prompts > 1;
    j->num_prompts = chat ? 1 : r->num_prompts;
    j->prompts = mem_calloc(j->num_prompts, sizeof(*j->prompts));
    for (size_t i = 0; i < j->num_prompts; i++) {
        struct prompt *p = &j->prompts[i];
        int e;
        if (chat) {
            e = render_chat(j->model, r, p, err);
            fill_chat_echo(r, p);
        } else {
            /* ["text"] and [[1, 2]] are lists of one; [1, 2] is a prompt itself */
            const json_t *first = json_array_get(r->prompt, 0);
            bool list = many || json_is_string(first) || json_is_array(first);
            e = fill_prompt(j, list ? json_array_get(r->prompt, i) : r->prompt, p, err);
        }
        if (e == 0)
            e = check_length(j, p, err);
        if (e < 0)
            return e;
    }
    return 0;
}

/* ---- answers ---- */

static bool count_bytes(void *arg, struct choice *c)
{
    (void)c;
    struct job *j = arg;
    j->bytes = 0;
    for (size_t i = 0; i < j->generation.num_choices && j->bytes <= MAX_ANSWER_BYTES; i++)
        j->bytes += choice_bytes(&j->generation.choices[i]);
    return j->bytes <= MAX_ANSWER_BYTES;
}

static enum MHD_Result answer_whole(struct job *j)
{
    for (;;) {
        switch (generation_wait(&j->generation, exchange_socket(j->ex), j->ex->server->stop_fd, -1)) {
        case WAKE_CLIENT_GONE:
            j->ex->failed = true;
            return MHD_NO;
        case WAKE_STOP:
            error_set(&j->err, OCTAVO_EBUSY, "the server is shutting down and stopped the request");
            return exchange_reply_failure(j->ex, &j->err);
        default:
            break;
        }
        int r = generation_pump(&j->generation, count_bytes, j, &j->err);
        if (j->bytes > MAX_ANSWER_BYTES)
            r = error_set(&j->err, OCTAVO_EINVAL,
                          "the answer grew to more than %u MiB: ask for fewer logprobs or tokens, or stream it",
                          MAX_ANSWER_BYTES >> 20);
        if (r < 0)
            return exchange_reply_failure(j->ex, &j->err);
        if (r == 0) {
            struct buf out = {0};
            write_answer(&out, &j->head, &j->generation);
            return exchange_reply_json(j->ex, MHD_HTTP_OK, &out);
        }
    }
}

static int check_queue(const struct job *j, struct octavo_error *err)
{
    int limit = j->ex->server->opts.max_num_queued_reqs;
    struct octavo_engine_stats stats;
    if (!limit)
        return 0;
    octavo_engine_get_stats(j->model->engine, &stats);
    if (stats.num_requests_waiting >= limit)
        return error_set(err, OCTAVO_EBUSY, "%lld requests are waiting already; try again in a moment",
                         (long long)stats.num_requests_waiting);
    return 0;
}

static enum MHD_Result generate(struct exchange *ex, const struct server_model *model, enum api_kind kind)
{
    const struct octavo_engine_info *info = octavo_engine_info(model->engine);
    struct api_defaults defaults = {
        .sampling = &model->sampling,
        .vocab_size = info->vocab_size,
        .max_logprobs = info->max_logprobs,
        .has_tokenizer = model->tokenizer != NULL,
    };
    struct job *j = mem_calloc(1, sizeof(*j));
    j->ex = ex;
    j->model = model;
    enum MHD_Result result;
    int e = api_request_parse(kind, buf_str(&ex->body), ex->body.len, &defaults, &j->request, &j->err);
    if (e == 0 && j->request.model && !model_has_name(model, j->request.model)) {
        result = reply_unknown_model(ex, j->request.model);
        goto out;
    }
    if (e == 0)
        e = check_queue(j, &j->err);
    if (e == 0)
        e = fill_prompts(j, &j->err);
    if (e == 0) {
        name_job(j);
        e = generation_start(&j->generation, model->engine, model->tokenizer, &j->request, j->prompts, &j->err);
    }
    if (e < 0) {
        result = exchange_reply_failure(ex, &j->err);
        goto out;
    }
    log_debug("%s: %zu prompt(s), first of %zu tokens, n=%d, max_tokens=%lld%s", j->head.id, j->num_prompts,
              j->prompts[0].ids.len, j->request.n, (long long)j->request.sampling.max_tokens,
              j->request.stream ? ", stream" : "");
    if (j->request.stream)
        return job_stream(j);
    result = answer_whole(j);
out:
    job_free(j);
    return result;
}

enum MHD_Result handle_completions(struct exchange *ex, const struct server_model *model)
{
    return generate(ex, model, API_COMPLETIONS);
}

enum MHD_Result handle_chat_completions(struct exchange *ex, const struct server_model *model)
{
    return generate(ex, model, API_CHAT);
}
