/* Rows to integers: see weights.h. */
#include "quantize/weights.h"

#include "base/mem.h"
#include "model/linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define SCALE_MIN 0x1p-100f /* of rows of zeros and the like: 1/scale stays finite */

static void row_read(const struct weight_view *w, int j, float *out)
{
    size_t bytes = (size_t)dtype_bits(w->tensor->dtype) / 8, k = (size_t)w->k;
    const uint8_t *p = w->data + (size_t)j * k * bytes;
    for (size_t i = 0; i < k; i++)
        out[i] = tensor_elem(p + i * bytes, w->tensor->dtype);
    for (size_t i = 0; w->col && i < k; i++)
        out[i] *= w->col[i];
}

void weight_row(const struct weight_view *w, int j, float *out)
{
    row_read(w, j, out);
    for (int i = 0; w->row && i < w->k; i++)
        out[i] *= w->row[j];
}

/* ---- probes ---- */

/* A token as W8A8_DYNAMIC quantises it. */
static void token_round_trip(float *out, const float *x, int k)
{
    float max = 0;
    for (int i = 0; i < k; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    float scale = max > 0 ? max / 127.0f : 1.0f;
    for (int i = 0; i < k; i++)
        out[i] = ((x[i] / scale + 0x1.8p23f) - 0x1.8p23f) * scale;
}

int probe_init(struct probe *p, int rows, int k, const float *x, const float *mean_sq, const float *col, bool a8,
               struct octavo_error *err)
{
    size_t n = (size_t)k;
    *p = (struct probe){.rows = rows, .k = k, .x = x};
    p->x_hat = mem_try_array((size_t)rows, n * sizeof(float));
    p->mean_sq = mem_try_array(n, sizeof(float));
    if (!p->x_hat || !p->mean_sq) {
        probe_release(p);
        return error_set(err, OCTAVO_ENOMEM, "no memory to measure a linear with %d inputs", k);
    }
    for (size_t i = 0; i < n; i++)
        p->mean_sq[i] = col ? mean_sq[i] / (col[i] * col[i]) : mean_sq[i];
    for (int r = 0; r < rows; r++) {
        float *to = p->x_hat + (size_t)r * n;
        for (size_t i = 0; i < n; i++)
            to[i] = x[(size_t)r * n + i] / (col ? col[i] : 1.0f);
        if (a8)
            token_round_trip(to, to, k);
    }
    return 0;
}

void probe_release(struct probe *p)
{
    free(p->x_hat);
    free(p->mean_sq);
    *p = (struct probe){0};
}

/* ---- one row ---- */

static float scale_for(float absmax, float ratio, int bits)
{
    return fmaxf(absmax * ratio / (bits == 8 ? 127.0f : 7.0f), SCALE_MIN);
}

static void row_round(const float *w, int k, float scale, int bits, float *out)
{
    float lo = bits == 8 ? -127.0f : -8.0f, hi = bits == 8 ? 127.0f : 7.0f;
    for (int i = 0; i < k; i++) {
        float v = w[i] / scale;
        v = v < hi ? v : hi;
        v = v > lo ? v : lo;
        out[i] = (v + 0x1.8p23f) - 0x1.8p23f;
    }
}

static float lanes_sum(const float acc[LANES])
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += acc[i];
    return sum;
}

/* Sum of mean_sq * (w - q * scale)^2. */
static float row_cost(const float *w, const float *q, const float *mean_sq, int k, float scale)
{
    float acc[LANES] = {0};
    int i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float e = w[i + l] - q[i + l] * scale;
            acc[l] += mean_sq[i + l] * e * e;
        }
    for (; i < k; i++) {
        float e = w[i] - q[i] * scale;
        acc[0] += mean_sq[i] * e * e;
    }
    return lanes_sum(acc);
}

float row_quantize(const float *w, const float *mean_sq, int k, int bits, int8_t *q)
{
    /* Eight bits lose more to clipping than to rounding, four bits the other way round. */
    const int tries = bits == 8 ? 6 : 20;
    const float step = bits == 8 ? 0.01f : 0.025f;
    float *rounded = mem_alloc((size_t)k * sizeof(*rounded));
    float max = 0, best = INFINITY, scale = 0;
    for (int i = 0; i < k; i++)
        max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
    for (int c = 0; c < tries; c++) {
        float s = scale_for(max, 1.0f - step * (float)c, bits);
        row_round(w, k, s, bits, rounded);
        float cost = row_cost(w, rounded, mean_sq, k, s);
        if (c == 0 || cost < best) {
            best = cost;
            scale = s;
        }
    }
    row_round(w, k, scale, bits, rounded);
    for (int i = 0; i < k; i++)
        q[i] = (int8_t)rounded[i];
    free(rounded);
    return scale;
}

