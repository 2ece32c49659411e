/* The conversation of a chat request: checked, and brought into the shape that templates expect. Pure functions. */
#ifndef OCTAVO_SERVER_CHAT_MESSAGES_H
#define OCTAVO_SERVER_CHAT_MESSAGES_H

#include "base/err.h"
#include "base/json.h"

/* A new array in *ret_messages: lists of text parts joined by newlines, null content "", the arguments of tool calls
 * parsed into objects, every other field as it came. */
int chat_messages_normalise(const json_t *messages, json_t **ret_messages, struct octavo_error *err);
/* tools: an array of {"type": "function", "function": {"name": ...}}. */
int chat_tools_check(const json_t *tools, struct octavo_error *err);

#endif
