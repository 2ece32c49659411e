/* Answers as JSON: see answer.h. */
#include "server/answer.h"

#include "base/json.h"

#include <string.h>

static void write_head(struct buf *out, const struct answer_head *head, const char *object)
{
    buf_puts(out, "{\"id\":");
    json_write_string(out, head->id, strlen(head->id));
    buf_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object, (long long)head->created);
    json_write_string(out, head->model, strlen(head->model));
    buf_puts(out, ",\"choices\":[");
}

static void write_usage(struct buf *out, struct token_counts n)
{
    buf_printf(out,
               ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,\"completion_tokens\":%lld,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
               (long long)n.prompt, (long long)(n.prompt + n.completion), (long long)n.completion, (long long)n.cached);
}

static void write_ids(struct buf *out, const char *key, const struct token_ids *ids)
{
    buf_printf(out, ",\"%s\":", key);
    if (!ids) {
        buf_puts(out, "null");
        return;
    }
    buf_putc(out, '[');
    for (size_t i = 0; i < ids->len; i++)
        buf_printf(out, "%s%d", i ? "," : "", ids->ids[i]);
    buf_putc(out, ']');
}

static void write_finish(struct buf *out, const struct choice *c)
{
    const char *reason = !c->finished ? "null" : c->finish_reason == OCTAVO_FINISH_STOP ? "\"stop\"" : "\"length\"";
    buf_printf(out, ",\"finish_reason\":%s,\"stop_reason\":", reason);
    if (c->stop_string)
        json_write_string(out, c->stop_string, c->stop_string_len);
    else if (c->stop_token_id >= 0)
        buf_printf(out, "%d", c->stop_token_id);
    else
        buf_puts(out, "null");
}

static void write_logprobs(struct buf *out, const struct generation *g, const struct choice *c)
{
    buf_puts(out, ",\"logprobs\":");
    /* a chunk that brings no token (the echo of a prompt aside) brings no logprobs either */
    if (g->request->sampling.logprobs == OCTAVO_LOGPROBS_NONE || !logprob_lists_bytes(&c->logprobs))
        buf_puts(out, "null");
    else if (g->request->kind == API_CHAT)
        logprob_lists_write_chat(out, &c->logprobs);
    else
        logprob_lists_write(out, &c->logprobs);
}

static void write_text(struct buf *out, const char *key, const struct choice *c)
{
    buf_printf(out, "\"%s\":", key);
    json_write_string(out, buf_str(&c->text), c->text.len);
}

static void write_prompt_logprobs(struct buf *out, const struct generation *g, const struct choice *c)
{
    buf_puts(out, ",\"prompt_logprobs\":");
    if (g->request->want_prompt_logprobs) {
        buf_putc(out, '[');
        buf_append(out, buf_str(&c->prompt_logprobs), c->prompt_logprobs.len);
        buf_putc(out, ']');
    } else {
        buf_puts(out, "null");
    }
}

void write_answer(struct buf *out, const struct answer_head *head, const struct generation *g)
{
    bool chat = g->request->kind == API_CHAT, ids = g->request->return_token_ids;
    write_head(out, head, chat ? "chat.completion" : "text_completion");
    for (size_t i = 0; i < g->num_choices; i++) {
        const struct choice *c = &g->choices[i];
        buf_printf(out, "%s{\"index\":%d,", i ? "," : "", c->index);
        if (chat) {
            buf_puts(out, "\"message\":{\"role\":\"assistant\",");
            write_text(out, "content", c);
            buf_puts(out, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
                          "\"tool_calls\":[],\"reasoning\":null,\"reasoning_content\":null}");
        } else {
            write_text(out, "text", c);
        }
        write_logprobs(out, g, c);
        write_finish(out, c);
        write_ids(out, "token_ids", ids ? &c->token_ids : NULL);
        if (!chat) {
            write_prompt_logprobs(out, g, c);
            write_ids(out, "prompt_token_ids", ids ? &c->prompt->ids : NULL);
        }
        buf_putc(out, '}');
    }
    buf_puts(out, "],\"service_tier\":null,\"system_fingerprint\":null");
    write_usage(out, generation_count(g));
    if (chat) {
        write_prompt_logprobs(out, g, &g->choices[0]);
        write_ids(out, "prompt_token_ids", ids ? &g->choices[0].prompt->ids : NULL);
    }
    buf_puts(out, ",\"kv_transfer_params\":null}");
}

void write_chunk(struct buf *out, const struct answer_head *head, const struct generation *g, struct choice *c)
{
    const struct api_request *r = g->request;
    bool chat = r->kind == API_CHAT;
    write_head(out, head, chat ? "chat.completion.chunk" : "text_completion");
    buf_printf(out, "{\"index\":%d,", c->index);
    if (chat) {
        /* the role comes with the first token: a chunk of its own before it would spoil what clients measure as the
         * time to the first token */
        buf_puts(out, c->started ? "\"delta\":{" : "\"delta\":{\"role\":\"assistant\",");
        write_text(out, "content", c);
        buf_putc(out, '}');
    } else {
        write_text(out, "text", c);
    }
    write_logprobs(out, g, c);
    write_finish(out, c);
    write_ids(out, "token_ids", r->return_token_ids ? &c->token_ids : NULL);
    if (r->return_token_ids && !c->started && !chat)
        write_ids(out, "prompt_token_ids", &c->prompt->ids);
    buf_puts(out, "}]");
    if (r->return_token_ids && !c->started && chat)
        write_ids(out, "prompt_token_ids", &c->prompt->ids);
    if (r->continuous_usage) {
        struct token_counts n = {
            .prompt = (int64_t)c->prompt->ids.len,
            .completion = c->num_tokens,
            .cached = c->num_cached_tokens,
        };
        write_usage(out, n);
    } else if (r->include_usage) {
        buf_puts(out, ",\"usage\":null");
    }
    buf_putc(out, '}');
    c->started = true;
    choice_clear(c);
}

void write_usage_chunk(struct buf *out, const struct answer_head *head, const struct generation *g)
{
    write_head(out, head, g->request->kind == API_CHAT ? "chat.completion.chunk" : "text_completion");
    buf_putc(out, ']');
    write_usage(out, generation_count(g));
    buf_putc(out, '}');
}
