/* The tensors of the checkpoint to be written, in order, and where each comes from. Made once by quantize.c before any
 * work is done, so that the disk is known to suffice. */
#ifndef OCTAVO_QUANTIZE_PLAN_H
#define OCTAVO_QUANTIZE_PLAN_H

#include "ckpt/arch.h"
#include "ckpt/checkpoint.h"
#include "quantize/quantize.h"
#include "quantize/writer.h"

enum item_kind { ITEM_COPY, ITEM_NORM, ITEM_BIAS, ITEM_LINEAR };

struct plan_item {
    enum item_kind kind;
    const struct tensor *src;
    int layer;     /* -1: of no layer */
    int module;    /* ERROR_Q..ERROR_DOWN for a layer's linear or its bias; for a norm, the set it feeds, or -1 */
    char name[96]; /* as written */
    bool is_head;
    enum quantize_weights weights; /* ITEM_LINEAR, ITEM_BIAS */
    /* Numbers of what is written. */
    int out, scale, offset, scale_bias;
    int chunks; /* columns of scale_bias */
};

/* Scales of one layer's cache: numbers of k scale, k offset, v scale, v offset. */
struct plan_kv {
    int out[4];
};

struct plan {
    struct plan_item *items;
    int num_items;
    struct plan_kv *kv; /* (num_layers), or NULL */
};

void plan_make(const struct checkpoint *ckpt, const struct quantize_options *opts, struct writer *w, struct plan *ret);
void plan_release(struct plan *p);
/* "W8A8_DYNAMIC": the word of the description. */
const char *weights_type(enum quantize_weights w);

#endif
