/* model_config_parse on any text: config.json, and after a NUL generation_config.json. What it accepts must keep the
 * promises of config.h. */
#include "ckpt/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *nul = size ? memchr(text, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - text) : size;
    struct model_config c;
    struct generation_config g;
    struct octavo_error err;
    if (model_config_parse(text, len, nul ? nul + 1 : NULL, nul ? size - len - 1 : 0, &c, &g, &err) < 0)
        return 0;
    if (c.num_hidden_layers < 1 || c.num_hidden_layers > CONFIG_MAX_LAYERS || c.head_dim < 2 || c.head_dim % 2 ||
        c.num_attention_heads % c.num_key_value_heads || c.max_model_len < 1 || c.vocab_size < 1)
        abort();
    for (int i = 0; i < LAYER_TYPE_COUNT; i++)
        if (!isfinite(c.rope[i].theta) || !(c.rope[i].factor >= 1) || !(c.rope[i].attention_factor > 0))
            abort();
    for (int i = 0; i < c.num_eos_token_ids; i++)
        if (c.eos_token_ids[i] < 0 || c.eos_token_ids[i] >= c.vocab_size)
            abort();
    return 0;
}
