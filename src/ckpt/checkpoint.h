/* A checkpoint: a folder of config.json and safetensors, checked as a whole and given out as named tensors.
 * The engine and `octavo inspect` open it the same way, so what one accepts the other does. Single-threaded but for
 * checkpoint_tensor_pin, which may run on several threads for different tensors. */
#ifndef OCTAVO_CKPT_CHECKPOINT_H
#define OCTAVO_CKPT_CHECKPOINT_H

#include "base/err.h"
#include "ckpt/config.h"
#include "ckpt/safetensors.h"

struct checkpoint;

enum load_format { LOAD_AUTO, LOAD_DUMMY };

/* Opens the folder: config, index or single file, every shard; then checks that every tensor the architecture needs
 * is there with the right shape and a float type (BF16, F16, F32), and that optional ones (biases, lm_head) are right
 * where they appear. LOAD_DUMMY needs config.json only and describes the same tensors in config's dtype. */
int checkpoint_open(const char *dir, enum load_format format, uint64_t seed, struct checkpoint **ret_ckpt,
                    struct octavo_error *err);
void checkpoint_free(struct checkpoint *ckpt);

const char *checkpoint_dir(const struct checkpoint *ckpt);
const struct model_config *checkpoint_config(const struct checkpoint *ckpt);
const struct generation_config *checkpoint_generation_config(const struct checkpoint *ckpt);
size_t checkpoint_num_tensors(const struct checkpoint *ckpt);
const struct tensor *checkpoint_tensor(const struct checkpoint *ckpt, size_t i);
const struct tensor *checkpoint_find(const struct checkpoint *ckpt, const char *name); /* NULL when absent */

/* Tensors the architecture does not use (left over from other tools): named by inspect, a warning when serving. */
size_t checkpoint_num_unused(const struct checkpoint *ckpt);
const struct tensor *checkpoint_unused(const struct checkpoint *ckpt, size_t i);

/* The bytes of t, until unpin. For a file they are the map's; for a dummy they are made here (deterministic in seed
 * and the tensor's name; linears and embeddings normal-like with standard deviation 0.02, norms 1, biases small). NULL
 * when memory is refused. unpin lets the system drop the pages. */
const uint8_t *checkpoint_tensor_pin(const struct checkpoint *ckpt, const struct tensor *t);
void checkpoint_tensor_unpin(const struct checkpoint *ckpt, const struct tensor *t, const uint8_t *data);

#endif
