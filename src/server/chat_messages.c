/* Chat messages: see chat_messages.h. */
#include "server/chat_messages.h"

#include "server/api_request.h"

#include <string.h>

#define PARAM "messages"

/* Part types that carry text, and the key it is under. */
static const char *text_key(const char *type)
{
    if (!strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text"))
        return "text";
    return !strcmp(type, "refusal") ? "refusal" : NULL;
}

static int check_parts(const json_t *parts, size_t index, struct octavo_error *err)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const json_t *text = part;
        if (json_is_object(part)) {
            const char *type = json_string_value(json_object_get(part, "type"));
            const char *key = type ? text_key(type) : "text";
            if (!key)
                return error_set_param(err, OCTAVO_EUNSUPPORTED, PARAM,
                                       "messages[%zu].content[%zu] is of type \"%.40s\"; this model takes only text",
                                       index, i, type);
            text = json_object_get(part, key);
        }
        if (!json_is_string(text))
            return error_set_param(err, OCTAVO_EINVAL, PARAM,
                                   "messages[%zu].content[%zu] must be {\"type\": \"text\", \"text\": ...}", index, i);
    }
    return 0;
}

static int check_content(const json_t *content, const char *role, size_t index, struct octavo_error *err)
{
    if (json_is_string(content))
        return 0;
    if (json_is_array(content))
        return check_parts(content, index, err);
    if (content && !json_is_null(content))
        return error_set_param(err, OCTAVO_EINVAL, PARAM, "messages[%zu].content must be a string or a list of parts",
                               index);
    if (strcmp(role, "assistant"))
        return error_set_param(err, OCTAVO_EINVAL, PARAM, "messages[%zu].content is missing", index);
    return 0;
}

static int check_tool_calls(const json_t *calls, size_t index, size_t *arguments_bytes, struct octavo_error *err)
{
    if (!calls || json_is_null(calls))
        return 0;
    if (!json_is_array(calls))
        return error_set_param(err, OCTAVO_EINVAL, PARAM, "messages[%zu].tool_calls must be a list", index);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *function = json_object_get(json_array_get(calls, i), "function");
        const json_t *arguments = json_object_get(function, "arguments");
        if (!json_is_string(json_object_get(function, "name")))
            return error_set_param(err, OCTAVO_EINVAL, PARAM,
                                   "messages[%zu].tool_calls[%zu].function.name must be a string", index, i);
        /* JSON within JSON: the template's side parses it, within the same bounds */
        *arguments_bytes += json_string_length(arguments);
        if (*arguments_bytes > API_MAX_ARGUMENTS_BYTES)
            return error_set_param(err, OCTAVO_EINVAL, PARAM,
                                   "the arguments of all tool calls together may take at most %d bytes",
                                   API_MAX_ARGUMENTS_BYTES);
        if (json_is_string(arguments) &&
            api_check_json_shape(json_string_value(arguments), json_string_length(arguments), err) < 0) {
            snprintf(err->param, sizeof(err->param), PARAM);
            return error_prefix(err, "messages[%zu].tool_calls[%zu].function.arguments", index, i);
        }
    }
    return 0;
}

int chat_messages_check(const json_t *messages, struct octavo_error *err)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return error_set_param(err, OCTAVO_EINVAL, PARAM, "messages must be a list of at least one message");
    size_t arguments_bytes = 0;
    int r = 0;
    for (size_t i = 0; i < json_array_size(messages) && r == 0; i++) {
        const json_t *message = json_array_get(messages, i);
        const json_t *role = json_object_get(message, "role");
        if (!json_is_object(message))
            return error_set_param(err, OCTAVO_EINVAL, PARAM, "messages[%zu] must be an object", i);
        if (!json_is_string(role) || json_string_length(role) == 0)
            return error_set_param(err, OCTAVO_EINVAL, PARAM, "messages[%zu].role must be a string such as \"user\"",
                                   i);
        r = check_content(json_object_get(message, "content"), json_string_value(role), i, err);
        if (r == 0)
            r = check_tool_calls(json_object_get(message, "tool_calls"), i, &arguments_bytes, err);
    }
    return r;
}

