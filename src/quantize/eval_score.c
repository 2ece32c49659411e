/* Scores of a row of logits: see eval_score.h. */
#include "quantize/eval_score.h"

#include "base/detmath.h"

#include <string.h>

#define LANES 8 /* partial sums; element i goes to lane i % LANES, and lanes are added in order */

/* exp(x) for x <= 0, to about 1e-15 relative; below -700 it stays exp(-700), which no sum notices. Like det_exp, but
 * without branches and divisions, because every logit comes through here: compilers turn the loops into vectors. */
static inline double exp_nonpositive(double x)
{
    static const double inverse_factorial[] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    const double magic = 0x1.8p52, ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33;
    x = x < -700 ? -700 : x;
    double shifted = x * 0x1.71547652b82fep+0 + magic, n = shifted - magic;
    double r = (x - n * ln2_hi) - n * ln2_lo, sum = inverse_factorial[13];
    for (int k = 12; k >= 0; k--)
        sum = sum * r + inverse_factorial[k];
    uint64_t bits; /* n stands in the low bits of shifted */
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof(scale));
    return sum * scale;
}

static double add_lanes(const double lanes[LANES])
{
    double sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += lanes[j];
    return sum;
}

/* The likeliest token (the lowest id of several), or -1 when a logit is not finite. */
static int32_t find_top(const float *z, int32_t n)
{
    float max = z[0], check = 0;
    for (int32_t i = 0; i < n; i++) {
        check += z[i] - z[i]; /* 0, or NaN for ever */
        max = z[i] > max ? z[i] : max;
    }
    if (check != 0)
        return -1;
    int32_t top = 0;
    while (z[top] != max)
        top++;
    return top;
}

/* sum of exp(z - z[top]) */
static double exp_sum(const float *z, int32_t n, double max)
{
    double lanes[LANES] = {0};
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] += exp_nonpositive((double)z[i + j] - max);
    for (; i < n; i++)
        lanes[i % LANES] += exp_nonpositive((double)z[i] - max);
    return add_lanes(lanes);
}

/* sums over i of e_i = exp(p_i - max_p), and of e_i * ((p_i - max_p) - (q_i - max_q)) */
static void divergence_sums(const float *p, double max_p, const float *q, double max_q, int32_t n, double *ret_sum,
                            double *ret_weighted)
{
    double sums[LANES] = {0}, weighted[LANES] = {0};
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double a = (double)p[i + j] - max_p, b = (double)q[i + j] - max_q, e = exp_nonpositive(a);
            sums[j] += e;
            weighted[j] += e * (a - b);
        }
    for (; i < n; i++) {
        double a = (double)p[i] - max_p, b = (double)q[i] - max_q, e = exp_nonpositive(a);
        sums[i % LANES] += e;
        weighted[i % LANES] += e * (a - b);
    }
    *ret_sum = add_lanes(sums);
    *ret_weighted = add_lanes(weighted);
}

int eval_score_row(const float *logits, const float *against, int32_t n, int32_t token, struct eval_score *ret)
{
    *ret = (struct eval_score){0};
    int32_t top = find_top(logits, n);
    if (top < 0)
        return 1;
    double max = (double)logits[top], log_sum = det_log(exp_sum(logits, n, max));
    ret->nll = log_sum - ((double)logits[token] - max);
    if (!against)
        return 0;
    int32_t against_top = find_top(against, n);
    if (against_top < 0)
        return 2;
    double against_max = (double)against[against_top], sum, weighted;
    divergence_sums(against, against_max, logits, max, n, &sum, &weighted);
    double against_log_sum = det_log(sum);
    ret->against_nll = against_log_sum - ((double)against[token] - against_max);
    /* KL(p || q) = sum p (log p - log q), with the two normalisers taken out of the sum */
    double kld = weighted / sum - (against_log_sum - log_sum);
    ret->kld = kld > 0 ? kld : 0; /* rounding, where the two are all but equal */
    ret->same_top = top == against_top;
    return 0;
}
