/* The flags that say how `generate` and `chat` choose tokens, named as vLLM's SamplingParams. Main thread. */
#ifndef OCTAVO_CLI_SAMPLING_OPTIONS_H
#define OCTAVO_CLI_SAMPLING_OPTIONS_H

#include "cli/options.h"
#include "text/detokenizer.h"

#define SAMPLING_UNSET (-1e30)

struct sampling_flags {
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty; /* SAMPLING_UNSET */
    int64_t top_k, max_tokens, min_tokens;                                                     /* INT64_MIN: unset */
    bool ignore_eos;
    struct option_list stop;
    size_t *stop_len; /* (stop.len), made by sampling_flags_apply */
};

void sampling_flags_init(struct sampling_flags *flags);
struct option_set sampling_flags_set(struct sampling_flags *flags);
/* What the ranges of single flags cannot say. */
int sampling_flags_check(const struct sampling_flags *flags, struct octavo_error *err);
/* Flags over the checkpoint's defaults, unless use_defaults is false. A temperature of 0 is plain greedy decoding: what
 * else the defaults hold (penalties) then counts only where a flag says so. seed < 0: none was given. The stop strings
 * go to ret_det, which borrows them. */
void sampling_flags_apply(struct sampling_flags *flags, const struct octavo_engine_info *info, bool use_defaults,
                          int64_t seed, struct octavo_sampling_params *ret, struct detokenizer_options *ret_det);
void sampling_flags_release(struct sampling_flags *flags);

#endif
