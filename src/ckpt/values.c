/* Elements of small tensors: see values.h. Any thread. */
#include "ckpt/values.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

bool dtype_is_float(enum dtype dtype)
{
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32;
}

bool dtype_is_int(enum dtype dtype)
{
    return dtype == DTYPE_I8 || dtype == DTYPE_U8 || dtype == DTYPE_I16 || dtype == DTYPE_I32 || dtype == DTYPE_I64;
}

size_t tensor_count(const struct tensor *t)
{
    return t->bytes * 8 / (size_t)dtype_bits(t->dtype);
}

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static float f16_value(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ffu;
    if (exponent == 31)
        return bits_f32(sign | 0x7f800000u | mantissa << 13);
    if (exponent)
        return bits_f32(sign | (exponent + 112) << 23 | mantissa << 13);
    float small = (float)mantissa * 0x1p-24f;
    return sign ? -small : small;
}

static uint64_t load(const struct tensor *t, size_t i, size_t bytes)
{
    uint64_t u = 0;
    for (size_t b = bytes; b-- > 0;)
        u = u << 8 | t->data[i * bytes + b];
    return u;
}

int64_t tensor_integer(const struct tensor *t, size_t i)
{
    switch (t->dtype) {
    case DTYPE_I8:
        return (int8_t)t->data[i];
    case DTYPE_U8:
        return t->data[i];
    case DTYPE_I16:
        return (int16_t)load(t, i, 2);
    case DTYPE_I32:
        return (int32_t)load(t, i, 4);
    default:
        return (int64_t)load(t, i, 8);
    }
}

float tensor_value(const struct tensor *t, size_t i)
{
    switch (t->dtype) {
    case DTYPE_F32:
        return bits_f32((uint32_t)load(t, i, 4));
    case DTYPE_BF16:
        return bits_f32((uint32_t)load(t, i, 2) << 16);
    case DTYPE_F16:
        return f16_value((uint16_t)load(t, i, 2));
    default:
        return (float)tensor_integer(t, i);
    }
}

/* ---- shapes ---- */

void shape_format(char out[200], int num_dims, const int64_t *shape)
{
    size_t n = 0;
    out[n++] = '(';
    for (int i = 0; i < num_dims && n < 170; i++)
        n += (size_t)snprintf(out + n, 200 - n, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(out + n, 200 - n, ")");
}

bool shape_is(const struct tensor *t, int64_t rows, int64_t columns)
{
    const int64_t want[2] = {rows, columns};
    int at = 0;
    for (int i = 0; i < t->num_dims; i++) {
        if (t->shape[i] == 1)
            continue;
        while (at < 2 && want[at] == 1)
            at++;
        if (at == 2 || want[at++] != t->shape[i])
            return false;
    }
    while (at < 2 && want[at] == 1)
        at++;
    return at == 2;
}

static int shape_check(const struct tensor *t, int64_t rows, int64_t columns, struct octavo_error *err)
{
    char found[200], expected[200];
    if (shape_is(t, rows, columns))
        return 0;
    shape_format(found, t->num_dims, t->shape);
    shape_format(expected, columns == 1 && rows == 1 ? 1 : 2, (const int64_t[]){rows, columns});
    return error_set(err, OCTAVO_EINVAL, "tensor %s in %s has the shape %s, but must be %s (dimensions of 1 may lack)",
                     t->name, t->file, found, expected);
}

/* ---- values ---- */

int scale_values_check(const struct tensor *t, struct octavo_error *err)
{
    if (!dtype_is_float(t->dtype))
        return error_set(err, OCTAVO_EUNSUPPORTED, "tensor %s in %s is %s, but a scale must be BF16, F16 or F32",
                         t->name, t->file, dtype_name(t->dtype));
    size_t n = tensor_count(t);
    for (size_t i = 0; i < n; i++) {
        float v = tensor_value(t, i);
        if (!(v > 0) || !isfinite(v) || !isfinite(1 / v))
            return error_set(
                err, OCTAVO_EINVAL,
                "tensor %s in %s: element %zu is %g, but a scale must be positive, finite and not so small "
                "that its reciprocal overflows; the checkpoint is damaged",
                t->name, t->file, i, (double)v);
    }
    return 0;
}

int scale_check(const struct tensor *t, int64_t rows, int64_t columns, struct octavo_error *err)
{
    int r = shape_check(t, rows, columns, err);
    return r < 0 ? r : scale_values_check(t, err);
}

int offset_values_check(const struct tensor *t, bool *ret_any, struct octavo_error *err)
{
    *ret_any = false;
    if (!dtype_is_float(t->dtype) && !dtype_is_int(t->dtype))
        return error_set(err, OCTAVO_EUNSUPPORTED,
                         "tensor %s in %s is %s, but an offset must be BF16, F16, F32 or an integer type", t->name,
                         t->file, dtype_name(t->dtype));
    size_t n = tensor_count(t);
    for (size_t i = 0; i < n; i++) {
        float v = tensor_value(t, i);
        if (!isfinite(v))
            return error_set(err, OCTAVO_EINVAL,
                             "tensor %s in %s: element %zu is %g, but an offset must be finite; the checkpoint is "
                             "damaged",
                             t->name, t->file, i, (double)v);
        *ret_any |= v != 0;
    }
    return 0;
}

int offset_check(const struct tensor *t, int64_t rows, int64_t columns, bool *ret_any, struct octavo_error *err)
{
    int r = shape_check(t, rows, columns, err);
    return r < 0 ? r : offset_values_check(t, ret_any, err);
}
