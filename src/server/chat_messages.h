/* The conversation of a chat request: checked. The template's side brings it into the shape that templates expect
 * (text/chat_template.h). Pure functions. */
#ifndef OCTAVO_SERVER_CHAT_MESSAGES_H
#define OCTAVO_SERVER_CHAT_MESSAGES_H

#include "base/err.h"
#include "base/json.h"

/* At least one message; each an object with a role, content that is text, and well-formed tool calls. */
int chat_messages_check(const json_t *messages, struct octavo_error *err);
/* tools: an array of {"type": "function", "function": {"name": ...}}. */
int chat_tools_check(const json_t *tools, struct octavo_error *err);

#endif
