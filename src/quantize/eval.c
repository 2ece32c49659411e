/* Running an evaluation: windows laid out, several in one flat batch, each scored position put where it belongs. The
 * caller's thread drives; forward passes and scores spread over the pool. See eval.h. */
#include "quantize/eval.h"

#include "base/detmath.h"
#include "base/mem.h"
#include "quantize/eval_impl.h"
#include "quantize/eval_score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct row {
    int64_t position; /* in the arrays of the result */
    int32_t token;    /* that came there */
};

struct run {
    struct eval *e;
    const struct eval_document *documents;
    struct eval_result *res;
    struct batch batch;
    struct row *rows;        /* (step_tokens), of batch.logits_rows */
    int32_t *block_tables;   /* (batch, blocks per window) */
    int first_row, num_rows; /* whose logits are being scored */
    int64_t done;            /* positions */
};

/* ---- windows ---- */

/* Counts windows and positions, and writes the windows down when there is room for them. */
static void lay_out(const struct eval *e, const struct eval_document *documents, size_t num_documents,
                    struct eval_result *res)
{
    res->num_windows = res->num_positions = res->num_tokens = 0;
    for (size_t d = 0; d < num_documents; d++) {
        int64_t len = documents[d].len, predicted = 1;
        res->num_tokens += len;
        for (int64_t begin = 0; predicted < len; begin += e->stride) {
            int64_t end = MIN(begin + e->window, len), first = MAX(predicted, begin + 1);
            if (first < end && res->windows)
                res->windows[res->num_windows] =
                    (struct eval_window){(int64_t)d, begin, end, first, res->num_positions};
            res->num_windows += first < end;
            res->num_positions += MAX(end - first, 0);
            predicted = end;
        }
    }
}

static int result_init(const struct eval *e, const struct eval_document *documents, size_t num_documents,
                       struct eval_result *res, struct octavo_error *err)
{
    *res = (struct eval_result){0};
    lay_out(e, documents, num_documents, res);
    if (res->num_positions == 0)
        return error_set(err, OCTAVO_EINVAL,
                         "the text has %lld tokens, and no document of it two: there is nothing to predict",
                         (long long)res->num_tokens);
    size_t n = (size_t)res->num_positions;
    res->windows = mem_try_array((size_t)res->num_windows, sizeof(*res->windows));
    res->nll = mem_try_array(n, sizeof(*res->nll));
    if (e->num_sides == 2) {
        res->against_nll = mem_try_array(n, sizeof(*res->against_nll));
        res->kld = mem_try_array(n, sizeof(*res->kld));
        res->same_top = mem_try_array(n, sizeof(*res->same_top));
    }
    if (!res->windows || !res->nll || (e->num_sides == 2 && (!res->against_nll || !res->kld || !res->same_top)))
        return error_set(err, OCTAVO_ENOMEM, "no memory for %zu positions; lower --max-tokens", n);
    lay_out(e, documents, num_documents, res);
    return 0;
}

void eval_result_release(struct eval_result *res)
{
    free(res->windows);
    free(res->nll);
    free(res->against_nll);
    free(res->kld);
    free(res->same_top);
    *res = (struct eval_result){0};
}

static int ids_check(const struct eval *e, const struct eval_document *documents, size_t num_documents,
                     struct octavo_error *err)
{
    int32_t vocab = e->sides[0].info.vocab_size;
    for (size_t d = 0; d < num_documents; d++)
        for (int64_t i = 0; i < documents[d].len; i++)
            if (documents[d].ids[i] < 0 || documents[d].ids[i] >= vocab)
                return error_set(err, OCTAVO_EINVAL,
                                 "token %lld of document %zu is %d, but the model's vocabulary ends at %d: the "
                                 "tokenizer belongs to another model",
                                 (long long)i, d, (int)documents[d].ids[i], (int)vocab - 1);
    return 0;
}

/* ---- passes ---- */

