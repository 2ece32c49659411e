/* Sampling: see sampler.h. The order of steps is vLLM V1's: min_tokens, logit bias, penalties, temperature, min_p,
 * top_k, top_p, draw. Ties always go to the lower id, and sums run in a fixed order, so a draw is reproducible. */
#include "engine/sampler.h"

#include "base/detmath.h"
#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GREEDY_BELOW 1e-5f
#define MIN_TEMPERATURE 0.01f /* what is hotter than greedy is at least this, as in vLLM: no overflow of z / t */

int sampler_scratch_init(struct sampler_scratch *s, int32_t vocab_size)
{
    size_t n = (size_t)vocab_size, blocks = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
    *s = (struct sampler_scratch){mem_try_array(n, sizeof(float)),      mem_try_array(n, sizeof(float)),
                                  mem_try_array(n, sizeof(int32_t)),    mem_try_calloc(n, sizeof(int32_t)),
                                  mem_try_array(blocks, sizeof(float)), mem_try_array(blocks, sizeof(int32_t)),
                                  mem_try_array(blocks, sizeof(double))};
    return s->z && s->p && s->ids && s->counts && s->greatest && s->blocks && s->sums ? 0 : OCTAVO_ENOMEM;
}

void sampler_scratch_release(struct sampler_scratch *s)
{
    free(s->z);
    free(s->p);
    free(s->ids);
    free(s->counts);
    free(s->greatest);
    free(s->blocks);
    free(s->sums);
}

/* Uniform in [0, 1): splitmix64's finaliser over seed and index, twice, so that neighbours share nothing. */
static double uniform(int64_t seed, int64_t index)
{
    uint64_t x = (uint64_t)seed;
    for (int round = 0; round < 2; round++) {
        x += 0x9e3779b97f4a7c15u * (uint64_t)(round ? index + 1 : 1);
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
        x = (x ^ x >> 27) * 0x94d049bb133111ebu;
        x ^= x >> 31;
    }
    return (double)(x >> 11) * 0x1p-53;
}

/* a before b in "best first": higher logit, then lower id */
static inline bool better(const float *z, int32_t a, int32_t b)
{
    return z[a] > z[b] || (z[a] == z[b] && a < b);
}

/* Puts the m best of ids[0..n) first, in no order. Quickselect with the median of three: no adversary chooses logits
 * finely enough to matter, and equal logits still differ by id. */
static void select_best(const float *z, int32_t *ids, int32_t n, int32_t m)
{
    int32_t lo = 0, hi = n;
    while (hi - lo > 1 && m > lo && m < hi) {
        int32_t a = ids[lo], b = ids[lo + (hi - lo) / 2], c = ids[hi - 1];
        int32_t pivot = better(z, a, b) ? (better(z, b, c)   ? b
                                           : better(z, a, c) ? c
                                                             : a)
                                        : (better(z, a, c)   ? a
                                           : better(z, b, c) ? c
                                                             : b);
        int32_t i = lo, j = hi - 1;
        while (i <= j) {
            while (better(z, ids[i], pivot))
                i++;
            while (better(z, pivot, ids[j]))
                j--;
            if (i <= j) {
                int32_t t = ids[i];
                ids[i++] = ids[j];
                ids[j--] = t;
            }
        }
        /* ids[lo..j] are no worse than the pivot, ids[i..hi) no better */
        if (m <= j + 1)
            hi = j + 1;
        else if (m >= i)
            lo = i;
        else
            return;
    }
}

static int compare_best(const void *pa, const void *pb, void *arg)
{
    int32_t a = *(const int32_t *)pa, b = *(const int32_t *)pb;
    return a == b ? 0 : better(arg, a, b) ? -1 : 1;
}

static void sort_best(const float *z, int32_t *ids, int32_t n)
{
    qsort_r(ids, (size_t)n, sizeof(*ids), compare_best, (void *)z);
}

/* Of blocks of z (n): the greatest number of each, to scratch; returns the greatest of all and where it comes first, or
 * SAMPLER_NOT_FINITE when there is none, or NaN or infinity. */
static int32_t scan(const struct sampler *s, struct sampler_scratch *scratch, const float *z, int32_t n)
{
    float max = -INFINITY, *greatest = scratch->greatest;
    int32_t best = -1;
    s->ops->block_max(greatest, z, n);
    for (int32_t b = 0; b * SCAN_BLOCK < n; b++) {
        if (isnan(greatest[b]))
            return SAMPLER_NOT_FINITE;
        if (greatest[b] > max) {
            max = greatest[b];
            best = b;
        }
    }
    if (best < 0 || max == INFINITY)
        return SAMPLER_NOT_FINITE;
    for (int32_t i = best * SCAN_BLOCK;; i++)
        if (z[i] == max)
            return i;
}

/* Ids of z (n) that are at least `least`, ascending, after scan; returns how many. */
static int32_t collect(struct sampler_scratch *scratch, const float *z, int32_t n, float least)
{
    int32_t count = 0;
    for (int32_t b = 0; b * SCAN_BLOCK < n; b++) {
        if (!(scratch->greatest[b] >= least))
            continue;
        for (int32_t i = b * SCAN_BLOCK, end = MIN(i + SCAN_BLOCK, n); i < end; i++)
            if (z[i] >= least)
                scratch->ids[count++] = i;
    }
    return count;
}

