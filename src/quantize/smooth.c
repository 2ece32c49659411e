/* Outlier smoothing: see smooth.h. */
#include "quantize/smooth.h"

#include "base/mem.h"
#include "kernel/ref/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MEASURED_OUTPUTS 256 /* rows of a weight that a candidate is measured on */
#define MAX_EXPONENT 8
#define WORTH 0.9 /* smoothing stays when the squared error falls below this part of what it was: less is noise */

/* factor = input_max^a / weight_max^b, over its own geometric mean */
static const struct {
    float a, b;
} candidates[] = {{0.25f, 0}, {0.5f, 0}, {0.5f, 0.5f}, {0.65f, 0.35f}, {0.8f, 0.2f}, {0.8f, 0}};

/* Whether x / factor is the same number in the tensor's type. */
static bool folds_exactly(const struct tensor *t, int i, float factor)
{
    float v = tensor_elem(t->data + (size_t)i * (size_t)(dtype_bits(t->dtype) / 8), t->dtype), got = v / factor;
    if (t->dtype == DTYPE_BF16)
        got = f32_from_bf16(bf16_from_f32(got));
    else if (t->dtype == DTYPE_F16)
        got = f32_from_f16(f16_from_f32(got));
    return got * factor == v;
}

static int unit_of(const struct smooth_set *s, int i)
{
    return s->unit ? s->unit[i] : i;
}

/* Fills factor (width) for a candidate; false when it changes nothing. */
static bool candidate_factor(const struct smooth_set *s, size_t c, const float *input_max, const float *weight_max,
                             float *factor)
{
    double *log_factor = mem_calloc((size_t)s->num_units, sizeof(*log_factor)), sum = 0;
    float *of_unit = mem_calloc((size_t)s->num_units, sizeof(*of_unit));
    int live = 0;
    bool any = false;
    for (int u = 0; u < s->num_units; u++) {
        log_factor[u] = NAN;
        if (!(input_max[u] > 0 && weight_max[u] > 0 && isfinite(input_max[u]) && isfinite(weight_max[u])))
            continue;
        log_factor[u] = candidates[c].a * log2((double)input_max[u]) - candidates[c].b * log2((double)weight_max[u]);
        sum += log_factor[u];
        live++;
    }
    for (int u = 0; u < s->num_units; u++) {
        int e = isnan(log_factor[u]) ? 0 : (int)lrint(log_factor[u] - sum / live);
        of_unit[u] = ldexpf(1, MAX(MIN(e, MAX_EXPONENT), -MAX_EXPONENT));
        for (size_t f = 0; f < ARRAY_LEN(s->fold); f++)
            if (s->fold[f] && !folds_exactly(s->fold[f], u, of_unit[u]))
                of_unit[u] = 1;
        any = any || of_unit[u] != 1;
    }
    for (int i = 0; i < s->stats->width; i++)
        factor[i] = of_unit[unit_of(s, i)];
    free(log_factor);
    free(of_unit);
    return any;
}

/* Sum over the set's linears of their relative squared error. */
static int measure(struct pool *pool, const struct smooth_set *s, const float *factor, double *ret,
                   struct octavo_error *err)
{
    struct probe probe;
    int r =
        probe_init(&probe, s->stats->num_rows, s->stats->width, s->stats->rows, s->stats->mean_sq, factor, true, err);
    *ret = 0;
    for (int i = 0; i < s->count && r == 0; i++) {
        struct weight_view w = s->weights[i];
        struct linear_error e;
        w.col = factor;
        r = weights_quantize(pool, &w, s->bits, &probe, MAX(w.n / MEASURED_OUTPUTS, 1), NULL, NULL, &e, err);
        if (r == 0 && e.norm > 0)
            *ret += e.error / e.norm;
    }
    probe_release(&probe);
    return r;
}

int smooth_choose(struct pool *pool, const struct smooth_set *s, float **ret_factor, double *ret_gain,
                  struct octavo_error *err)
{
    size_t width = (size_t)s->stats->width, units = (size_t)s->num_units;
    float *column_max = mem_calloc(width, sizeof(float)), *factor = mem_calloc(width, sizeof(float)),
          *best_factor = NULL;
    float *input_max = mem_calloc(units, sizeof(float)), *weight_max = mem_calloc(units, sizeof(float));
    double none, best;
    for (int i = 0; i < s->count; i++)
        weights_column_max(pool, &s->weights[i], column_max);
    for (int i = 0; i < s->stats->width; i++) {
        int u = unit_of(s, i);
        input_max[u] = fmaxf(input_max[u], s->stats->absmax[i]);
        weight_max[u] = fmaxf(weight_max[u], column_max[i]);
    }
    int r = measure(pool, s, NULL, &none, err);
    best = none * WORTH;
    for (size_t c = 0; c < ARRAY_LEN(candidates) && r == 0; c++) {
        double error;
        if (!candidate_factor(s, c, input_max, weight_max, factor))
            continue;
        r = measure(pool, s, factor, &error, err);
        if (r == 0 && error < best) {
            best = error;
            if (!best_factor)
                best_factor = mem_alloc(width * sizeof(float));
            memcpy(best_factor, factor, width * sizeof(float));
        }
    }
    free(column_max);
    free(factor);
    free(input_max);
    free(weight_max);
    if (r < 0) {
        free(best_factor);
        return r;
    }
    *ret_gain = best_factor ? sqrt(best / none) : 1;
    *ret_factor = best_factor;
    return 0;
}
