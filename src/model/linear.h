/* One linear layer, packed for its kernel: float weights, integer weights with integer activations, or integer weights
 * with float activations. Loaded once; immutable afterwards. */
#ifndef OCTAVO_MODEL_LINEAR_H
#define OCTAVO_MODEL_LINEAR_H

#include "base/pool.h"
#include "ckpt/checkpoint.h"
#include "kernel/ops.h"

enum linear_kind {
    LINEAR_FLOAT, /* gemm_bf16, gemm_f16, gemm_f32 */
    LINEAR_INT8,  /* gemm_i8 */
    LINEAR_W8A16, /* gemm_w8a16, gemm_w4a16 */
};

struct linear {
    enum linear_kind kind;
    int n, k;
    bool nibbles; /* integers of four bits, two in a byte: gemm_w4a8, gemm_w4a16 */
    bool swiglu;  /* LINEAR_INT8: gate and up in one, (n) each; what comes out is silu(gate) * up */
    void *weight; /* packed, weight_bytes from mem_map */
    size_t weight_bytes;
    float *bias;      /* (columns of the panels), or NULL */
    enum dtype dtype; /* LINEAR_FLOAT */
    /* LINEAR_INT8: the fields of struct gemm_i8_args, a value for every column of the panels */
    enum activation_kind activation;
    float input_inv_scale, input_offset;
    int32_t *w_sum, *col_add, *col_sum, *col_zero;
    float *col_scale;
    int input; /* which linear of its set quantised the input that this one reads (linear_share_inputs) */
    /* LINEAR_W8A16: (panels, groups, GEMM_NR) */
    int group_size;
    float *scale, *zero;
};

/* Where a linear stands in the set that is computed together, in panels: which worker reads what is a matter of the
 * whole set. Zero: it is alone. */
struct linear_share {
    int first, total; /* its first panel in the set; panels of the set */
    int grain;        /* panels that go to one worker together */
};

/* Packs a module ("model.layers.0.mlp.up_proj"), on all workers. quantize: a float weight becomes INT8 with dynamic
 * activations, per-channel absmax / 127. data_pinned: the bytes of a float weight that is pinned already, or NULL.
 * share: so that weights lie near the worker that reads them, on machines with several NUMA nodes. */
int linear_load(struct linear *l, const struct checkpoint *ckpt, struct pool *pool, const char *module, bool quantize,
                const uint8_t *data_pinned, const struct linear_share *share, struct octavo_error *err);
/* The same for two modules of one shape that read the same input, as one linear with swiglu set. Returns 1, and does
 * nothing, when they differ in kind or input: then each is loaded alone, and silu_mul follows them. */
int linear_load_swiglu(struct linear *l, const struct checkpoint *ckpt, struct pool *pool, const char *gate,
                       const char *up, bool quantize, struct octavo_error *err);
void linear_release(struct linear *l);
/* Bytes that linear_load will map for the module. */
size_t linear_bytes(const struct checkpoint *ckpt, const char *module, bool quantize);

/* Quantised activations of one step, for the linears of a set that read the same rows. */
#define LINEAR_MAX_SET 3
struct linear_input {
    uint8_t *xq[LINEAR_MAX_SET]; /* (tokens, ldxq) */
    size_t ldxq;
    float *row_scale[LINEAR_MAX_SET];
    int32_t *row_zero[LINEAR_MAX_SET], *row_sum[LINEAR_MAX_SET]; /* (tokens) */
};

/* The input from row on. */
static inline struct linear_input linear_input_from(const struct linear_input *in, int row)
{
    struct linear_input from = *in;
    for (int i = 0; i < LINEAR_MAX_SET; i++) {
        from.xq[i] += (size_t)row * in->ldxq;
        from.row_scale[i] += row;
        from.row_zero[i] += row;
        from.row_sum[i] += row;
    }
    return from;
}

/* Makes the linears of a set share one quantised input where they ask for the same. */
void linear_share_inputs(struct linear *set, int count);
/* Whether any of them wants linear_quantize_row to have run. */
bool linear_set_is_quantised(const struct linear *set, int count);
/* Quantises row t of x (k) for the set. */
void linear_quantize_row(const struct kernel_ops *ops, const struct linear *set, int count, const float *x, int t,
                         struct linear_input *in);
/* Panels of a set together: what linear_forward's work is counted in. */
int linear_set_panels(const struct linear *set, int count);
/* y (rows, ldy): the outputs of the set side by side, from x (rows, ldx) or from what was quantised; panels
 * [begin, end) of them. */
void linear_forward(const struct kernel_ops *ops, const struct linear *set, int count, float *y, size_t ldy,
                    const float *x, size_t ldx, const struct linear_input *in, int rows, int begin, int end);

/* One float element of a tensor. */
float tensor_elem(const uint8_t *p, enum dtype dtype);

#endif
