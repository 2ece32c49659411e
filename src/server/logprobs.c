/* Logprobs: see logprobs.h. */
#include "server/logprobs.h"

#include "base/json.h"
#include "base/strmap.h"

#include <math.h>
#include <stdlib.h>

void logprob_lists_clear(struct logprob_lists *l)
{
    buf_clear(&l->tokens);
    buf_clear(&l->token_logprobs);
    buf_clear(&l->top_logprobs);
    buf_clear(&l->text_offset);
    buf_clear(&l->content);
}

void logprob_lists_release(struct logprob_lists *l)
{
    buf_release(&l->tokens);
    buf_release(&l->token_logprobs);
    buf_release(&l->top_logprobs);
    buf_release(&l->text_offset);
    buf_release(&l->content);
}

size_t logprob_lists_bytes(const struct logprob_lists *l)
{
    return l->tokens.len + l->token_logprobs.len + l->top_logprobs.len + l->text_offset.len + l->content.len;
}

void write_float(struct buf *out, float value)
{
    if (!(value > -9999.0f) || isinf(value)) {
        buf_puts(out, "-9999.0");
        return;
    }
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    buf_puts(out, text);
}

/* The text of one token by itself, or its id where the style asks for that. */
static void token_text(struct buf *out, const struct logprob_style *style, int32_t id)
{
    buf_clear(out);
    if (!style->tok || style->as_token_ids)
        buf_printf(out, "token_id:%d", id);
    else
        tokenizer_decode(style->tok, &id, 1, false, out);
}

static size_t count_characters(const struct buf *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->len; i++)
        n += ((unsigned char)text->data[i] & 0xc0) != 0x80;
    return n;
}

static void comma(struct buf *b)
{
    if (b->len)
        buf_putc(b, ',');
}

/* {"token": logprob, ...}: the token itself first, then the best ones. Different tokens may have the same text; a key
 * stands once, with the first, which is the likelier unless it is the token itself. */
static void write_top_object(struct buf *out, const struct logprob_style *style, const struct octavo_event *e)
{
    struct strmap seen = {0};
    struct buf text = {0};
    token_text(&text, style, e->token_id);
    strmap_add(&seen, buf_str(&text), text.len, 0, NULL);
    buf_putc(out, '{');
    json_write_string(out, buf_str(&text), text.len);
    buf_putc(out, ':');
    write_float(out, e->logprob.logprob);
    for (size_t i = 0; i < e->num_top; i++) {
        token_text(&text, style, e->top[i].token_id);
        if (e->top[i].token_id == e->token_id || !strmap_add(&seen, buf_str(&text), text.len, 0, NULL))
            continue;
        buf_putc(out, ',');
        json_write_string(out, buf_str(&text), text.len);
        buf_putc(out, ':');
        write_float(out, e->top[i].logprob);
    }
    buf_putc(out, '}');
    buf_release(&text);
    strmap_release(&seen);
}

void logprob_lists_add(struct logprob_lists *l, const struct logprob_style *style, int32_t token_id,
                       const struct octavo_event *own)
{
    struct buf text = {0};
    token_text(&text, style, token_id);
    comma(&l->tokens);
    json_write_string(&l->tokens, buf_str(&text), text.len);
    comma(&l->text_offset);
    buf_printf(&l->text_offset, "%zu", l->text_len);
    l->text_len += count_characters(&text);
    comma(&l->token_logprobs);
    comma(&l->top_logprobs);
    if (own) {
        write_float(&l->token_logprobs, own->logprob.logprob);
        write_top_object(&l->top_logprobs, style, own);
    } else {
        buf_puts(&l->token_logprobs, "null");
        buf_puts(&l->top_logprobs, "null");
    }
    buf_release(&text);
}

/* "token":..,"logprob":..,"bytes":[..] without braces. The bytes are the token's own, also where they are only a part
 * of a character. */
static void write_chat_token(struct buf *out, const struct logprob_style *style, int32_t id, float logprob,
                             struct buf *text)
{
    token_text(text, style, id);
    buf_puts(out, "\"token\":");
    json_write_string(out, buf_str(text), text->len);
    buf_puts(out, ",\"logprob\":");
    write_float(out, logprob);
    buf_puts(out, ",\"bytes\":");
    buf_clear(text);
    if (!style->tok || !tokenizer_token_bytes(style->tok, id, text)) {
        buf_puts(out, "null");
        return;
    }
    buf_putc(out, '[');
    for (size_t i = 0; i < text->len; i++)
        buf_printf(out, "%s%u", i ? "," : "", (unsigned)(unsigned char)text->data[i]);
    buf_putc(out, ']');
}

void logprob_lists_add_chat(struct logprob_lists *l, const struct logprob_style *style, const struct octavo_event *e)
{
    struct buf text = {0};
    comma(&l->content);
    buf_putc(&l->content, '{');
    write_chat_token(&l->content, style, e->token_id, e->logprob.logprob, &text);
    buf_puts(&l->content, ",\"top_logprobs\":[");
    for (size_t i = 0; i < e->num_top; i++) {
        buf_puts(&l->content, i ? ",{" : "{");
        write_chat_token(&l->content, style, e->top[i].token_id, e->top[i].logprob, &text);
        buf_putc(&l->content, '}');
    }
    buf_puts(&l->content, "]}");
    buf_release(&text);
}

void logprob_lists_write(struct buf *out, const struct logprob_lists *l)
{
    buf_printf(out, "{\"text_offset\":[%s],\"token_logprobs\":[%s],\"tokens\":[", buf_str(&l->text_offset),
               buf_str(&l->token_logprobs));
    buf_append(out, buf_str(&l->tokens), l->tokens.len);
    buf_puts(out, "],\"top_logprobs\":[");
    buf_append(out, buf_str(&l->top_logprobs), l->top_logprobs.len);
    buf_puts(out, "]}");
}

void logprob_lists_write_chat(struct buf *out, const struct logprob_lists *l)
{
    buf_puts(out, "{\"content\":[");
    buf_append(out, buf_str(&l->content), l->content.len);
    buf_puts(out, "]}");
}

static void write_prompt_entry(struct buf *out, const struct logprob_style *style, const struct octavo_logprob *p,
                               struct buf *text)
{
    buf_printf(out, "\"%d\":{\"logprob\":", p->token_id);
    write_float(out, p->logprob);
    buf_printf(out, ",\"rank\":%d,\"decoded_token\":", p->rank);
    if (style->tok) {
        buf_clear(text);
        tokenizer_decode(style->tok, &p->token_id, 1, false, text);
        json_write_string(out, buf_str(text), text->len);
    } else {
        buf_puts(out, "null");
    }
    buf_putc(out, '}');
}

void prompt_logprob_add(struct buf *out, const struct logprob_style *style, const struct octavo_event *e)
{
    struct buf text = {0};
    buf_puts(out, ",{");
    write_prompt_entry(out, style, &e->logprob, &text);
    for (size_t i = 0; i < e->num_top; i++) {
        if (e->top[i].token_id == e->token_id)
            continue;
        buf_putc(out, ',');
        write_prompt_entry(out, style, &e->top[i], &text);
    }
    buf_putc(out, '}');
    buf_release(&text);
}
