/* What the flags that serving and evaluating share mean for a checkpoint: the types of its cache, quantising at load,
 * the tier of kernels. flag is the flag's name without its dashes, for messages; a bad value is OCTAVO_EINVAL. */
#ifndef OCTAVO_MODEL_CHOOSE_H
#define OCTAVO_MODEL_CHOOSE_H

#include "base/cpu.h"
#include "ckpt/checkpoint.h"

/* The type of each layer's cache, (num_hidden_layers), the caller's to free. auto: INT8 where the checkpoint has C8
 * scales, else its own type. int8: the same, but there must be scales, or dummy weights that need none. */
int model_choose_kv_dtypes(const struct checkpoint *ckpt, const char *flag, const char *name, bool dummy,
                           enum dtype **ret, struct octavo_error *err);
/* One word for them, n of them: "int8". */
const char *model_kv_dtypes_name(const enum dtype *dtypes, int n);
/* "w8a8" quantises a float checkpoint; the names that vLLM has for the formats must be what the files say; NULL is
 * "none". */
int model_choose_quantization(const struct checkpoint *ckpt, const char *flag, const char *name, bool *ret_w8a8,
                              struct octavo_error *err);
/* auto: what the environment's OCTAVO_ISA says, else the best that the CPU has. */
int model_choose_isa(const char *name, enum cpu_isa *ret, struct octavo_error *err);

#endif
