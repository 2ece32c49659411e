/* Finds out how a checkpoint is quantised, private to ckpt/. */
#ifndef OCTAVO_CKPT_QUANT_H
#define OCTAVO_CKPT_QUANT_H

#include "base/json.h"

/* Detection in upstream's order: a ModelSlim description in dir (may be NULL: no folder) first, then config's
 * quantization_config. A float checkpoint is 0; anything else is refused by name. */
int quant_detect(const char *dir, const json_t *config, const char *what, struct octavo_error *err);

#endif
