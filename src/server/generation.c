/* From engine events to choices: see generation.h. */
#include "server/generation.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* On the engine thread. */
static void signal_events(void *arg)
{
    const struct generation *g = arg;
    uint64_t one = 1;
    ssize_t r = write(g->event_fd, &one, sizeof(one));
    (void)r; /* EAGAIN: the counter is full, so the reader will wake anyway */
}

/* ---- start ---- */

static void choice_init(struct choice *c, const struct generation *g, const struct prompt *prompt)
{
    const struct api_request *r = g->request;
    c->prompt = prompt;
    c->stop_token_id = -1;
    if (g->tok) {
        struct detokenizer_options opts = {
            .skip_special_tokens = r->skip_special_tokens,
            .include_stop_str_in_output = r->include_stop_str_in_output,
            .num_stop = r->num_stop,
            .stop = r->stop,
            .stop_len = r->stop_len,
        };
        c->detokenizer = detokenizer_new(g->tok, &opts);
        if (r->num_stop && r->sampling.min_tokens > 0) {
            opts.num_stop = 0;
            c->early = detokenizer_new(g->tok, &opts);
        }
    }
    if (r->want_prompt_logprobs)
        buf_puts(&c->prompt_logprobs, "null");
    if (r->echo && prompt->text)
        buf_append(&c->text, prompt->text, prompt->text_len);
    if (r->echo && r->kind == API_COMPLETIONS && r->sampling.logprobs != OCTAVO_LOGPROBS_NONE)
        logprob_lists_add(&c->logprobs, &g->style, prompt->ids.ids[0], NULL);
}

static int submit(struct generation *g, struct choice *c, struct octavo_engine *engine, int sample,
                  int64_t max_model_len, struct octavo_error *err)
{
    const struct api_request *r = g->request;
    struct octavo_request_params params = {
        .prompt_token_ids = c->prompt->ids.ids,
        .num_prompt_tokens = c->prompt->ids.len,
        .sampling = r->sampling,
        .notify = signal_events,
        .notify_arg = g,
    };
    int64_t room = max_model_len - (int64_t)c->prompt->ids.len;
    if (params.sampling.max_tokens < 0)
        params.sampling.max_tokens = r->default_max_tokens < 0 ? room : MIN(r->default_max_tokens, room);
    if (r->max_tokens_cap > 0)
        params.sampling.max_tokens = MIN(params.sampling.max_tokens, r->max_tokens_cap);
    if (params.sampling.seeded) /* each sample its own stream, the first that of n=1 */
        params.sampling.seed = (int64_t)((uint64_t)params.sampling.seed + (uint64_t)sample);
    return octavo_submit(engine, &params, &c->request, err);
}

int generation_start(struct generation *g, struct octavo_engine *engine, const struct tokenizer *tok,
                     const struct api_request *request, const struct prompt *prompts, struct octavo_error *err)
{
    size_t num_prompts = request->kind == API_COMPLETIONS ? request->num_prompts : 1;
    int64_t max_model_len = octavo_engine_info(engine)->max_model_len;
    *g = (struct generation){
        .request = request,
        .style = {tok, request->return_tokens_as_token_ids},
        .tok = tok,
        .num_choices = num_prompts * (size_t)request->n,
    };
    g->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (g->event_fd < 0)
        return error_set(err, OCTAVO_EBUSY, "too many open files: %s", strerror(errno));
    g->choices = mem_calloc(g->num_choices, sizeof(*g->choices));
    for (size_t i = 0; i < g->num_choices; i++) {
        struct choice *c = &g->choices[i];
        c->index = (int)i;
        c->first_of_prompt = i % (size_t)request->n == 0;
        choice_init(c, g, &prompts[i / (size_t)request->n]);
    }
    for (size_t i = 0; i < g->num_choices; i++) {
        int r = submit(g, &g->choices[i], engine, (int)(i % (size_t)request->n), max_model_len, err);
        if (r < 0) {
            generation_release(g);
            return r;
        }
    }
    g->more = true; /* events may have come before anybody waits */
    return 0;
}

static void choice_release(struct choice *c)
{
    octavo_request_free(c->request);
    detokenizer_free(c->detokenizer);
    detokenizer_free(c->early);
    buf_release(&c->early_tail);
    buf_release(&c->text);
    token_ids_release(&c->token_ids);
    logprob_lists_release(&c->logprobs);
    buf_release(&c->prompt_logprobs);
}

void generation_release(struct generation *g)
{
    if (!g->choices)
        return;
    /* first stop them all, then wait for each: the engine drops them in one step */
    for (size_t i = 0; i < g->num_choices; i++)
        if (g->choices[i].request)
            octavo_request_abort(g->choices[i].request);
    for (size_t i = 0; i < g->num_choices; i++)
        choice_release(&g->choices[i]);
    free(g->choices);
    close(g->event_fd);
    *g = (struct generation){0};
}

/* ---- events ---- */

size_t choice_bytes(const struct choice *c)
{
    return c->text.len + c->token_ids.len * sizeof(int32_t) + logprob_lists_bytes(&c->logprobs) +
           c->prompt_logprobs.len;
}

void choice_clear(struct choice *c)
{
    buf_clear(&c->text);
    c->token_ids.len = 0;
    logprob_lists_clear(&c->logprobs);
}

static void choice_finish(struct generation *g, struct choice *c, enum octavo_finish_reason reason)
{
    c->finished = true;
    c->finish_reason = reason;
    g->num_finished++;
    octavo_request_free(c->request); /* aborts it when a stop string ended it */
    c->request = NULL;
}

/* Stop strings do not count within the first min_tokens tokens, so those go through a detokenizer that has none. The
 * other takes over where a character is complete. Returns as detokenizer_push. */
