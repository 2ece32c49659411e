/* Linears: see linear.h. Loading runs on the opening thread and its workers, the rest on the workers of a step. */
#include "model/linear.h"

#include "base/mem.h"
#include "kernel/ref/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

float tensor_elem(const uint8_t *p, enum dtype dtype)
{
    uint16_t h;
    float f;
    if (dtype == DTYPE_F32) {
        memcpy(&f, p, 4);
        return f;
    }
    memcpy(&h, p, 2);
    return dtype == DTYPE_BF16 ? f32_from_bf16(h) : f32_from_f16(h);
}

static size_t elem_bytes(enum dtype dtype)
{
    return (size_t)dtype_bits(dtype) / 8;
}

static int padded_k(int k)
{
    return (k + 3) / 4 * 4;
}

static int num_panels(const struct linear *l)
{
    return (l->n + GEMM_NR - 1) / GEMM_NR;
}

static int num_groups(const struct linear *l)
{
    return (l->k + l->group_size - 1) / l->group_size;
}

static enum linear_kind spec_kind(const struct linear_spec *s, bool quantize)
{
    if (!s->quantised)
        return quantize ? LINEAR_INT8 : LINEAR_FLOAT;
    return s->activation == ACTIVATION_FLOAT ? LINEAR_W8A16 : LINEAR_INT8;
}

static size_t packed_bytes(const struct linear_spec *s, enum linear_kind kind)
{
    size_t elem = kind == LINEAR_FLOAT ? elem_bytes(s->weight->dtype) : 1;
    return gemm_packed_elems(s->n, kind == LINEAR_INT8 ? padded_k(s->k) : s->k) * elem;
}

size_t linear_bytes(const struct checkpoint *ckpt, const char *module, bool quantize)
{
    struct linear_spec spec;
    checkpoint_linear(ckpt, module, &spec);
    return packed_bytes(&spec, spec_kind(&spec, quantize));
}

/* ---- packing ---- */

struct pack_job {
    struct linear *l;
    const struct checkpoint *ckpt;
    const struct linear_spec *spec;
    const uint8_t *data; /* of a float weight */
    const float *zero;   /* (n, groups) or NULL */
    _Atomic bool failed;
};

/* Element (j, i) of an INT8 weight: (panel, k4 / 4, GEMM_NR, 4). */
static void pack_int8_row(struct linear *l, int j, const int8_t *q)
{
    size_t k4 = (size_t)padded_k(l->k);
    int8_t *to = (int8_t *)l->weight + (size_t)(j / GEMM_NR) * k4 * GEMM_NR + (size_t)(j % GEMM_NR) * 4;
    int32_t sum = 0;
    for (size_t i = 0; i < (size_t)l->k; i++) {
        to[i / 4 * 4 * GEMM_NR + i % 4] = q[i];
        sum += q[i];
    }
    l->w_sum[j] = sum;
}

static void pack_w8a16_row(struct linear *l, int j, const int8_t *q)
{
    int8_t *to = (int8_t *)l->weight + (size_t)(j / GEMM_NR) * (size_t)l->k * GEMM_NR + (size_t)(j % GEMM_NR);
    for (size_t i = 0; i < (size_t)l->k; i++)
        to[i * GEMM_NR] = q[i];
}

/* One row of float weights to integers with absmax / 127. */
static float quantize_row(const uint8_t *row, enum dtype dtype, int k, float *x, int8_t *q)
{
    float max = 0;
    for (int i = 0; i < k; i++) {
        x[i] = tensor_elem(row + (size_t)i * elem_bytes(dtype), dtype);
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    }
    float scale = max > 0 ? max / 127.0f : 1.0f;
    for (int i = 0; i < k; i++) {
        float v = (x[i] / scale + 0x1.8p23f) - 0x1.8p23f;
        q[i] = (int8_t)(v > 127.0f ? 127 : v > -127.0f ? (int)v : -127);
    }
    return scale;
}

