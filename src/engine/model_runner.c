/* The model runner: see model_runner.h. */
#include "engine/model_runner.h"

#include "base/mem.h"
#include "model/profile.h"

#include <stdlib.h>

#define LOGITS_ROWS                                                                                                    \
    32 /* rows of logits in memory at once: enough to keep every worker busy, few for a large vocabulary */

struct model_runner {
    const struct model *model;
    struct workspace *ws;
    struct kv_cache kv;
    struct batch batch;
    struct profile *profile; /* or NULL */
    struct sampler sampler;
    struct sampler_scratch *scratch; /* (workers) */
    float *hidden;                   /* (max_num_batched_tokens, hidden_size) of rows that want logits */
    size_t hidden_bytes;
    float *logits; /* (LOGITS_ROWS, vocab) */
    size_t logits_bytes;
    struct runner_row *rows; /* (max_num_batched_tokens) */
    const float *first;      /* logits of the rows being sampled now */
    struct runner_row *current;
    int num_current;
};

size_t model_runner_workspace_bytes(const struct model_config *c, int max_num_batched_tokens, int num_workers)
{
    size_t heads = (size_t)c->num_attention_heads + 2 * (size_t)c->num_key_value_heads;
    size_t per_token = 3 * (size_t)c->hidden_size + 2 * (size_t)c->intermediate_size +
                       (heads + (size_t)c->num_attention_heads + 2) * (size_t)c->head_dim +
                       3 * (MAX((size_t)c->intermediate_size, (size_t)c->hidden_size) / 4 + 4);
    return (per_token * (size_t)max_num_batched_tokens +
            (size_t)c->vocab_size * (LOGITS_ROWS + 4 * (size_t)num_workers)) *
           sizeof(float);
}

int model_runner_new(const struct model *model, const enum dtype *kv_dtypes, int block_size, int64_t num_blocks,
                     int max_num_batched_tokens, const struct sampler *sampler, struct profile *profile,
                     struct model_runner **ret_runner, struct octavo_error *err)
{
    const struct model_config *c = &model->config;
    struct model_runner *m = mem_calloc(1, sizeof(*m));
    m->model = model;
    m->sampler = *sampler;
    int r = kv_cache_init(&m->kv, kv_dtypes, c->num_hidden_layers, c->num_key_value_heads, c->head_dim, block_size,
                          num_blocks, err);
    if (r < 0)
        goto fail;
    r = error_set(err, OCTAVO_ENOMEM, "no memory for a step of %d tokens; lower --max-num-batched-tokens",
                  max_num_batched_tokens);
    size_t t = (size_t)max_num_batched_tokens;
    m->ws = workspace_new(model, max_num_batched_tokens);
    if (m->ws)
        workspace_set_profile(m->ws, m->profile = profile);
    m->hidden_bytes = t * (size_t)c->hidden_size * sizeof(float);
    m->hidden = mem_map(m->hidden_bytes);
    m->logits_bytes = (size_t)LOGITS_ROWS * (size_t)c->vocab_size * sizeof(float);
    m->logits = mem_map(m->logits_bytes);
    m->rows = mem_try_calloc(t, sizeof(*m->rows));
    m->batch.token_ids = mem_try_array(t, sizeof(int32_t));
    m->batch.positions = mem_try_array(t, sizeof(int64_t));
    m->batch.rope_lens = mem_try_array(t, sizeof(int64_t));
    m->batch.slot_mapping = mem_try_array(t, sizeof(int64_t));
    m->batch.block_table = mem_try_array(t, sizeof(int32_t *));
    m->batch.logits_rows = mem_try_array(t, sizeof(int32_t));
    if (!m->ws || !m->hidden || !m->logits || !m->rows || !m->batch.token_ids || !m->batch.positions ||
        !m->batch.rope_lens || !m->batch.slot_mapping || !m->batch.block_table || !m->batch.logits_rows)
        goto fail;
    int workers = pool_num_workers(model->pool);
    m->scratch = mem_calloc((size_t)workers, sizeof(*m->scratch));
    for (int i = 0; i < workers; i++)
        if (sampler_scratch_init(&m->scratch[i], c->vocab_size) < 0)
            goto fail;
    *ret_runner = m;
    return 0;
fail:
    model_runner_free(m);
    return r;
}

