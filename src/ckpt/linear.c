/* Integers, scales and zero points of a linear, out of their packings: see linear.h. */
#include "ckpt/linear.h"

#include "base/mem.h"
#include "ckpt/values.h"

#include <stdio.h>
#include <string.h>

void linear_entry_init(struct linear_entry *l, const char *kind, int n, int k)
{
    *l = (struct linear_entry){0};
    snprintf(l->spec.kind, sizeof(l->spec.kind), "%s", kind);
    l->spec.n = n;
    l->spec.k = k;
    l->spec.group_size = k;
}

/* ---- integers ---- */

static inline int8_t low_nibble(uint8_t b)
{
    return (int8_t)((b & 15) ^ 8) - 8;
}

static inline int8_t high_nibble(uint8_t b)
{
    return (int8_t)((b >> 4) ^ 8) - 8;
}

static void pair_rows(const uint8_t *data, size_t k, int row, int rows, int8_t *q)
{
    for (int r = 0; r < rows; r++, q += k) {
        const uint8_t *src = data + (size_t)((row + r) / 2) * k;
        if ((row + r) % 2)
            for (size_t j = 0; j < k; j++)
                q[j] = high_nibble(src[j]);
        else
            for (size_t j = 0; j < k; j++)
                q[j] = low_nibble(src[j]);
    }
}

static void pair_along(const uint8_t *data, size_t k, int row, int rows, int8_t *q)
{
    const uint8_t *src = data + (size_t)row * (k / 2);
    for (size_t j = 0; j < (size_t)rows * (k / 2); j++) {
        q[2 * j] = low_nibble(src[j]);
        q[2 * j + 1] = high_nibble(src[j]);
    }
}

/* A row of words read as bytes is the same stream, since both are little-endian. Its words hold whole bytes: the
 * second byte of a value that crosses one is within the row. */
static void stream_row(const uint8_t *src, size_t k, int bits, int8_t *q)
{
    unsigned mask = (1u << bits) - 1;
    int bias = 1 << (bits - 1);
    for (size_t j = 0; j < k; j++) {
        size_t bit = j * (size_t)bits;
        unsigned shift = bit & 7, v = src[bit / 8];
        if (shift + (unsigned)bits > 8)
            v |= (unsigned)src[bit / 8 + 1] << 8;
        q[j] = (int8_t)((int)(v >> shift & mask) - bias);
    }
}

static size_t stream_bytes(int count, int bits)
{
    return ((size_t)count * (size_t)bits + 31) / 32 * 4;
}

void linear_rows(const struct linear_entry *l, int row, int rows, int8_t *q)
{
    const uint8_t *data = l->spec.weight->data;
    size_t k = (size_t)l->spec.k, bytes = stream_bytes(l->spec.k, l->stream_bits);
    switch (l->packing) {
    case PACKED_INT8:
        memcpy(q, data + (size_t)row * k, (size_t)rows * k);
        break;
    case PACKED_PAIR_ROWS:
        pair_rows(data, k, row, rows, q);
        break;
    case PACKED_PAIR_ALONG:
        pair_along(data, k, row, rows, q);
        break;
    case PACKED_STREAM:
        for (int r = 0; r < rows; r++)
            stream_row(data + (size_t)(row + r) * bytes, k, l->stream_bits, q + (size_t)r * k);
        break;
    }
}

/* ---- scales ---- */

int linear_packed_zero(const struct linear_entry *l, const struct tensor *zero, int n, int g)
{
    size_t groups = (size_t)(l->spec.k / l->spec.group_size), bits = (size_t)l->stream_bits;
    size_t bit = (size_t)n * bits, word = bit / 32, shift = bit % 32;
    uint64_t v = (uint32_t)tensor_integer(zero, word * groups + (size_t)g);
    if (shift + bits > 32)
        v |= (uint64_t)(uint32_t)tensor_integer(zero, (word + 1) * groups + (size_t)g) << 32;
    return (int)(v >> shift & ((1u << bits) - 1)) - (1 << (bits - 1));
}

void linear_scales(const struct linear_entry *l, float *scale, float *zero)
{
    int groups = l->spec.k / l->spec.group_size;
    size_t count = (size_t)l->spec.n * (size_t)groups;
    bool one = tensor_count(l->scale) == 1;
    for (size_t i = 0; i < count; i++)
        scale[i] = tensor_value(l->scale, one ? 0 : i);
    if (!zero)
        return;
    for (int n = 0; n < l->spec.n; n++)
        for (int g = 0; g < groups; g++) {
            size_t i = (size_t)n * (size_t)groups + (size_t)g;
            if (!l->zero)
                zero[i] = 0;
            else if (l->zero_packed)
                zero[i] = (float)linear_packed_zero(l, l->zero, n, g);
            else
                zero[i] = tensor_value(l->zero, tensor_count(l->zero) == 1 ? 0 : i);
        }
}

static float deq_value(const struct tensor *t, size_t i)
{
    if (t->dtype != DTYPE_I64)
        return tensor_value(t, i);
    uint32_t bits = (uint32_t)tensor_integer(t, i); /* a float32 that was widened as an integer */
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

void linear_folded(const struct linear_entry *l, int32_t *quant_bias, float *deq_scale)
{
    for (size_t i = 0; i < (size_t)l->spec.n; i++) {
        quant_bias[i] = (int32_t)tensor_integer(l->quant_bias, i);
        deq_scale[i] = deq_value(l->deq_scale, i);
    }
}

/* ---- checks ---- */

int linear_groups_of(const struct tensor *scale, int n, int k, int *ret_groups, struct octavo_error *err)
{
    size_t count = tensor_count(scale);
    *ret_groups = count % (size_t)n ? 0 : (int)MIN(count / (size_t)n, (size_t)k);
    if (*ret_groups && k % *ret_groups == 0 && shape_is(scale, n, *ret_groups))
        return 0;
    char found[200];
    shape_format(found, scale->num_dims, scale->shape);
    return error_set(
        err, OCTAVO_EINVAL,
        "tensor %s in %s has the shape %s, but must be (%d, 1), or (%d, groups) with groups that divide %d",
        scale->name, scale->file, found, n, n, k);
}

int linear_int8_check(const struct linear_entry *l, const struct tensor *weight, struct octavo_error *err)
{
    if (l->spec.k <= LINEAR_MAX_INT8_K)
        return 0;
    return error_set(err, OCTAVO_EUNSUPPORTED,
                     "tensor %s in %s: %s sums %d products of 8-bit integers, but at most %d fit 32 bits", weight->name,
                     weight->file, l->spec.kind, l->spec.k, LINEAR_MAX_INT8_K);
}

int linear_weight_error(const struct tensor *t, const char *kind, int n, int k, struct octavo_error *err)
{
    char found[200];
    shape_format(found, t->num_dims, t->shape);
    return error_set(err, OCTAVO_EINVAL,
                     "tensor %s in %s is %s with the shape %s, which is not how %s stores (%d, %d) integers", t->name,
                     t->file, dtype_name(t->dtype), found, kind, n, k);
}
