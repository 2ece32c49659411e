/* The RoPE part of config.json, private to ckpt/. */
#ifndef OCTAVO_CKPT_CONFIG_ROPE_H
#define OCTAVO_CKPT_CONFIG_ROPE_H

#include "base/json.h"
#include "ckpt/config.h"

/* Fills config->rope for every layer type and config->max_model_len. Needs head_dim, layer_types, num_hidden_layers
 * and max_position_embeddings to be there already. what names the file in messages. */
int config_rope_parse(const json_t *root, const char *what, struct model_config *config, struct octavo_error *err);

#endif
