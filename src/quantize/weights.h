/* Quantising the rows of a linear, and measuring what that does to its output. Work spreads over a pool; every output
 * row is one worker's, so the number of workers does not show. */
#ifndef OCTAVO_QUANTIZE_WEIGHTS_H
#define OCTAVO_QUANTIZE_WEIGHTS_H

#include "base/pool.h"
#include "ckpt/checkpoint.h"

/* A float weight (n, k) as it lies in the source, times a factor for each column and each row (NULL: 1). The factors
 * are powers of two, so that the product is exact. */
struct weight_view {
    const struct tensor *tensor;
    const uint8_t *data;
    int n, k;
    const float *col; /* (k) */
    const float *row; /* (n) */
};

/* Row j as float32 (k). */
void weight_row(const struct weight_view *w, int j, float *out);

/* Inputs that errors are measured with: x as it was, x_hat as an integer linear sees it. (rows, k) each. */
struct probe {
    int rows, k;
    const float *x;
    float *x_hat;
    float *mean_sq; /* (k) of the whole text */
};
/* col: what the weight's columns are multiplied by, so inputs are divided; NULL: 1. a8: inputs become INT8 by token. */
int probe_init(struct probe *p, int rows, int k, const float *x, const float *mean_sq, const float *col, bool a8,
               struct octavo_error *err);
void probe_release(struct probe *p);

/* One row to integers of bits 8 or 4: of a few clip ratios, the one that gives the least squared error of the output,
 * as far as the mean squares of the inputs tell. Returns the scale, finite and positive. */
float row_quantize(const float *w, const float *mean_sq, int k, int bits, int8_t *q);

struct linear_error {
    double error, norm; /* squares, summed over rows of the probe and outputs */
};
double linear_error_ratio(const struct linear_error *e); /* relative L2 */

/* Rows 0, step, 2*step... of w. q (n, k) and scale (n) are filled when not NULL (step 1). probe: of the original input
 * rows and the column factors of w. Row factors of w do not count in the error. */
int weights_quantize(struct pool *pool, const struct weight_view *w, int bits, const struct probe *probe, int step,
                     int8_t *q, float *scale, struct linear_error *ret_error, struct octavo_error *err);
/* Largest magnitude of each column of w (k), merged into out. */
void weights_column_max(struct pool *pool, const struct weight_view *w, float *out);

#endif
