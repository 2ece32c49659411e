/* safetensors files: mapped, every rule of the format checked, tensors as views into the map.
 * Format: https://github.com/huggingface/safetensors (README, "Format"). Called by checkpoint.c while loading. */
#ifndef OCTAVO_CKPT_SAFETENSORS_H
#define OCTAVO_CKPT_SAFETENSORS_H

#include "base/err.h"
#include "base/file.h"

#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_BOOL,
    DTYPE_F4,
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E5M2,
    DTYPE_F8_E4M3,
    DTYPE_F8_E8M0,
    DTYPE_F8_E4M3FNUZ,
    DTYPE_F8_E5M2FNUZ,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_C64,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_COUNT,
};

const char *dtype_name(enum dtype dtype); /* the format's own: "BF16" */
int dtype_bits(enum dtype dtype);
int dtype_parse(const char *name, enum dtype *ret); /* 0, or -1 */

#define TENSOR_MAX_DIMS 8

/* A view; owned by the safetensors_file (or checkpoint) it came from. data need not be aligned. */
struct tensor {
    const char *name;
    enum dtype dtype;
    int num_dims;
    int64_t shape[TENSOR_MAX_DIMS];
    const uint8_t *data; /* NULL for a dummy tensor until checkpoint_tensor_pin */
    size_t bytes;
    const char *file; /* path it lies in, for messages */
};

/* Tensors in the order of their offsets. */
struct safetensors_file {
    char *path;
    struct file_map map;
    struct tensor *tensors;
    size_t num_tensors;
    char *names; /* arena of the names */
};

int safetensors_open(const char *path, struct safetensors_file *ret_file, struct octavo_error *err);
void safetensors_close(struct safetensors_file *file); /* also fine on a zeroed struct */
/* Parses a mapped image: the checks without the file system, for tests and fuzzing. path is for messages. */
int safetensors_parse(const uint8_t *data, size_t size, const char *path, struct safetensors_file *ret_file,
                      struct octavo_error *err);

#endif
