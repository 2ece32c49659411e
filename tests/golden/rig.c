/* Shared by the golden tests: see rig.h. */
#include "rig.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void rig_open(struct rig *rig, const char *dir, int threads, enum cpu_isa isa, enum dtype kv_dtype, bool c8)
{
    struct octavo_error err = {0};
    if (checkpoint_open(dir, LOAD_AUTO, 0, &rig->ckpt, &err) < 0)
        fail_msg("%s", err.msg);
    rig->pool = pool_new(threads);
    if (model_load(rig->ckpt, rig->pool, &(struct model_options){.isa = isa}, &rig->model, &err) < 0)
        fail_msg("%s", err.msg);
    rig->ws = workspace_new(rig->model, MAX_TOKENS);
    const struct model_config *c = &rig->model->config;
    enum dtype dtypes[CONFIG_MAX_LAYERS];
    for (int i = 0; i < c->num_hidden_layers; i++)
        dtypes[i] = c8 && checkpoint_kv_scales(rig->ckpt, i) ? DTYPE_I8 : kv_dtype;
    assert_int_equal(kv_cache_init(&rig->kv, dtypes, c->num_hidden_layers, c->num_key_value_heads, c->head_dim,
                                   BLOCK_SIZE, NUM_BLOCKS, &err),
                     0);
    memset(rig->kv.data, 0xff, rig->kv.data_bytes); /* NaN: a read before its write shows */
}

void rig_close(struct rig *rig)
{
    kv_cache_release(&rig->kv);
    workspace_free(rig->ws);
    model_free(rig->model);
    pool_free(rig->pool);
    checkpoint_free(rig->ckpt);
}

void seq_init(const struct rig *rig, struct seq *s, const int32_t *ids, int len, int first_block, int step)
{
    *s = (struct seq){.ids = ids, .len = len};
    for (int i = 0; i < NUM_BLOCKS; i++)
        s->blocks[i] = (first_block + i * step) & (NUM_BLOCKS - 1);
    s->logits = mem_calloc((size_t)len * (size_t)rig->model->config.vocab_size, sizeof(float));
}

void rig_step(struct rig *rig, struct seq *seqs, const int *chunk, int num_seqs)
{
    static int32_t ids[MAX_TOKENS], rows[MAX_TOKENS];
    static int64_t positions[MAX_TOKENS], rope_lens[MAX_TOKENS], slots[MAX_TOKENS];
    static const int32_t *tables[MAX_TOKENS];
    struct batch b = {.token_ids = ids,
                      .positions = positions,
                      .rope_lens = rope_lens,
                      .slot_mapping = slots,
                      .block_table = tables,
                      .logits_rows = rows};
    size_t vocab = (size_t)rig->model->config.vocab_size, hidden = (size_t)rig->model->config.hidden_size;
    for (int i = 0; i < num_seqs; i++)
        for (int n = 0; n < chunk[i] && seqs[i].done + n < seqs[i].len; n++) {
            int pos = seqs[i].done + n, t = b.num_tokens++;
            ids[t] = seqs[i].ids[pos];
            positions[t] = pos;
            rope_lens[t] = seqs[i].len;
            slots[t] = seqs[i].blocks[pos / BLOCK_SIZE] * BLOCK_SIZE + pos % BLOCK_SIZE;
            tables[t] = seqs[i].blocks;
            rows[b.num_logits++] = t;
        }
    float *h = mem_alloc((size_t)b.num_tokens * hidden * sizeof(float));
    float *logits = mem_alloc((size_t)b.num_tokens * vocab * sizeof(float));
    model_forward(rig->model, rig->ws, &rig->kv, &b, h);
    model_logits(rig->model, rig->ws, h, b.num_tokens, logits, vocab);
    const float *from = logits;
    for (int i = 0; i < num_seqs; i++) {
        int n = MIN(chunk[i], seqs[i].len - seqs[i].done);
        memcpy(seqs[i].logits + (size_t)seqs[i].done * vocab, from, (size_t)n * vocab * sizeof(float));
        from += (size_t)n * vocab;
        seqs[i].done += n;
    }
    free(h);
    free(logits);
}

float *rig_run(struct rig *rig, const int32_t *ids, int len, int chunk, int first_block, int block_step)
{
    struct seq s;
    seq_init(rig, &s, ids, len, first_block, block_step);
    while (s.done < s.len)
        rig_step(rig, &s, &chunk, 1);
    return s.logits;
}

const struct tensor *expected_find(const struct safetensors_file *f, const char *what, int i)
{
    char name[32];
    snprintf(name, sizeof(name), "%s.%d", what, i);
    for (size_t t = 0; t < f->num_tensors; t++)
        if (!strcmp(f->tensors[t].name, name))
            return &f->tensors[t];
    return NULL;
}

int32_t *expected_ints(const struct tensor *t)
{
    int32_t *ids = mem_alloc(t->bytes);
    memcpy(ids, t->data, t->bytes);
    return ids;
}
