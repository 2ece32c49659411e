/* ModelSlim checkpoints (quant_model_description.json): what each linear is and where its numbers lie; private to
 * ckpt/. Loading thread. */
#ifndef OCTAVO_CKPT_MODELSLIM_H
#define OCTAVO_CKPT_MODELSLIM_H

#include "base/json.h"
#include "ckpt/linear.h"

/* The keys that concern the whole model; what is not implemented is refused by name. what names the file.
 * *ret_c8: the cache is INT8 where a layer has scales. */
int modelslim_check(const json_t *description, const char *what, bool *ret_c8, struct octavo_error *err);
/* Resolves module (n, k), whose weight is in the files. FLOAT leaves spec.weight NULL: the caller checks it. */
int modelslim_linear(struct tensor_source *src, const json_t *description, const char *what, const char *module, int n,
                     int k, struct linear_entry *ret, struct octavo_error *err);
/* The types that the description gives to whole attention modules. */
int modelslim_layers_check(const struct tensor_source *src, const json_t *description, const char *what,
                           struct octavo_error *err);
/* Tensors that change what the model computes and are not implemented, by name. */
int modelslim_refuse(const struct tensor_source *src, struct octavo_error *err);
/* Biases of norms; and copies that older tools leave as <norm>.module.*. */
int modelslim_norm(struct tensor_source *src, const char *module, struct octavo_error *err);

#endif