static int push_token(struct generation *g, struct choice *c, int32_t id)
{
    if (!c->early)
        return detokenizer_push(c->detokenizer, id, &c->text);
    detokenizer_push(c->early, id, &c->text);
    tokenizer_token_bytes(g->tok, id, &c->early_tail);
    buf_consume(&c->early_tail, c->early_tail.len - utf8_incomplete_tail(buf_str(&c->early_tail), c->early_tail.len));
    if (c->num_tokens >= g->request->sampling.min_tokens && c->early_tail.len == 0) {
        detokenizer_finish(c->early, &c->text);
        detokenizer_free(c->early);
        c->early = NULL;
    }
    return -1;
}

static void take_token(struct generation *g, struct choice *c, const struct octavo_event *e)
{
    const struct api_request *r = g->request;
    int stop = -1;
    c->num_tokens++;
    c->num_cached_tokens = e->num_cached_tokens;
    if (r->return_token_ids)
        token_ids_push(&c->token_ids, e->token_id);
    if (r->sampling.logprobs != OCTAVO_LOGPROBS_NONE) {
        if (r->kind == API_CHAT)
            logprob_lists_add_chat(&c->logprobs, &g->style, e);
        else
            logprob_lists_add(&c->logprobs, &g->style, e->token_id, e);
    }
    /* the token that stops an answer is no part of its text, unless asked for */
    bool silent = e->finish_reason == OCTAVO_FINISH_STOP && !r->include_stop_str_in_output;
    if (g->tok && !silent)
        stop = push_token(g, c, e->token_id);
    if (stop >= 0) {
        c->stop_string = r->stop[stop];
        c->stop_string_len = r->stop_len[stop];
        choice_finish(g, c, OCTAVO_FINISH_STOP);
    } else if (e->finish_reason != OCTAVO_FINISH_NONE) {
        if (g->tok)
            detokenizer_finish(c->early ? c->early : c->detokenizer, &c->text);
        if (e->finish_reason == OCTAVO_FINISH_STOP && !e->eos)
            c->stop_token_id = e->token_id;
        choice_finish(g, c, e->finish_reason);
    }
}

static void take_prompt_token(struct generation *g, struct choice *c, const struct octavo_event *e)
{
    const struct api_request *r = g->request;
    if (r->want_prompt_logprobs)
        prompt_logprob_add(&c->prompt_logprobs, &g->style, e);
    if (r->echo && r->sampling.logprobs != OCTAVO_LOGPROBS_NONE)
        logprob_lists_add(&c->logprobs, &g->style, e->token_id, e);
}

/* Returns false when emit asked for a pause. */
static bool pump_choice(struct generation *g, struct choice *c, generation_emit_fn *emit, void *arg)
{
    struct octavo_event e;
    while (!c->finished && octavo_request_next(c->request, &e, 0) == 1) {
        if (e.type == OCTAVO_EVENT_PROMPT_TOKEN) {
            take_prompt_token(g, c, &e);
            continue;
        }
        c->num_cached_tokens = e.num_cached_tokens;
        if (e.type == OCTAVO_EVENT_TOKEN)
            take_token(g, c, &e);
        else
            choice_finish(g, c, e.finish_reason);
        if (c->finished && (c->finish_reason == OCTAVO_FINISH_ERROR || c->finish_reason == OCTAVO_FINISH_ABORT))
            return true;
        if (!emit(arg, c))
            return false;
    }
    return true;
}

int generation_pump(struct generation *g, generation_emit_fn *emit, void *arg, struct octavo_error *err)
{
    g->more = false;
    for (size_t i = 0; i < g->num_choices; i++) {
        struct choice *c = &g->choices[(g->next + i) % g->num_choices];
        if (c->finished)
            continue;
        bool go_on = pump_choice(g, c, emit, arg);
        if (c->finished && c->finish_reason == OCTAVO_FINISH_ERROR)
            return error_set(err, OCTAVO_EINTERNAL,
                             "the engine could not finish the request: the model computed something that is no number");
        if (c->finished && c->finish_reason == OCTAVO_FINISH_ABORT)
            return error_set(err, OCTAVO_EBUSY, "the server is shutting down and stopped the request");
        if (!go_on) {
            g->next = (size_t)(c - g->choices);
            g->more = true;
            break;
        }
    }
    return g->num_finished < g->num_choices;
}

enum generation_wake generation_wait(struct generation *g, int client_fd, int stop_fd, int timeout_ms)
{
    struct pollfd fds[] = {
        {.fd = g->event_fd, .events = POLLIN},
        {.fd = client_fd, .events = POLLRDHUP},
        {.fd = stop_fd, .events = POLLIN},
    };
    int n;
    do
        n = poll(fds, ARRAY_LEN(fds), g->more ? 0 : timeout_ms);
    while (n < 0 && errno == EINTR);
    if (fds[1].revents)
        return WAKE_CLIENT_GONE;
    if (fds[2].revents)
        return WAKE_STOP;
    if (fds[0].revents) {
        uint64_t count;
        ssize_t r = read(g->event_fd, &count, sizeof(count));
        (void)r;
        return WAKE_EVENTS;
    }
    return g->more ? WAKE_EVENTS : WAKE_TIMEOUT;
}

struct token_counts generation_count(const struct generation *g)
{
    struct token_counts n = {0};
    for (size_t i = 0; i < g->num_choices; i++) {
        const struct choice *c = &g->choices[i];
        n.completion += c->num_tokens;
        if (c->first_of_prompt) {
            n.prompt += (int64_t)c->prompt->ids.len;
            n.cached += c->num_cached_tokens;
        }
    }
    return n;
}
