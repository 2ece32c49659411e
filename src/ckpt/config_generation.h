/* generation_config.json and the stop ids that both files give, private to ckpt/. */
#ifndef OCTAVO_CKPT_CONFIG_GENERATION_H
#define OCTAVO_CKPT_CONFIG_GENERATION_H

#include "base/json.h"
#include "ckpt/config.h"

/* Adds eos_token_id (an integer, a list or null) of root to config->eos_token_ids. An id that the vocabulary does not
 * have can never be sampled and is dropped; a negative one is an error. */
int config_eos_parse(const json_t *root, const char *what, struct model_config *config, struct octavo_error *err);
/* Fills *ret, and adds the file's stop ids to config. */
int config_generation_parse(const json_t *root, const char *what, struct model_config *config,
                            struct generation_config *ret, struct octavo_error *err);

#endif
