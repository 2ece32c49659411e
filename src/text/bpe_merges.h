/* Looking a pair up in the merge table: the inner loop of BPE. */
#ifndef OCTAVO_TEXT_BPE_MERGES_H
#define OCTAVO_TEXT_BPE_MERGES_H

#include "text/bpe.h"

#define BPE_NO_PAIR UINT64_MAX

static inline uint64_t bpe_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Ids are below 2^24, so a multiply mixes the 48 bits that matter into the top. */
static inline size_t bpe_pair_hash(uint64_t pair)
{
    uint64_t h = (pair ^ pair >> 29) * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 24 ^ h >> 50);
}

static inline const struct bpe_merge *bpe_merge_find(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = bpe_pair(left, right);
    for (size_t i = bpe_pair_hash(pair) & bpe->merges_mask;; i = (i + 1) & bpe->merges_mask) {
        const struct bpe_merge *m = &bpe->merges[i];
        if (m->pair == pair)
            return m;
        if (m->pair == BPE_NO_PAIR)
            return NULL;
    }
}

#endif
