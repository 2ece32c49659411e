/* The tensors of each architecture, in one table: what checkpoint_open requires, what a dummy invents and what inspect
 * counts. Pure functions of the config. */
#ifndef OCTAVO_CKPT_ARCH_H
#define OCTAVO_CKPT_ARCH_H

#include "ckpt/config.h"

#include <stdbool.h>
#include <stddef.h>

enum arch_role { ARCH_EMBEDDING, ARCH_LINEAR, ARCH_BIAS, ARCH_NORM };

struct arch_tensor {
    char name[64];
    enum arch_role role;
    bool required;
    const char *reason; /* why, for the message when it is missing: "tie_word_embeddings is false" */
    int num_dims;
    int64_t shape[2]; /* (rows, columns), or (channels) */
};

/* Tensors the architecture knows, required and optional. The order is the model's: embedding, layers, norm, head. */
size_t arch_num_tensors(const struct model_config *config);
void arch_tensor_at(const struct model_config *config, size_t i, struct arch_tensor *ret);

#endif
