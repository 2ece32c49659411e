/* From a float checkpoint to a quantised one in ModelSlim's V1 layout: calibrate, choose, write. Called by
 * cli/cmd_quantize on the main thread; works on a pool of its own. */
#ifndef OCTAVO_QUANTIZE_QUANTIZE_H
#define OCTAVO_QUANTIZE_QUANTIZE_H

#include "base/cpu.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum quantize_weights { WEIGHTS_W8A8, WEIGHTS_W8A16, WEIGHTS_W4A8, WEIGHTS_FLOAT };

struct quantize_options {
    const char *src, *dst;
    const char *calib; /* file, see calib_text.h */
    enum quantize_weights weights;
    bool kv_c8, kv_asymmetric;
    bool lm_head_w8a8;
    bool smooth;
    bool overwrite;
    int64_t calib_tokens;
    int window; /* tokens of one calibration sequence */
    int threads;
    enum cpu_isa isa;
    size_t part_bytes;                                          /* 0: WRITER_PART_BYTES */
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* over all of it; may be NULL */
    void *progress_arg;
    const atomic_bool *stop; /* may be NULL */
};

enum { ERROR_Q, ERROR_K, ERROR_V, ERROR_O, ERROR_GATE, ERROR_UP, ERROR_DOWN, NUM_LAYER_LINEARS };

/* Relative L2 errors on the calibration text; NAN where nothing was quantised. */
struct layer_report {
    double linear[NUM_LAYER_LINEARS]; /* of the linear's output, its own input being exact */
    double k, v;                      /* of cached K (weighted by q's mean squares) and V */
    double smoothing[4]; /* of qkv, o, gate_up, down: error with it over error without; 1: left as it was */
};

struct quantize_report {
    int num_layers;
    struct layer_report *layers;
    double lm_head;
    int64_t calib_tokens;
    uint64_t bytes_before, bytes_after; /* of tensors */
};

int quantize(const struct quantize_options *opts, struct quantize_report *ret_report, struct octavo_error *err);
void quantize_report_release(struct quantize_report *r);

#endif