/* A number that the m best of z (n) are at least, and hardly any others, after scan: that many blocks hold one each. */
static float least_of_best(struct sampler_scratch *scratch, int32_t n, int32_t m)
{
    int32_t blocks = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
    float least = INFINITY;
    if (m > blocks)
        return -INFINITY;
    for (int32_t b = 0; b < blocks; b++)
        scratch->blocks[b] = b;
    select_best(scratch->greatest, scratch->blocks, blocks, m);
    for (int32_t i = 0; i < m; i++)
        least = fminf(least, scratch->greatest[scratch->blocks[i]]);
    return least;
}

/* ---- logits processors ---- */

static void mask(float *z, int32_t n, const int32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0 && ids[i] < n)
            z[ids[i]] = -INFINITY;
}

static void penalise(float *z, int32_t n, int32_t *counts, const struct request *r)
{
    const struct octavo_sampling_params *sp = &r->sampling;
    if (sp->repetition_penalty != 1.0f)
        for (int64_t i = 0; i < r->num_tokens; i++) {
            int32_t id = r->token_ids[i];
            if (id < n && counts[id]++ == 0)
                z[id] = z[id] > 0 ? z[id] / sp->repetition_penalty : z[id] * sp->repetition_penalty;
        }
    for (int64_t i = 0; i < r->num_tokens; i++)
        counts[r->token_ids[i]] = 0;
    if (sp->frequency_penalty == 0 && sp->presence_penalty == 0)
        return;
    for (int64_t i = r->num_prompt_tokens; i < r->num_tokens; i++)
        counts[r->token_ids[i]]++;
    for (int64_t i = r->num_prompt_tokens; i < r->num_tokens; i++) {
        int32_t id = r->token_ids[i];
        if (id < n && counts[id])
            z[id] -= sp->frequency_penalty * (float)counts[id] + sp->presence_penalty;
        counts[id] = 0;
    }
}

static void process(const struct sampler *s, struct sampler_scratch *scratch, const struct request *r)
{
    const struct octavo_sampling_params *sp = &r->sampling;
    float *z = scratch->z;
    if (r->num_tokens - r->num_prompt_tokens < sp->min_tokens) {
        mask(z, s->num_sampled, s->eos, s->num_eos);
        mask(z, s->num_sampled, sp->stop_token_ids, sp->num_stop_token_ids);
    }
    for (size_t i = 0; i < sp->num_logit_bias; i++)
        if (sp->logit_bias_ids[i] < s->num_sampled)
            z[sp->logit_bias_ids[i]] += fminf(fmaxf(sp->logit_bias[i], -100.0f), 100.0f);
    if (sp->repetition_penalty != 1.0f || sp->frequency_penalty != 0 || sp->presence_penalty != 0)
        penalise(z, s->num_sampled, scratch->counts, r);
}

static bool is_plain(const struct octavo_sampling_params *sp)
{
    return sp->min_tokens == 0 && sp->num_logit_bias == 0 && sp->repetition_penalty == 1.0f &&
           sp->frequency_penalty == 0 && sp->presence_penalty == 0;
}

/* ---- drawing ---- */

/* Sums run over SCAN_BLOCK candidates, and over these sums: an order that is fixed, and that a CPU can overlap. Returns
 * the sum of p of n candidates, those of their blocks to scratch. ids: the candidates, or NULL for all from 0 on. */
static double sum_blocks(const struct sampler *s, struct sampler_scratch *scratch, const int32_t *ids, int32_t n)
{
    int32_t blocks = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;
    double total = 0, *sums = scratch->sums;
    if (ids) {
        memset(sums, 0, (size_t)blocks * sizeof(*sums));
        for (int32_t i = 0; i < n; i++)
            sums[i / SCAN_BLOCK] += (double)scratch->p[ids[i]];
    } else {
        s->ops->block_sum(sums, scratch->p, n);
    }
    for (int32_t b = 0; b < blocks; b++)
        total += sums[b];
    return total;
}

/* The first of n candidates whose running sum of p exceeds u * total, or, for what rounding takes, the last of its
 * block that has any p; after sum_blocks. */
static int32_t draw(const struct sampler_scratch *scratch, const int32_t *ids, int32_t n, double total, double u)
{
    const float *p = scratch->p;
    double sum = 0, before = 0, want = u * total;
    int32_t begin = 0;
    for (; begin < n; begin += SCAN_BLOCK) {
        before = sum;
        sum += scratch->sums[begin / SCAN_BLOCK];
        if (sum > want)
            break;
    }
    int32_t last = 0, end = MIN(begin + SCAN_BLOCK, n);
    for (int32_t i = begin < n ? begin : 0; i < end; i++) {
        int32_t id = ids ? ids[i] : i;
        before += (double)p[id];
        last = p[id] > 0 ? id : last;
        if (begin < n && p[id] > 0 && before > want)
            return id;
    }
    return last;
}

