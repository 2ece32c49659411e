/* What `octavo inspect` counts in a checkpoint before it prints. Main thread. */
#ifndef OCTAVO_CLI_INSPECT_SUMMARY_H
#define OCTAVO_CLI_INSPECT_SUMMARY_H

#include "base/buf.h"
#include "ckpt/checkpoint.h"

#define SUMMARY_MAX_KINDS 16

struct by_type {
    size_t count;
    uint64_t elements, bytes;
};

struct summary {
    struct by_type types[DTYPE_COUNT]; /* of the tensors in use */
    uint64_t num_params;               /* weights, whatever they are packed in, biases and norms; no scales */
    uint64_t packed_bytes; /* linears as they are packed, with their scales; a tied head is packed from the embedding */
    uint64_t embedding_bytes, unused_bytes;
    bool tied;              /* the head is the embedding */
    int32_t tokenizer_size; /* one past the highest id; -1: no tokenizer */
    struct {
        char name[32];
        size_t count;
    } kinds[SUMMARY_MAX_KINDS]; /* (num_kinds): of linears, in the order of their first */
    size_t num_kinds;
    int num_int8_layers, num_asymmetric_layers; /* of the KV cache */
};

void summary_count(const struct checkpoint *c, struct summary *s);
/* Layer's cache is INT8 / has an offset that is not 0. */
bool summary_layer_int8(const struct checkpoint *c, int layer);
bool summary_layer_asymmetric(const struct checkpoint *c, int layer);
/* Appends "0-3, 5": the layers for which is() holds; with every, each by itself, as a JSON list wants them. */
void summary_layers(const struct checkpoint *c, bool (*is)(const struct checkpoint *, int), bool every,
                    struct buf *out);

#endif
