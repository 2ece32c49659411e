/* Linears: see linear.h. Loading runs on the opening thread and its workers, the rest on the workers of a step. */
#include "model/linear.h"

#include "base/mem.h"
#include "base/topology.h"
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

static int padded_k(int k, bool nibbles)
{
    int step = nibbles ? 8 : 4;
    return (k + step - 1) / step * step;
}

static int num_panels(const struct linear *l)
{
    int nr = l->swiglu ? SWIGLU_NR : GEMM_NR;
    return (l->n + nr - 1) / nr;
}

/* Of the arrays that have a value for each column. */
static size_t num_columns(const struct linear *l)
{
    return (size_t)num_panels(l) * GEMM_NR;
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

/* Weights of 4 bits stay two in a byte. */
static bool spec_nibbles(const struct linear_spec *s)
{
    return s->quantised && s->bits == 4;
}

static size_t packed_bytes(const struct linear_spec *s, enum linear_kind kind, bool nibbles)
{
    size_t elem = kind == LINEAR_FLOAT ? elem_bytes(s->weight->dtype) : 1;
    int k = kind == LINEAR_INT8 || nibbles ? padded_k(s->k, nibbles) : s->k;
    return gemm_packed_elems(s->n, k) * elem / (nibbles ? 2 : 1);
}

size_t linear_bytes(const struct checkpoint *ckpt, const char *module, bool quantize)
{
    struct linear_spec spec;
    checkpoint_linear(ckpt, module, &spec);
    return packed_bytes(&spec, spec_kind(&spec, quantize), spec_nibbles(&spec));
}

/* ---- packing ---- */

struct pack_job {
    struct linear *l;
    const struct checkpoint *ckpt;
    const struct linear_spec *spec;
    const uint8_t *data; /* of a float weight */
    int part;            /* 1: up of a swiglu, else 0 */
    _Atomic bool failed;
};

/* Rows of a part that lie side by side in a panel. */
static int panel_rows(const struct linear *l)
{
    return l->swiglu ? SWIGLU_NR : GEMM_NR;
}

/* Where output j of a part is among the columns of the panels. */
static size_t column_of(const struct linear *l, int part, int j)
{
    int nr = panel_rows(l);
    return (size_t)(j / nr) * GEMM_NR + (size_t)(part * SWIGLU_NR + j % nr);
}

/* Rows q (rows, ldq) of an INT8 weight, from column on in one panel: (panel, k4 / 4, GEMM_NR, 4). */
static void pack_int8(struct linear *l, size_t column, const int8_t *q, int rows, size_t ldq)
{
    int8_t *to = (int8_t *)l->weight + column / GEMM_NR * ldq * GEMM_NR + column % GEMM_NR * 4;
    for (size_t i = 0; i < ldq; i += 4, to += 4 * GEMM_NR)
        for (int j = 0; j < rows; j++)
            memcpy(to + j * 4, q + (size_t)j * ldq + i, 4);
}

/* The same with two weights in a byte: (panel, k8 / 8, GEMM_NR, 4). */
static void pack_nibbles(struct linear *l, size_t column, const int8_t *q, int rows, size_t ldq)
{
    uint8_t *to = (uint8_t *)l->weight + column / GEMM_NR * ldq * GEMM_NR / 2 + column % GEMM_NR * 4;
    for (size_t i = 0; i < ldq; i += 8, to += 4 * GEMM_NR)
        for (int j = 0; j < rows; j++)
            for (size_t c = 0; c < 4; c++) {
                const int8_t *w = q + (size_t)j * ldq + i + c;
                to[(size_t)j * 4 + c] = (uint8_t)((w[0] + 8) | (w[4] + 8) << 4);
            }
}

static void sum_rows(struct linear *l, size_t column, const int8_t *q, int rows, size_t ldq)
{
    for (int j = 0; j < rows; j++) {
        int32_t sum = 0;
        for (size_t i = 0; i < ldq; i++)
            sum += q[(size_t)j * ldq + i];
        l->w_sum[column + (size_t)j] = sum;
    }
}

static void pack_w8a16(struct linear *l, size_t column, const int8_t *q, int rows, size_t ldq)
{
    int8_t *to = (int8_t *)l->weight + column / GEMM_NR * (size_t)l->k * GEMM_NR + column % GEMM_NR;
    for (size_t i = 0; i < (size_t)l->k; i++, to += GEMM_NR)
        for (int j = 0; j < rows; j++)
            to[j] = q[(size_t)j * ldq + i];
}

/* Elements of a float tensor as float32. */
static void floats_load(float *x, const uint8_t *from, enum dtype dtype, size_t n)
{
    uint16_t h;
    if (dtype == DTYPE_F32)
        memcpy(x, from, n * sizeof(*x));
    else if (dtype == DTYPE_BF16)
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, from + i * 2, 2);
            x[i] = f32_from_bf16(h);
        }
    else
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, from + i * 2, 2);
            x[i] = f32_from_f16(h);
        }
}