/* The candidates, at most count, are those of z (n) that are at least floor_z. Puts the shortest run of best ones whose
 * probability reaches top_p first into ids, and returns how many; collects and sorts no more than it must. */
static int32_t nucleus(struct sampler_scratch *scratch, const float *z, int32_t n, int32_t count, float floor_z,
                       float top_p, double *total)
{
    int32_t *ids = scratch->ids;
    double want = (double)top_p * *total;
    for (int32_t m = MIN(count, 256);; m = m > count / 8 ? count : m * 8) {
        float least = m < count ? fmaxf(floor_z, least_of_best(scratch, n, m)) : floor_z;
        int32_t found = collect(scratch, z, n, least), best = MIN(found, m);
        select_best(z, ids, found, best);
        sort_best(z, ids, best);
        double sum = 0;
        for (int32_t i = 0; i < best; i++) {
            sum += (double)scratch->p[ids[i]];
            if (sum >= want) {
                *total = sum;
                return i + 1;
            }
        }
        if (m == count) {
            *total = sum;
            return best;
        }
    }
}

/* What the k best of z (n) are at least, if that is more than floor_z. */
static float kth_best(struct sampler_scratch *scratch, const float *z, int32_t n, int32_t k, float floor_z)
{
    float kth = INFINITY;
    int32_t *ids = scratch->ids, count = collect(scratch, z, n, fmaxf(floor_z, least_of_best(scratch, n, k)));
    if (count < k)
        return floor_z;
    select_best(z, ids, count, k);
    for (int32_t i = 0; i < k; i++)
        kth = fminf(kth, z[ids[i]]);
    return kth;
}

int32_t sampler_sample(const struct sampler *s, struct sampler_scratch *scratch, const float *logits,
                       const struct request *r)
{
    const struct octavo_sampling_params *sp = &r->sampling;
    int32_t n = s->num_sampled, *ids = scratch->ids;
    bool greedy = sp->temperature < GREEDY_BELOW;
    const float *z = logits;
    if (!is_plain(sp)) {
        memcpy(scratch->z, logits, (size_t)n * sizeof(float));
        process(s, scratch, r);
        z = scratch->z;
    }
    if (greedy)
        return scan(s, scratch, z, n);

    float t = fmaxf(sp->temperature, MIN_TEMPERATURE), *p = scratch->p;
    if (t != 1.0f) {
        for (int32_t i = 0; i < n; i++)
            scratch->z[i] = z[i] / t;
        z = scratch->z;
    }
    int32_t best = scan(s, scratch, z, n);
    if (best < 0)
        return best;
    float floor_z = -FLT_MAX; /* what is masked is below */
    if (sp->min_p > 0)
        floor_z = fmaxf(floor_z, fminf(z[best] + (float)det_log((double)sp->min_p), z[best]));
    if (sp->top_k > 0 && sp->top_k < n) /* ties with the k-th stay */
        floor_z = kth_best(scratch, z, n, sp->top_k, floor_z);
    bool all = floor_z == -FLT_MAX; /* the masked have p = 0 */
    int32_t count = all ? n : collect(scratch, z, n, floor_z);
    if (count > n / SCAN_BLOCK)
        s->ops->exp_sub(p, z, n, z[best]);
    else
        for (int32_t i = 0; i < count; i++)
            s->ops->exp_sub(&p[ids[i]], &z[ids[i]], 1, z[best]);
    double total = sum_blocks(s, scratch, all ? NULL : ids, count);
    if (sp->top_p < 1) {
        count = nucleus(scratch, z, n, count, floor_z, sp->top_p, &total);
        sum_blocks(s, scratch, ids, count);
        all = false;
    }
    int64_t index = r->num_tokens - r->num_prompt_tokens;
    return draw(scratch, all ? NULL : ids, count, total, uniform(sp->seed, index));
}

int32_t sampler_logprobs(const struct sampler *s, struct sampler_scratch *scratch, const float *logits, int32_t token,
                         int32_t num, struct octavo_logprob *ret, struct octavo_logprob *top)
{
    int32_t n = s->vocab_size, *ids = scratch->ids;
    float max, sum;
    s->ops->softmax_stats(logits, n, &max, &sum);
    if (!isfinite(max) || !isfinite(sum) || isnan(logits[token]))
        return SAMPLER_NOT_FINITE;
    double log_z = (double)max + det_log((double)sum);
    int32_t rank = 1;
    for (int32_t i = 0; i < n; i++)
        rank += logits[i] > logits[token];
    *ret = (struct octavo_logprob){token, (float)((double)logits[token] - log_z), rank};
    if (num == 0)
        return 0;
    if (num < 0 || num > n)
        num = n;
    memcpy(scratch->z, logits, (size_t)n * sizeof(float));
    s->ops->block_max(scratch->greatest, scratch->z, n);
    n = collect(scratch, scratch->z, n, least_of_best(scratch, n, num));
    select_best(scratch->z, ids, n, num);
    sort_best(scratch->z, ids, num);
    for (int32_t i = 0; i < num; i++)
        top[i] = (struct octavo_logprob){ids[i], (float)((double)logits[ids[i]] - log_z), i + 1};
    return num;
}