static void pack_worker(void *arg, int worker, int num_workers)
{
    struct pack_job *job = arg;
    struct linear *l = job->l;
    const struct linear_spec *s = job->spec;
    int begin, end;
    pool_slice(l->n, GEMM_NR, worker, num_workers, &begin, &end);
    if (l->kind == LINEAR_FLOAT) {
        size_t row_bytes = (size_t)l->k * elem_bytes(l->dtype);
        gemm_pack(l->weight, job->data + (size_t)begin * row_bytes, (int)elem_bytes(l->dtype), begin, end - begin,
                  l->k);
        return;
    }
    int8_t *q = mem_alloc((size_t)l->k);
    float *x = s->quantised ? NULL : mem_alloc((size_t)l->k * sizeof(*x));
    for (int j = begin; j < end && !job->failed; j++) {
        if (!s->quantised)
            l->col_scale[j] = quantize_row(job->data + (size_t)j * (size_t)l->k * elem_bytes(s->weight->dtype),
                                           s->weight->dtype, l->k, x, q);
        else if (checkpoint_linear_rows(job->ckpt, s, j, 1, q) < 0)
            job->failed = true;
        if (l->kind == LINEAR_W8A16)
            pack_w8a16_row(l, j, q);
        else
            pack_int8_row(l, j, q);
    }
    free(q);
    free(x);
}

/* (n, groups) to (panels, groups, GEMM_NR). */
static float *pack_groups(const struct linear *l, const float *from)
{
    size_t groups = (size_t)num_groups(l);
    float *to = mem_calloc((size_t)num_panels(l) * groups * GEMM_NR, sizeof(*to));
    for (size_t j = 0; j < (size_t)l->n; j++)
        for (size_t g = 0; g < groups; g++)
            to[(j / GEMM_NR * groups + g) * GEMM_NR + j % GEMM_NR] = from[j * groups + g];
    return to;
}

static void int8_columns_init(struct linear *l)
{
    size_t n = (size_t)num_panels(l) * GEMM_NR;
    l->w_sum = mem_calloc(n, sizeof(*l->w_sum));
    l->col_scale = mem_calloc(n, sizeof(*l->col_scale));
}

/* After packing, when the sums of the weights are known: what the epilogue adds and multiplies by. */
static void int8_columns_finish(struct linear *l, const struct checkpoint *ckpt, const struct linear_spec *s,
                                const float *zero)
{
    size_t n = (size_t)l->n, padded = (size_t)num_panels(l) * GEMM_NR;
    if (s->folded) {
        l->col_add = mem_calloc(padded, sizeof(*l->col_add));
        checkpoint_linear_folded(ckpt, s, l->col_add, l->col_scale);
        return;
    }
    bool asym = l->activation == ACTIVATION_INT8_DYNAMIC_ASYM;
    if (zero)
        l->col_zero = mem_calloc(padded, sizeof(*l->col_zero));
    if (asym)
        l->col_sum = mem_calloc(padded, sizeof(*l->col_sum));
    if (l->activation == ACTIVATION_INT8_STATIC)
        l->col_add = mem_calloc(padded, sizeof(*l->col_add));
    for (size_t j = 0; j < n; j++) {
        int32_t z = zero ? (int32_t)zero[j] : 0, sum = l->w_sum[j] - l->k * z;
        if (zero)
            l->col_zero[j] = z;
        if (asym)
            l->col_sum[j] = sum;
        if (l->col_add) { /* static: the input's zero point is known, and so is its product with the weights */
            l->col_add[j] =
                (int32_t)(0u - (uint32_t)(int32_t)s->input_offset * (uint32_t)sum); /* wraps as the sum does */
            l->col_scale[j] *= s->input_scale;
        }
    }
}

