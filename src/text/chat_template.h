/* Chat templates: finds the checkpoint's (chat_template.jinja, additional_chat_templates/, tokenizer_config.json) and
 * renders a conversation with it, as transformers' apply_chat_template does. Immutable after open; render may run on
 * any number of threads at once. */
#ifndef OCTAVO_TEXT_CHAT_TEMPLATE_H
#define OCTAVO_TEXT_CHAT_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "text/tokenizer.h"

struct chat_template;

/* path: a template file that replaces the checkpoint's (--chat-template), or NULL. tok gives bos_token and friends; it
 * may be NULL. A folder without any template opens fine, and rendering says so. */
int chat_template_open(const char *dir, const char *path, const struct tokenizer *tok,
                       struct chat_template **ret_template, struct octavo_error *err);
void chat_template_free(struct chat_template *t);

struct chat_template_input {
    const json_t *messages;  /* array of objects, as the client sent them (content a string or a list of parts) */
    const json_t *tools;     /* array, or NULL */
    const json_t *documents; /* array, or NULL */
    const json_t *kwargs;    /* object of further variables (chat_template_kwargs), or NULL; reserved names refused */
    bool add_generation_prompt;
    bool continue_final_message; /* cut the text after the last message's content */
};
int chat_template_render(const struct chat_template *t, const struct chat_template_input *in, struct buf *out,
                         struct octavo_error *err);

#endif
