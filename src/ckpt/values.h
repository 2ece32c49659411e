/* Elements of small tensors (scales, offsets, biases) as numbers, and the checks they must pass; private to ckpt/.
 * Pure functions; data need not be aligned. */
#ifndef OCTAVO_CKPT_VALUES_H
#define OCTAVO_CKPT_VALUES_H

#include "ckpt/safetensors.h"

#include <stdbool.h>

bool dtype_is_float(enum dtype dtype); /* BF16, F16, F32: what scales and float weights may be */
bool dtype_is_int(enum dtype dtype);   /* I8, U8, I16, I32, I64 */
size_t tensor_count(const struct tensor *t);
/* Element i of a float or integer tensor (see above); an integer is rounded to float32. */
float tensor_value(const struct tensor *t, size_t i);
int64_t tensor_integer(const struct tensor *t, size_t i); /* of an integer tensor */
/* Writes "(8, 4)". */
void shape_format(char out[200], int num_dims, const int64_t *shape);
/* The shapes are the same when dimensions of 1 are left out. */
bool shape_is(const struct tensor *t, int64_t rows, int64_t columns);

/* A scale of (rows, columns): a float type, that shape, every value positive, finite and with a finite reciprocal. */
int scale_check(const struct tensor *t, int64_t rows, int64_t columns, struct octavo_error *err);
/* The same without the shape. */
int scale_values_check(const struct tensor *t, struct octavo_error *err);
/* An offset of (rows, columns), float or integer: every value finite. *ret_any: one is not 0. */
int offset_check(const struct tensor *t, int64_t rows, int64_t columns, bool *ret_any, struct octavo_error *err);
int offset_values_check(const struct tensor *t, bool *ret_any, struct octavo_error *err);

#endif
