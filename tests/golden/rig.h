/* What the golden tests share: a model with a cache and hand-made batches, and a reader of recorded tensors. */
#ifndef OCTAVO_TESTS_GOLDEN_RIG_H
#define OCTAVO_TESTS_GOLDEN_RIG_H

#include "model/model.h"

#define BLOCK_SIZE 32
#define NUM_BLOCKS 64
#define MAX_TOKENS 2048

/* One model on some number of threads and some tier. */
struct rig {
    struct checkpoint *ckpt;
    struct pool *pool;
    struct model *model;
    struct workspace *ws;
    struct kv_cache kv;
};

/* kv_dtype: of every layer, or, with c8, of those that have no C8 scales. Fails the test when it cannot. */
void rig_open(struct rig *rig, const char *dir, int threads, enum cpu_isa isa, enum dtype kv_dtype, bool c8);
void rig_close(struct rig *rig);

/* One sequence being computed, with its own blocks. */
struct seq {
    const int32_t *ids;
    int len, done;
    int32_t blocks[NUM_BLOCKS];
    float *logits; /* (len, vocab), freed by the test */
};

void seq_init(const struct rig *rig, struct seq *s, const int32_t *ids, int len, int first_block, int step);
/* Computes up to chunk[i] more tokens of each sequence in one step, and all their logits. */
void rig_step(struct rig *rig, struct seq *seqs, const int *chunk, int num_seqs);
/* All logits (len, vocab) of one prompt, chunk tokens a step. */
float *rig_run(struct rig *rig, const int32_t *ids, int len, int chunk, int first_block, int block_step);

/* Tensor "what.i" of a file of expectations, or NULL. */
const struct tensor *expected_find(const struct safetensors_file *f, const char *what, int i);
int32_t *expected_ints(const struct tensor *t); /* a copy of an I32 vector */

#endif