static int bias_load(struct linear *l, const struct checkpoint *ckpt, const struct tensor *t)
{
    if (!t)
        return 0;
    const uint8_t *data = checkpoint_tensor_pin(ckpt, t);
    if (!data)
        return OCTAVO_ENOMEM;
    l->bias = mem_calloc((size_t)num_panels(l) * GEMM_NR, sizeof(*l->bias));
    for (size_t i = 0; i < (size_t)l->n; i++)
        l->bias[i] = tensor_elem(data + i * elem_bytes(t->dtype), t->dtype);
    checkpoint_tensor_unpin(ckpt, t, data);
    return 0;
}

int linear_load(struct linear *l, const struct checkpoint *ckpt, struct pool *pool, const char *module, bool quantize,
                const uint8_t *data_pinned, struct octavo_error *err)
{
    struct linear_spec s;
    checkpoint_linear(ckpt, module, &s);
    *l = (struct linear){.kind = spec_kind(&s, quantize), .n = s.n, .k = s.k, .dtype = s.weight->dtype};
    l->activation = s.quantised ? s.activation : ACTIVATION_INT8_DYNAMIC;
    l->group_size = s.quantised ? s.group_size : s.k;
    l->input_offset = s.input_offset;
    if (l->activation == ACTIVATION_INT8_STATIC && s.quantised)
        l->input_inv_scale = 1.0f / s.input_scale;
    l->weight_bytes = packed_bytes(&s, l->kind);
    l->weight = mem_map(l->weight_bytes);
    float *scale = NULL, *zero = NULL;
    struct pack_job job = {.l = l, .ckpt = ckpt, .spec = &s, .data = data_pinned};
    if (!s.quantised && !data_pinned)
        job.data = checkpoint_tensor_pin(ckpt, s.weight);
    bool ok = l->weight && (s.quantised || job.data);
    if (ok && l->kind == LINEAR_INT8)
        int8_columns_init(l);
    if (ok && s.quantised && !s.folded) {
        size_t elems = (size_t)s.n * (size_t)num_groups(l);
        scale = mem_try_array(elems, sizeof(float));
        zero = s.has_zero ? mem_try_array(elems, sizeof(float)) : NULL;
        ok = scale && (zero || !s.has_zero);
        if (ok)
            checkpoint_linear_scales(ckpt, &s, scale, zero);
    }
    if (ok) {
        if (scale && l->kind == LINEAR_INT8)
            memcpy(l->col_scale, scale, (size_t)s.n * sizeof(float));
        pool_run(pool, pack_worker, &job);
        if (l->kind == LINEAR_INT8)
            int8_columns_finish(l, ckpt, &s, zero);
        if (l->kind == LINEAR_W8A16) {
            l->scale = pack_groups(l, scale);
            l->zero = zero ? pack_groups(l, zero) : NULL;
        }
        ok = !job.failed && bias_load(l, ckpt, s.bias) == 0;
    }
    if (!s.quantised && !data_pinned && job.data)
        checkpoint_tensor_unpin(ckpt, s.weight, job.data);
    free(scale);
    free(zero);
    return ok ? 0 : error_set(err, OCTAVO_ENOMEM, "no memory for %s (%zu bytes)", module, l->weight_bytes);
}

void linear_release(struct linear *l)
{
    mem_unmap(l->weight, l->weight_bytes);
    void *const arrays[] = {l->bias, l->w_sum, l->col_add, l->col_sum, l->col_zero, l->col_scale, l->scale, l->zero};
    for (size_t i = 0; i < ARRAY_LEN(arrays); i++)
        free(arrays[i]);
    *l = (struct linear){0};
}

/* ---- running ---- */

static bool same_input(const struct linear *a, const struct linear *b)
{
    return a->kind == LINEAR_INT8 && b->kind == LINEAR_INT8 && a->activation == b->activation &&
           (a->activation != ACTIVATION_INT8_STATIC ||
            (a->input_inv_scale == b->input_inv_scale && a->input_offset == b->input_offset)) &&
           !a->col_zero == !b->col_zero;
}