/* One row of float weights to integers with absmax / 127. The maximum is taken in lanes, which a compiler may keep in
 * vectors. */
static float quantize_row(const uint8_t *row, enum dtype dtype, int k, float *x, int8_t *q)
{
    float lane[16] = {0}, max = 0;
    floats_load(x, row, dtype, (size_t)k);
    int i = 0;
    for (; i + 16 <= k; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] = fabsf(x[i + j]) > lane[j] ? fabsf(x[i + j]) : lane[j];
    for (; i < k; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    for (int j = 0; j < 16; j++)
        max = lane[j] > max ? lane[j] : max;
    float scale = max > 0 ? max / 127.0f : 1.0f;
    for (i = 0; i < k; i++) {
        float v = (x[i] / scale + 0x1.8p23f) - 0x1.8p23f;
        v = v < 127.0f ? v : 127.0f;
        q[i] = (int8_t)(int32_t)(v > -127.0f ? v : -127.0f);
    }
    return scale;
}

static void pack_worker(void *arg, int worker, int num_workers)
{
    struct pack_job *job = arg;
    struct linear *l = job->l;
    const struct linear_spec *s = job->spec;
    int begin, end, step = panel_rows(l);
    pool_slice(l->n, step, worker, num_workers, &begin, &end);
    if (l->kind == LINEAR_FLOAT) {
        size_t row_bytes = (size_t)l->k * elem_bytes(l->dtype);
        gemm_pack(l->weight, job->data + (size_t)begin * row_bytes, (int)elem_bytes(l->dtype), begin, end - begin,
                  l->k);
        return;
    }
    size_t ldq = (size_t)padded_k(l->k, l->nibbles);
    int8_t *q = mem_calloc((size_t)step, ldq);
    float *x = s->quantised ? NULL : mem_alloc((size_t)l->k * sizeof(*x));
    for (int j = begin; j < end && !job->failed; j += step) {
        int rows = MIN(step, end - j);
        size_t column = column_of(l, job->part, j);
        for (int i = 0; i < rows; i++) {
            int8_t *row = q + (size_t)i * ldq;
            if (!s->quantised)
                l->col_scale[column + (size_t)i] =
                    quantize_row(job->data + (size_t)(j + i) * (size_t)l->k * elem_bytes(s->weight->dtype),
                                 s->weight->dtype, l->k, x, row);
            else if (checkpoint_linear_rows(job->ckpt, s, j + i, 1, row) < 0)
                job->failed = true;
        }
        (l->nibbles ? pack_nibbles : l->kind == LINEAR_W8A16 ? pack_w8a16 : pack_int8)(l, column, q, rows, ldq);
        if (l->kind == LINEAR_INT8)
            sum_rows(l, column, q, rows, ldq);
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

static void int8_columns_init(struct linear *l, const struct linear_spec *s, bool zero)
{
    size_t n = num_columns(l);
    l->w_sum = mem_calloc(n, sizeof(*l->w_sum));
    l->col_scale = mem_calloc(n, sizeof(*l->col_scale));
    if (s->folded || l->activation == ACTIVATION_INT8_STATIC)
        l->col_add = mem_calloc(n, sizeof(*l->col_add));
    if (!s->folded && zero)
        l->col_zero = mem_calloc(n, sizeof(*l->col_zero));
    if (!s->folded && l->activation == ACTIVATION_INT8_DYNAMIC_ASYM)
        l->col_sum = mem_calloc(n, sizeof(*l->col_sum));
}

/* After packing, when the sums of the weights are known: what the epilogue adds and multiplies by. */
static void int8_columns_finish(struct linear *l, const struct checkpoint *ckpt, const struct linear_spec *s, int part,
                                const float *scale, const float *zero)
{
    int32_t *add = s->folded ? mem_alloc((size_t)l->n * sizeof(*add)) : NULL;
    float *folded = s->folded ? mem_alloc((size_t)l->n * sizeof(*folded)) : NULL;
    if (s->folded)
        checkpoint_linear_folded(ckpt, s, add, folded);
    for (int i = 0; i < l->n; i++) {
        size_t j = column_of(l, part, i);
        int32_t z = zero ? (int32_t)zero[i] : 0, sum = l->w_sum[j] - l->k * z;
        if (s->folded) {
            l->col_add[j] = add[i];
            l->col_scale[j] = folded[i];
            continue;
        }
        if (scale)
            l->col_scale[j] = scale[i];
        if (l->col_zero)
            l->col_zero[j] = z;
        if (l->col_sum)
            l->col_sum[j] = sum;
        if (l->col_add) { /* static: the input's zero point is known, and so is its product with the weights */
            l->col_add[j] =
                (int32_t)(0u - (uint32_t)(int32_t)s->input_offset * (uint32_t)sum); /* wraps as the sum does */
            l->col_scale[j] *= s->input_scale;
        }
    }
    free(add);
    free(folded);
}

static int bias_load(struct linear *l, const struct checkpoint *ckpt, const struct tensor *t, int part)
{
    if (!t)
        return 0;
    const uint8_t *data = checkpoint_tensor_pin(ckpt, t);
    if (!data)
        return OCTAVO_ENOMEM;
    if (!l->bias)
        l->bias = mem_calloc(num_columns(l), sizeof(*l->bias));
    for (int i = 0; i < l->n; i++)
        l->bias[column_of(l, part, i)] = tensor_elem(data + (size_t)i * elem_bytes(t->dtype), t->dtype);
    checkpoint_tensor_unpin(ckpt, t, data);
    return 0;
}

/* Packs one module into its columns of l, whose memory is there. data: of a float weight, pinned, or NULL. */
static bool part_load(struct linear *l, const struct checkpoint *ckpt, struct pool *pool, const struct linear_spec *s,
                      int part, const uint8_t *data)
{
    struct pack_job job = {.l = l, .ckpt = ckpt, .spec = s, .data = data, .part = part};
    float *scale = NULL, *zero = NULL;
    bool ok = true, pinned = !s->quantised && !data;
    if (pinned)
        ok = (job.data = checkpoint_tensor_pin(ckpt, s->weight)) != NULL;
    if (ok && s->quantised && !s->folded) {
        size_t elems = (size_t)s->n * (size_t)num_groups(l);
        scale = mem_try_array(elems, sizeof(float));
        zero = s->has_zero ? mem_try_array(elems, sizeof(float)) : NULL;
        ok = scale && (zero || !s->has_zero);
        if (ok)
            checkpoint_linear_scales(ckpt, s, scale, zero);
    }
    if (ok) {
        pool_run(pool, pack_worker, &job);
        if (l->kind == LINEAR_INT8)
            int8_columns_finish(l, ckpt, s, part, scale, zero);
        if (l->kind == LINEAR_W8A16) {
            l->scale = pack_groups(l, scale);
            l->zero = zero ? pack_groups(l, zero) : NULL;
        }
        ok = !job.failed && bias_load(l, ckpt, s->bias, part) == 0;
    }
    if (pinned && job.data)
        checkpoint_tensor_unpin(ckpt, s->weight, job.data);
    if (s->quantised)
        checkpoint_linear_done(ckpt, s);
    free(scale);
    free(zero);
    return ok;
}

/* Each worker's panels near it, before they are touched. */
static void linear_place(const struct linear *l, const struct linear_share *share, int num_workers)
{
    int panels = num_panels(l), total = share->total ? share->total : panels, grain = MAX(share->grain, 1);
    size_t panel_bytes = l->weight_bytes / (size_t)panels;
    for (int w = 0; w < num_workers; w++) {
        int begin, end;
        pool_slice(total, grain, w, num_workers, &begin, &end);
        begin = MAX(begin - share->first, 0);
        end = MIN(end - share->first, panels);
        if (begin < end)
            topology_place_near((uint8_t *)l->weight + (size_t)begin * panel_bytes, (size_t)(end - begin) * panel_bytes,
                                w, num_workers);
    }
}

/* The linear of a module, of two halves with swiglu, without weights yet. */
static bool linear_prepare(struct linear *l, const struct linear_spec *s, bool quantize, bool swiglu,
                           const struct linear_share *share, int num_workers)
{
    *l = (struct linear){
        .kind = spec_kind(s, quantize), .swiglu = swiglu, .n = s->n, .k = s->k, .dtype = s->weight->dtype};
    l->activation = s->quantised ? s->activation : ACTIVATION_INT8_DYNAMIC;
    l->group_size = s->quantised ? s->group_size : s->k;
    l->input_offset = s->input_offset;
    if (l->activation == ACTIVATION_INT8_STATIC && s->quantised)
        l->input_inv_scale = 1.0f / s->input_scale;
    l->nibbles = spec_nibbles(s);
    l->weight_bytes = swiglu ? num_columns(l) * (size_t)padded_k(l->k, l->nibbles) / (l->nibbles ? 2 : 1)
                             : packed_bytes(s, l->kind, l->nibbles);
    l->weight = mem_map(l->weight_bytes);
    if (l->weight)
        linear_place(l, share, num_workers);
    if (l->weight && l->nibbles)
        memset(l->weight, 0x88, l->weight_bytes); /* columns that are not there */
    if (l->weight && l->kind == LINEAR_INT8)
        int8_columns_init(l, s, s->has_zero);
    return l->weight != NULL;
}

int linear_load(struct linear *l, const struct checkpoint *ckpt, struct pool *pool, const char *module, bool quantize,
                const uint8_t *data_pinned, const struct linear_share *share, struct octavo_error *err)
{
    struct linear_spec s;
    checkpoint_linear(ckpt, module, &s);
    bool ok = linear_prepare(l, &s, quantize, false, share, pool_num_workers(pool)) &&
              part_load(l, ckpt, pool, &s, 0, data_pinned);
    return ok ? 0 : error_set(err, OCTAVO_ENOMEM, "no memory for %s (%zu bytes)", module, l->weight_bytes);
}

int linear_load_swiglu(struct linear *l, const struct checkpoint *ckpt, struct pool *pool, const char *gate,
                       const char *up, bool quantize, struct octavo_error *err)
{
    struct linear_spec s[2];
    checkpoint_linear(ckpt, gate, &s[0]);
    checkpoint_linear(ckpt, up, &s[1]);
    if (spec_kind(&s[0], quantize) != LINEAR_INT8 || spec_kind(&s[1], quantize) != LINEAR_INT8 ||
        s[0].quantised != s[1].quantised || spec_nibbles(&s[0]) != spec_nibbles(&s[1]) || s[0].n != s[1].n ||
        s[0].k != s[1].k)
        return 1;
    if (s[0].quantised && (s[0].activation != s[1].activation || s[0].folded != s[1].folded ||
                           s[0].has_zero != s[1].has_zero || s[0].input_offset != s[1].input_offset ||
                           (s[0].activation == ACTIVATION_INT8_STATIC && s[0].input_scale != s[1].input_scale)))
        return 1;
    const struct linear_share alone = {0};
    bool ok = linear_prepare(l, &s[0], quantize, true, &alone, pool_num_workers(pool));
    for (int part = 0; part < 2 && ok; part++)
        ok = part_load(l, ckpt, pool, &s[part], part, NULL);
    return ok ? 0 : error_set(err, OCTAVO_ENOMEM, "no memory for %s and %s (%zu bytes)", gate, up, l->weight_bytes);
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
        (l->nibbles ? ops->gemm_w4a16 : ops->gemm_w8a16)(&a, begin, end);
    } else {
        bool dynamic = l->activation != ACTIVATION_INT8_STATIC;
        struct gemm_i8_args a = {
            .y = y,
            .ldy = ldy,
            .x = in->xq[l->input],
            .ldx = in->ldxq,
            .rows = rows,
            .k4 = padded_k(l->k, l->nibbles),
            .n = l->n,
            .swiglu = l->swiglu,
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
        (l->nibbles ? ops->gemm_w4a8 : ops->gemm_i8)(&a, begin, end);
    }
}

int linear_set_panels(const struct linear *set, int count)
{
    int panels = 0;
    for (int i = 0; i < count; i++)
        panels += num_panels(&set[i]);
    return panels;
}

void linear_forward(const struct kernel_ops *ops, const struct linear *set, int count, float *y, size_t ldy,
                    const float *x, size_t ldx, const struct linear_input *in, int rows, int begin, int end)
{
    int first = 0;
    for (int i = 0; i < count; i++) {
        int panels = num_panels(&set[i]), from = MAX(begin - first, 0), to = MIN(end - first, panels);
        if (from < to)
            linear_panels(ops, &set[i], y, ldy, x, ldx, in, rows, from, to);
        first += panels;
        y += set[i].n;
    }
}