int chat_tools_check(const json_t *tools, struct octavo_error *err)
{
    if (!json_is_array(tools))
        return error_set_param(err, OCTAVO_EINVAL, "tools", "tools must be a list");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        const char *type = json_string_value(json_object_get(tool, "type"));
        const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
        if (type && strcmp(type, "function"))
            return error_set_param(err, OCTAVO_EUNSUPPORTED, "tools",
                                   "tools[%zu] is of type \"%.40s\"; only functions "
                                   "are supported",
                                   i, type);
        if (!json_is_string(name) || json_string_length(name) == 0)
            return error_set_param(err, OCTAVO_EINVAL, "tools", "tools[%zu].function.name must be a string", i);
    }
    return 0;
}

/* ---- the fields around the messages ---- */

static int parse_tools(struct api_request *r, struct octavo_error *err)
{
    const json_t *tools = json_object_get(r->root, "tools");
    const json_t *choice = json_object_get(r->root, "tool_choice");
    const char *word = json_string_value(choice);
    if (tools && !json_is_null(tools)) {
        int e = chat_tools_check(tools, err);
        if (e < 0)
            return e;
        r->tools = json_array_size(tools) ? tools : NULL;
    }
    if (!choice || json_is_null(choice) || (word && (!strcmp(word, "auto") || !strcmp(word, "none"))))
        return 0;
    if (json_is_object(choice) || (word && !strcmp(word, "required")))
        return error_set_param(err, OCTAVO_EUNSUPPORTED, "tool_choice",
                               "tool_choice \"%s\" is not supported yet: use \"auto\" or \"none\"",
                               word ? word : "function");
    return error_set_param(err, OCTAVO_EINVAL, "tool_choice", "tool_choice must be \"auto\" or \"none\"");
}

int api_request_parse_chat(struct api_request *r, struct octavo_error *err)
{
    r->messages = json_object_get(r->root, "messages");
    int e = chat_messages_check(r->messages, err);
    if (e == 0)
        e = parse_tools(r, err);
    if (e < 0)
        return e;

    const json_t *documents = json_object_get(r->root, "documents");
    if (documents && !json_is_null(documents) && !json_is_array(documents))
        return error_set_param(err, OCTAVO_EINVAL, "documents", "documents must be a list");
    r->documents = json_is_array(documents) ? documents : NULL;

    json_t *kwargs = json_object_get(r->root, "chat_template_kwargs");
    if (kwargs && !json_is_null(kwargs) && !json_is_object(kwargs))
        return error_set_param(err, OCTAVO_EINVAL, "chat_template_kwargs", "chat_template_kwargs must be an object");
    if (json_is_object(kwargs))
        r->kwargs = json_copy(kwargs);
    const char *effort = NULL;
    if ((e = json_get_string(r->root, "request", "reasoning_effort", &effort, err)) < 0)
        return e;
    if (effort) {
        if (!r->kwargs)
            r->kwargs = json_object();
        if (!json_object_get(r->kwargs, "reasoning_effort"))
            json_object_set(r->kwargs, "reasoning_effort", json_object_get(r->root, "reasoning_effort"));
    }

    bool explicit_generation = json_is_true(json_object_get(r->root, "add_generation_prompt"));
    if ((e = json_get_bool(r->root, "request", "add_generation_prompt", &r->add_generation_prompt, err)) < 0 ||
        (e = json_get_bool(r->root, "request", "continue_final_message", &r->continue_final_message, err)) < 0)
        return e;
    if (r->continue_final_message && explicit_generation)
        return error_set_param(err, OCTAVO_EINVAL, "continue_final_message",
                               "cannot set both continue_final_message and add_generation_prompt to true");
    if (r->continue_final_message)
        r->add_generation_prompt = false;
    return 0;
}