void linear_share_inputs(struct linear *set, int count)
{
    for (int i = 0; i < count; i++) {
        set[i].input = i;
        for (int j = 0; j < i && set[i].input == i; j++)
            if (same_input(&set[i], &set[j]))
                set[i].input = j;
    }
}

bool linear_set_is_quantised(const struct linear *set, int count)
{
    for (int i = 0; i < count; i++)
        if (set[i].kind == LINEAR_INT8)
            return true;
    return false;
}

void linear_quantize_row(const struct kernel_ops *ops, const struct linear *set, int count, const float *x, int t,
                         struct linear_input *in)
{
    for (int i = 0; i < count; i++) {
        const struct linear *l = &set[i];
        if (l->kind != LINEAR_INT8 || l->input != i)
            continue;
        uint8_t *xq = in->xq[i] + (size_t)t * in->ldxq;
        if (l->activation == ACTIVATION_INT8_STATIC)
            ops->quant_static(xq, x, l->k, l->input_inv_scale, l->input_offset);
        else if (l->activation == ACTIVATION_INT8_DYNAMIC)
            ops->quant_dynamic(xq, &in->row_scale[i][t], x, l->k);
        else
            ops->quant_dynamic_asym(xq, &in->row_scale[i][t], &in->row_zero[i][t], x, l->k);
        if (l->col_zero) {
            int32_t sum = 0;
            for (int j = 0; j < l->k; j++)
                sum += xq[j] - 128;
            in->row_sum[i][t] = sum;
        }
    }
}

static void linear_panels(const struct kernel_ops *ops, const struct linear *l, float *y, size_t ldy, const float *x,
                          size_t ldx, const struct linear_input *in, int rows, int begin, int end)
{
    if (l->kind == LINEAR_FLOAT) {
        (l->dtype == DTYPE_BF16  ? ops->gemm_bf16
         : l->dtype == DTYPE_F16 ? ops->gemm_f16
                                 : ops->gemm_f32)(y, ldy, x, ldx, rows, l->weight, l->k, l->n, begin, end, l->bias);
    } else if (l->kind == LINEAR_W8A16) {
        struct gemm_w8a16_args a = {y,    ldy,           x,         ldx,      rows,    l->k,
                                    l->n, l->group_size, l->weight, l->scale, l->zero, l->bias};
        ops->gemm_w8a16(&a, begin, end);
    } else {
        bool dynamic = l->activation != ACTIVATION_INT8_STATIC;
        struct gemm_i8_args a = {
            .y = y,
            .ldy = ldy,
            .x = in->xq[l->input],
            .ldx = in->ldxq,
            .rows = rows,
            .k4 = padded_k(l->k),
            .n = l->n,
            .w = l->weight,
            .w_sum = l->w_sum,
            .col_add = l->col_add,
            .col_scale = l->col_scale,
            .row_scale = dynamic ? in->row_scale[l->input] : NULL,
            .row_zero = l->col_sum ? in->row_zero[l->input] : NULL,
            .col_sum = l->col_sum,
            .col_zero = l->col_zero,
            .row_sum = in->row_sum[l->input],
            .bias = l->bias,
        };
        ops->gemm_i8(&a, begin, end);
    }
}

void linear_forward(const struct kernel_ops *ops, const struct linear *set, int count, float *y, size_t ldy,
                    const float *x, size_t ldx, const struct linear_input *in, int rows, int worker, int num_workers)
{
    int total = 0, begin, end, first = 0;
    for (int i = 0; i < count; i++)
        total += num_panels(&set[i]);
    pool_slice(total, 1, worker, num_workers, &begin, &end);
    for (int i = 0; i < count; i++) {
        int panels = num_panels(&set[i]), from = MAX(begin - first, 0), to = MIN(end - first, panels);
        if (from < to)
            linear_panels(ops, &set[i], y, ldy, x, ldx, in, rows, from, to);
        first += panels;
        y += set[i].n;
    }
}