void model_runner_free(struct model_runner *m)
{
    if (!m)
        return;
    for (int i = 0; m->scratch && i < pool_num_workers(m->model->pool); i++)
        sampler_scratch_release(&m->scratch[i]);
    free(m->scratch);
    workspace_free(m->ws);
    kv_cache_release(&m->kv);
    mem_unmap(m->hidden, m->hidden_bytes);
    mem_unmap(m->logits, m->logits_bytes);
    free(m->rows);
    free(m->batch.token_ids);
    free(m->batch.positions);
    free(m->batch.rope_lens);
    free(m->batch.slot_mapping);
    free(m->batch.block_table);
    free(m->batch.logits_rows);
    free(m);
}

/* Lays one request's tokens down, and the rows of logits that it wants: each prompt position when prompt logprobs are
 * asked for, and the last token when it completes what is known so far, to sample the next. */
static void add_entry(struct model_runner *m, const struct sched_entry *e)
{
    struct batch *b = &m->batch;
    struct request *r = e->request;
    bool prompt_logprobs = r->sampling.prompt_logprobs != OCTAVO_LOGPROBS_NONE;
    for (int i = 0; i < e->num_tokens; i++) {
        int64_t pos = e->first_token + i;
        int t = b->num_tokens++;
        b->token_ids[t] = r->token_ids[pos];
        b->positions[t] = pos;
        b->rope_lens[t] = MAX(r->num_prompt_tokens, pos + 1);
        b->slot_mapping[t] =
            (int64_t)r->block_table[pos / m->kv.block_size] * m->kv.block_size + pos % m->kv.block_size;
        b->block_table[t] = r->block_table;
        bool samples = pos + 1 == r->num_tokens && r->num_tokens < r->max_len;
        bool reports = prompt_logprobs && pos + 1 < r->num_prompt_tokens && pos >= r->num_prompt_logprobs_done;
        if (!samples && !reports)
            continue;
        m->rows[b->num_logits] = (struct runner_row){.request = r, .prompt_position = reports ? pos + 1 : -1};
        b->logits_rows[b->num_logits++] = t;
    }
}

static void sample_row(struct model_runner *m, struct sampler_scratch *scratch, const float *logits,
                       struct runner_row *row)
{
    const struct request *r = row->request;
    int32_t num;
    if (row->prompt_position >= 0) {
        num = r->sampling.prompt_logprobs;
        row->token = r->token_ids[row->prompt_position];
    } else {
        num = r->sampling.logprobs;
        row->token = sampler_sample(&m->sampler, scratch, logits, r);
    }
    if (num == OCTAVO_LOGPROBS_NONE || row->token < 0)
        return;
    size_t most = num < 0 || num > m->sampler.vocab_size ? (size_t)m->sampler.vocab_size : (size_t)num;
    if (most)
        row->top = mem_alloc(most * sizeof(*row->top));
    row->num_top = sampler_logprobs(&m->sampler, scratch, logits, row->token, num, &row->logprob, row->top);
    if (row->num_top < 0) {
        row->num_top = 0;
        row->token = SAMPLER_NOT_FINITE;
    }
}

static void sample_worker(void *arg, int worker, int num_workers)
{
    struct model_runner *m = arg;
    for (int i = worker; i < m->num_current; i += num_workers)
        sample_row(m, &m->scratch[worker], m->first + (size_t)i * (size_t)m->sampler.vocab_size, &m->current[i]);
}

void model_runner_execute(struct model_runner *m, const struct sched_output *out, runner_row_fn *fn, void *arg)
{
    m->batch.num_tokens = m->batch.num_logits = 0;
    for (int i = 0; i < out->num_entries; i++)
        add_entry(m, &out->entries[i]);
    model_forward(m->model, m->ws, &m->kv, &m->batch, m->hidden);
    for (int row = 0; row < m->batch.num_logits; row += m->num_current) {
        m->num_current = MIN(m->batch.num_logits - row, LOGITS_ROWS);
        model_logits(m->model, m->ws, m->hidden + (size_t)row * (size_t)m->model->config.hidden_size, m->num_current,
                     m->logits, (size_t)m->sampler.vocab_size);
        m->first = m->logits;
        m->current = m->rows + row;
        if (m->profile)
            profile_begin(m->profile);
        pool_run(m->model->pool, sample_worker, m);
        if (m->profile)
            profile_mark(m->profile, PROFILE_SAMPLE);
        for (int i = 0; i < m->num_current; i++)
            fn(arg, &m->current[i]);
    }
}
