/* Compiles and renders arbitrary bytes as a chat template, over a fixed conversation and small limits. */
#include "text/jinja.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char context_text[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Hi "
    "\\u00e9\\ud83c\\udf89\"},"
    "{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"id\": \"call00001\", \"function\": {\"name\": "
    "\"f\","
    "\"arguments\": {\"a\": 1, \"b\": [1.5, null, true]}}}]}, {\"role\": \"tool\", \"content\": \"{}\"}],"
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}],"
    "\"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"xs\": [3, 1, 2], \"s\": \"Hello World\", \"i\": 7, "
    "\"f\": 1.5,"
    "\"n\": null, \"t\": true, \"d\": {\"b\": 1, \"a\": {\"x\": [1, 2]}}, \"e\": []}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct octavo_error err;
    struct jinja_template *t = NULL;
    if (jinja_compile((const char *)data, size, "fuzz", &t, &err) < 0)
        return 0;
    json_t *context = json_loads(context_text, 0, NULL);
    if (!context)
        abort();
    struct jinja_limits limits = {.max_steps = 20000, .max_memory = 8 << 20, .max_output = 1 << 20};
    struct buf out = {0};
    jinja_loops_over_content(t);
    jinja_render(t, context, &limits, &out, &err);
    buf_release(&out);
    json_decref(context);
    jinja_free(t);
    return 0;
}
