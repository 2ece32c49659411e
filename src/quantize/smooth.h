/* Outlier smoothing: inputs that a few channels dominate are divided by a factor per channel, and the weight's columns
 * multiplied by it, so that a token's one scale fits all channels better. The inverse goes into what makes the input:
 * the norm before q, k, v and before gate and up; the rows of v before o, of up before down. Factors are powers of two,
 * so nothing is rounded by the folding: the float model stays the same, bit for bit. Called by quantize.c. */
#ifndef OCTAVO_QUANTIZE_SMOOTH_H
#define OCTAVO_QUANTIZE_SMOOTH_H

#include "quantize/calibrate.h"
#include "quantize/weights.h"

/* One set of linears that read the same input. */
struct smooth_set {
    const struct input_stats *stats;
    const struct weight_view *weights; /* (count); without factors */
    int count;
    int bits;
    /* Channels that must share a factor: channel i of the input belongs to unit[i]; NULL: each its own. o reads one
     * value channel through all query heads of a group. */
    const int *unit;
    int num_units;
    /* Tensors the inverse is folded into whose type must hold it exactly: norm weight and bias, (num_units); may be
     * NULL. */
    const struct tensor *fold[2];
};

/* factor (width): what to multiply columns by, if smoothing lowers the measured error of the set's outputs; otherwise
 * NULL. The caller frees. gain: error with, over error without. */
int smooth_choose(struct pool *pool, const struct smooth_set *set, float **ret_factor, double *ret_gain,
                  struct octavo_error *err);

#endif