static void score_worker(void *arg, int worker, int num_workers)
{
    struct run *run = arg;
    const struct eval *e = run->e;
    struct eval_result *res = run->res;
    int32_t vocab = e->sides[0].info.vocab_size;
    for (int i = worker; i < run->num_rows; i += num_workers) {
        const struct row *row = &run->rows[run->first_row + i];
        size_t at = (size_t)i * (size_t)vocab;
        struct eval_score score;
        int bad = eval_score_row(e->sides[0].logits + at, e->num_sides == 2 ? e->sides[1].logits + at : NULL, vocab,
                                 row->token, &score);
        res->nll[row->position] = bad == 1 ? NAN : score.nll;
        if (e->num_sides < 2)
            continue;
        res->against_nll[row->position] = bad ? NAN : score.against_nll;
        res->kld[row->position] = score.kld;
        res->same_top[row->position] = score.same_top;
    }
}

static int finite_check(const struct run *run, struct octavo_error *err)
{
    for (int i = 0; i < run->num_rows; i++) {
        int64_t at = run->rows[run->first_row + i].position;
        const char *who = isnan(run->res->nll[at])                                    ? "the model"
                          : run->res->against_nll && isnan(run->res->against_nll[at]) ? "the reference"
                                                                                      : NULL;
        if (who)
            return error_set(
                err, OCTAVO_EINTERNAL,
                "%s's logits are not finite at predicted token %lld: its weights, or its scales, are broken", who,
                (long long)at);
    }
    return 0;
}

/* Runs the batch through every side and scores its rows. */
static int step(struct run *run, struct octavo_error *err)
{
    struct eval *e = run->e;
    for (int i = 0; i < e->num_sides; i++) {
        struct eval_side *s = &e->sides[i];
        model_forward(s->use_model, s->use_ws, &s->kv, &run->batch, s->hidden);
    }
    for (run->first_row = 0; run->first_row < run->batch.num_logits; run->first_row += run->num_rows) {
        run->num_rows = MIN(run->batch.num_logits - run->first_row, EVAL_LOGITS_ROWS);
        for (int i = 0; i < e->num_sides; i++) {
            struct eval_side *s = &e->sides[i];
            model_logits(s->use_model, s->use_ws,
                         s->hidden + (size_t)run->first_row * (size_t)s->use_model->config.hidden_size, run->num_rows,
                         s->logits, (size_t)s->info.vocab_size);
        }
        pool_run(e->pool, score_worker, run);
        int r = finite_check(run, err);
        if (r < 0)
            return r;
        run->done += run->num_rows;
        if (e->progress)
            e->progress(e->progress_arg, (uint64_t)run->done, (uint64_t)run->res->num_positions);
    }
    run->batch.num_tokens = run->batch.num_logits = 0;
    return 0;
}

/* Lays token t of a window (the slot-th of its group) into the batch, and asks for its logits when they count. */
static void add_token(struct run *run, const struct eval_window *w, int slot, int64_t t)
{
    struct batch *b = &run->batch;
    const struct eval_document *doc = &run->documents[w->document];
    int64_t blocks = eval_blocks_per_window(run->e), first_block = slot * blocks;
    int i = b->num_tokens++;
    b->token_ids[i] = doc->ids[w->begin + t];
    b->positions[i] = t;
    b->rope_lens[i] = w->end - w->begin;
    b->slot_mapping[i] = first_block * EVAL_BLOCK_SIZE + t;
    b->block_table[i] = run->block_tables + first_block;
    int64_t next = w->begin + t + 1;
    if (next < w->first_predicted)
        return;
    run->rows[b->num_logits] = (struct row){w->first_position + next - w->first_predicted, doc->ids[next]};
    b->logits_rows[b->num_logits++] = i;
}

/* Groups of windows, each group's tokens in one stream that is cut into passes. What a pass holds shows in no result: a
 * row depends on its own window only. The last token of a window predicts nothing in it, and is not computed. */
static int run_windows(struct run *run, struct octavo_error *err)
{
    const struct eval *e = run->e;
    int r = 0;
    if (e->progress)
        e->progress(e->progress_arg, 0, (uint64_t)run->res->num_positions);
    for (int64_t group = 0; group < run->res->num_windows; group += e->batch) {
        int n = (int)MIN((int64_t)e->batch, run->res->num_windows - group);
        for (int i = 0; i < n; i++) {
            const struct eval_window *w = &run->res->windows[group + i];
            for (int64_t t = 0; t < w->end - w->begin - 1; t++) {
                add_token(run, w, i, t);
                if (run->batch.num_tokens == e->step_tokens && (r = step(run, err)) < 0)
                    return r;
            }
        }
        if (run->batch.num_tokens && (r = step(run, err)) < 0)
            return r;
    }
    return 0;
}

