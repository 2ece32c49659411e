/* One linear module of a checkpoint, as its file holds it; private to ckpt/. Immutable once resolved: any thread. */
#ifndef OCTAVO_CKPT_LINEAR_H
#define OCTAVO_CKPT_LINEAR_H

#include "ckpt/checkpoint.h"
#include "ckpt/source.h"

#define LINEAR_MAX_INT8_K 131072 /* 127 * 128 * k stays within int32 */

enum linear_packing {
    PACKED_INT8,       /* (n, k), one integer a byte */
    PACKED_PAIR_ROWS,  /* (n/2, k): row 2i in the low nibble, row 2i+1 in the high one */
    PACKED_PAIR_ALONG, /* (n, k/2): column 2j in the low nibble, column 2j+1 in the high one */
    PACKED_STREAM,     /* (n, ceil(k*bits/32)) words: a row is a little-endian stream of q + 2^(bits-1) */
};

struct linear_entry {
    struct linear_spec spec;
    enum linear_packing packing;
    int stream_bits;                             /* PACKED_STREAM: 2..8 */
    const struct tensor *scale;                  /* one value, or (n, groups) */
    const struct tensor *zero;                   /* NULL: all 0; shaped as scale, or packed */
    bool zero_packed;                            /* (ceil(n*stream_bits/32), groups) words, streams along n */
    const struct tensor *quant_bias, *deq_scale; /* spec.folded */
};

/* Sets what all kinds share. */
void linear_entry_init(struct linear_entry *l, const char *kind, int n, int k);
void linear_rows(const struct linear_entry *l, int row, int rows, int8_t *q);
void linear_scales(const struct linear_entry *l, float *scale, float *zero);
void linear_folded(const struct linear_entry *l, int32_t *quant_bias, float *deq_scale);
/* zero[n][g] of a packed zero point. */
int linear_packed_zero(const struct linear_entry *l, const struct tensor *zero, int n, int g);

/* How many groups the scale has: 1, or what divides k; an error when it is neither. */
int linear_groups_of(const struct tensor *scale, int n, int k, int *ret_groups, struct octavo_error *err);
/* Sums of k int8 products must fit int32. */
int linear_int8_check(const struct linear_entry *l, const struct tensor *weight, struct octavo_error *err);
int linear_weight_error(const struct tensor *t, const char *kind, int n, int k, struct octavo_error *err);

#endif