/* ---- all rows ---- */

static float dot(const float *a, const float *b, int k)
{
    float acc[LANES] = {0};
    int i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++)
            acc[l] += a[i + l] * b[i + l];
    for (; i < k; i++)
        acc[0] += a[i] * b[i];
    return lanes_sum(acc);
}

double linear_error_ratio(const struct linear_error *e)
{
    return e->norm > 0 ? sqrt(e->error / e->norm) : 0;
}

struct job {
    const struct weight_view *w;
    const struct probe *probe;
    int bits, step, count;
    int8_t *q;
    float *scale;
    struct linear_error *errors; /* (count) */
    float *column_max;           /* (workers, k) */
};

/* Row j of the weight: its integers, its scale, and the error of its output. */
static void row_work(const struct job *job, int index, float *source, float *w, float *w_hat, int8_t *own_q)
{
    const struct probe *p = job->probe;
    int j = index * job->step, k = job->w->k;
    struct weight_view plain = *job->w; /* what the probe's original rows belong to */
    plain.col = NULL;
    row_read(&plain, j, source);
    row_read(job->w, j, w);
    int8_t *q = job->q ? job->q + (size_t)j * (size_t)k : own_q;
    float scale = row_quantize(w, p->mean_sq, k, job->bits, q);
    for (int i = 0; i < k; i++)
        w_hat[i] = (float)q[i] * scale;
    struct linear_error *e = &job->errors[index];
    for (int r = 0; r < p->rows; r++) {
        double want = (double)dot(p->x + (size_t)r * (size_t)k, source, k);
        double d = (double)dot(p->x_hat + (size_t)r * (size_t)k, w_hat, k) - want;
        e->error += d * d;
        e->norm += want * want;
    }
    if (job->scale) /* integers do not change with a row's factor, which is a power of two */
        job->scale[j] = scale * (job->w->row ? job->w->row[j] : 1.0f);
}

static void rows_worker(void *arg, int worker, int num_workers)
{
    const struct job *job = arg;
    size_t k = (size_t)job->w->k;
    float *rows = mem_alloc(3 * k * sizeof(*rows));
    int8_t *q = mem_alloc(k);
    int begin, end;
    pool_slice(job->count, 1, worker, num_workers, &begin, &end);
    for (int i = begin; i < end; i++)
        row_work(job, i, rows, rows + k, rows + 2 * k, q);
    free(rows);
    free(q);
}

int weights_quantize(struct pool *pool, const struct weight_view *w, int bits, const struct probe *probe, int step,
                     int8_t *q, float *scale, struct linear_error *ret_error, struct octavo_error *err)
{
    struct job job = {.w = w, .probe = probe, .bits = bits, .step = step, .q = q, .scale = scale};
    job.count = (w->n + step - 1) / step;
    job.errors = mem_try_calloc((size_t)job.count, sizeof(*job.errors));
    if (!job.errors)
        return error_set(err, OCTAVO_ENOMEM, "no memory for %d rows of %s", w->n, w->tensor->name);
    pool_run(pool, rows_worker, &job);
    *ret_error = (struct linear_error){0};
    for (int i = 0; i < job.count; i++) {
        ret_error->error += job.errors[i].error;
        ret_error->norm += job.errors[i].norm;
    }
    free(job.errors);
    if (!isfinite(ret_error->error) || !isfinite(ret_error->norm))
        return error_set(err, OCTAVO_EINVAL,
                         "%s, or its input on the calibration text, has values that are not finite; is the checkpoint "
                         "damaged?",
                         w->tensor->name);
    return 0;
}

static void column_worker(void *arg, int worker, int num_workers)
{
    const struct job *job = arg;
    size_t k = (size_t)job->w->k;
    float *row = mem_alloc(k * sizeof(*row)), *max = job->column_max + (size_t)worker * k;
    int begin, end;
    pool_slice(job->w->n, 1, worker, num_workers, &begin, &end);
    for (int j = begin; j < end; j++) {
        row_read(job->w, j, row);
        for (size_t i = 0; i < k; i++)
            max[i] = fabsf(row[i]) > max[i] ? fabsf(row[i]) : max[i];
    }
    free(row);
}

void weights_column_max(struct pool *pool, const struct weight_view *w, float *out)
{
    int workers = pool_num_workers(pool);
    struct job job = {.w = w, .column_max = mem_calloc((size_t)workers * (size_t)w->k, sizeof(float))};
    pool_run(pool, column_worker, &job);
    for (int i = 0; i < workers; i++)
        for (int c = 0; c < w->k; c++)
            out[c] = fmaxf(out[c], job.column_max[(size_t)i * (size_t)w->k + (size_t)c]);
    free(job.column_max);
}
