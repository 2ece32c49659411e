/* What a float model does on a calibration text: the ranges of its caches and the inputs of its linears. Runs the
 * engine's own forward pass, on the calling thread and the pool's workers.
 *
 * One layer is in memory at a time, as a stage of the model: all windows go through it, and the residual streams they
 * leave are kept for the next one. */
#ifndef OCTAVO_QUANTIZE_CALIBRATE_H
#define OCTAVO_QUANTIZE_CALIBRATE_H

#include "model/model.h"
#include "quantize/calib_text.h"

#include <stdatomic.h>

/* The sets of linears that read the same rows. */
enum input_set { INPUT_QKV, INPUT_O, INPUT_GATE_UP, INPUT_DOWN, NUM_INPUT_SETS };

#define CALIB_ROWS 64 /* rows of each input kept to measure errors with */

/* Inputs of one set of a layer. */
struct input_stats {
    int width, num_rows;
    float *absmax;  /* (width) */
    float *mean_sq; /* (width) */
    float *rows;    /* (num_rows, width), spread evenly over the text */
};

#define KV_CANDIDATES 16 /* clip ratios tried */
#define KV_RATIO_ONE 4
#define KV_FOLDS 2 /* even and odd windows */

/* One side of a layer's cache, per channel (kv_heads * head_dim). Errors are cross-validated: a window is quantised
 * with the range of the other fold's windows, so that they tell what unseen text will cost. Measured on the text that
 * the range was taken from, clipping looks better than it is. */
struct kv_stats {
    int n;
    float *lo[KV_FOLDS], *hi[KV_FOLDS]; /* range seen */
    double *sum_sq;                     /* of the values */
    double *error;                      /* (n, KV_CANDIDATES) squared error of each clip ratio */
    double *weight;                     /* mean square of what it is multiplied by: q for K, 1 for V */
    float *scale, *offset;              /* chosen */
    double rel_error;                   /* sqrt(weighted squared error / weighted sum of squares) */
};

struct layer_stats {
    struct input_stats input[NUM_INPUT_SETS];
    struct kv_stats k, v;
};

struct calibrate_options {
    enum cpu_isa isa;
    bool kv;                                                    /* measure caches: a second pass over the text */
    bool kv_asymmetric;                                         /* offsets, for channels that are not centred on 0 */
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* of one layer; may be NULL */
    void *progress_arg;
    const atomic_bool *stop; /* may be NULL; set: give up with OCTAVO_EBUSY */
};

struct calibration {
    int64_t num_tokens;
    struct layer_stats layer; /* of the layer that was run last */
    struct input_stats head;  /* inputs of lm_head, after the last layer */
    /* How it runs. */
    const struct checkpoint *ckpt;
    struct pool *pool;
    const struct calib_text *text;
    struct calibrate_options opts;
    float *streams;     /* (num_windows, window, hidden) what the layers so far have made of the text */
    float *scratch;     /* (window, hidden) of a pass whose outcome is not wanted */
    struct kv_cache kv; /* of one layer */
    struct batch batch;
    int32_t *block_table;
};

/* ckpt, pool and text must outlive the calibration. */
int calibration_open(const struct checkpoint *ckpt, struct pool *pool, const struct calib_text *text,
                     const struct calibrate_options *opts, struct calibration *ret, struct octavo_error *err);
/* Runs the text through a layer: 0 first, then each after the one before. */
int calibration_layer(struct calibration *c, int layer, struct octavo_error *err);
void calibration_release(struct calibration *c);

/* The range that ratio leaves of [lo, hi], as a scale and an offset of the cache: q = rint(x / scale + offset) in
 * [-128, 127]. The scale is finite and positive even for a channel that is always 0. */
void kv_scale_of(float lo, float hi, float ratio, bool asymmetric, float *ret_scale, float *ret_offset);
float kv_candidate_ratio(int i); /* descending; 1 for KV_RATIO_ONE */
/* One value as the cache gives it back. */
float kv_round_trip(float x, float scale, float inv, float offset);

#endif
