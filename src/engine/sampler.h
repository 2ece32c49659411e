/* Logits to tokens and logprobs. A pure function of one request's logits, parameters and tokens: what it draws depends
 * on (seed, output index) alone. Runs on any worker, each with its own scratch. */
#ifndef OCTAVO_ENGINE_SAMPLER_H
#define OCTAVO_ENGINE_SAMPLER_H

#include "engine/request.h"
#include "kernel/ops.h"

struct sampler {
    const struct kernel_ops *ops;
    int32_t vocab_size;  /* logits in a row */
    int32_t num_sampled; /* ids below this may be drawn */
    const int32_t *eos;  /* (num_eos) masked until min_tokens */
    size_t num_eos;
};

struct sampler_scratch {
    float *z;        /* (vocab) processed logits */
    float *p;        /* (vocab) */
    int32_t *ids;    /* (vocab) candidates */
    int32_t *counts; /* (vocab) zero between calls */
    float *greatest; /* (vocab / SCAN_BLOCK) of each block of z */
    int32_t *blocks; /* (vocab / SCAN_BLOCK) */
    double *sums;    /* (vocab / SCAN_BLOCK) of as many candidates' p each */
};

int sampler_scratch_init(struct sampler_scratch *s, int32_t vocab_size); /* 0, or OCTAVO_ENOMEM */
void sampler_scratch_release(struct sampler_scratch *s);

#define SAMPLER_NOT_FINITE (-1)

/* The next token of r from its raw logits (vocab); SAMPLER_NOT_FINITE when they hold a NaN or allow no token. */
int32_t sampler_sample(const struct sampler *s, struct sampler_scratch *scratch, const float *logits,
                       const struct request *r);

/* log_softmax of raw logits: token's own into *ret, and the `num` best (num = OCTAVO_LOGPROBS_ALL: all), best first and
 * ties by id, into top. Returns how many, or SAMPLER_NOT_FINITE. */
int32_t sampler_logprobs(const struct sampler *s, struct sampler_scratch *scratch, const float *logits, int32_t token,
                         int32_t num, struct octavo_logprob *ret, struct octavo_logprob *top);

#endif