static int run_init(struct run *run, struct octavo_error *err)
{
    const struct eval *e = run->e;
    size_t t = (size_t)e->step_tokens, blocks = (size_t)(eval_blocks_per_window(e) * e->batch);
    run->batch = (struct batch){.token_ids = mem_try_array(t, sizeof(int32_t)),
                                .positions = mem_try_array(t, sizeof(int64_t)),
                                .rope_lens = mem_try_array(t, sizeof(int64_t)),
                                .slot_mapping = mem_try_array(t, sizeof(int64_t)),
                                .block_table = mem_try_array(t, sizeof(int32_t *)),
                                .logits_rows = mem_try_array(t, sizeof(int32_t))};
    run->rows = mem_try_array(t, sizeof(*run->rows));
    run->block_tables = mem_try_array(blocks, sizeof(*run->block_tables));
    const struct batch *b = &run->batch;
    if (!b->token_ids || !b->positions || !b->rope_lens || !b->slot_mapping || !b->block_table || !b->logits_rows ||
        !run->rows || !run->block_tables)
        return error_set(err, OCTAVO_ENOMEM, "no memory for a pass of %zu tokens; lower --batch", t);
    for (size_t i = 0; i < blocks; i++) /* add_token gives a window the part that begins at its own first block */
        run->block_tables[i] = (int32_t)i;
    return 0;
}

static void run_release(struct run *run)
{
    free(run->batch.token_ids);
    free(run->batch.positions);
    free(run->batch.rope_lens);
    free(run->batch.slot_mapping);
    free(run->batch.block_table);
    free(run->batch.logits_rows);
    free(run->rows);
    free(run->block_tables);
}

/* ---- summary ---- */

static double mean(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static double exp_or_inf(double x)
{
    return x > 700 ? INFINITY : det_exp(x < -700 ? -700 : x);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, int64_t n, double fraction)
{
    double at = fraction * (double)(n - 1);
    int64_t i = (int64_t)at;
    if (i >= n - 1)
        return sorted[n - 1];
    return sorted[i] + (sorted[i + 1] - sorted[i]) * (at - (double)i);
}

static int summarise(struct eval_result *res, struct octavo_error *err)
{
    int64_t n = res->num_positions, same = 0;
    res->mean_nll = mean(res->nll, n);
    res->perplexity = exp_or_inf(res->mean_nll);
    if (!res->kld)
        return 0;
    res->against_mean_nll = mean(res->against_nll, n);
    res->against_perplexity = exp_or_inf(res->against_mean_nll);
    res->perplexity_ratio = exp_or_inf(res->mean_nll - res->against_mean_nll);
    double *sorted = mem_try_array((size_t)n, sizeof(*sorted));
    if (!sorted)
        return error_set(err, OCTAVO_ENOMEM, "no memory to sort %lld positions; lower --max-tokens", (long long)n);
    memcpy(sorted, res->kld, (size_t)n * sizeof(*sorted));
    qsort(sorted, (size_t)n, sizeof(*sorted), compare_doubles);
    res->kld_mean = mean(res->kld, n);
    res->kld_median = percentile(sorted, n, 0.5);
    res->kld_p999 = percentile(sorted, n, 0.999);
    res->kld_max = sorted[n - 1];
    free(sorted);
    for (int64_t i = 0; i < n; i++)
        same += res->same_top[i];
    res->top1_agreement = (double)same / (double)n;
    return 0;
}

int eval_run(struct eval *e, const struct eval_document *documents, size_t num_documents, struct eval_result *res,
             struct octavo_error *err)
{
    struct run run = {.e = e, .documents = documents, .res = res};
    int r;
    if ((r = result_init(e, documents, num_documents, res, err)) < 0 ||
        (r = ids_check(e, documents, num_documents, err)) < 0 || (r = run_init(&run, err)) < 0 ||
        (r = run_windows(&run, err)) < 0 || (r = summarise(res, err)) < 0)
        eval_result_release(res);
    run_release(&run);
    return r;
}
