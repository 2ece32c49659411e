/* What one row of logits says: the arithmetic of `octavo eval`. Pure; any thread. */
#ifndef OCTAVO_QUANTIZE_EVAL_SCORE_H
#define OCTAVO_QUANTIZE_EVAL_SCORE_H

#include <stdbool.h>
#include <stdint.h>

struct eval_score {
    double nll, against_nll, kld; /* nats */
    bool same_top;
};

/* Scores logits (n) of the model and, unless NULL, those of the reference, at the token that came. All in double, sums
 * in a fixed order. Returns 0, or 1 / 2 when a logit of the model / the reference is not finite. */
int eval_score_row(const float *logits, const float *against, int32_t n, int32_t token, struct eval_score *ret);

#endif
