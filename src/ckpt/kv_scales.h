/* Static scales of the INT8 cache, from either format; private to ckpt/. Loading thread. */
#ifndef OCTAVO_CKPT_KV_SCALES_H
#define OCTAVO_CKPT_KV_SCALES_H

#include "ckpt/checkpoint.h"
#include "ckpt/quant.h"
#include "ckpt/source.h"

/* Fills ret (num_hidden_layers), each zeroed: a layer whose cache is float keeps NULLs. */
int kv_scales_load(struct tensor_source *src, const struct quant *q, struct kv_scales *ret, struct octavo_error *err);
void kv_scales_release(struct kv_scales *s);

#endif
