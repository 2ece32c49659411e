/* Opening an evaluation: options checked, one or two models loaded, memory for their passes. Runs on the caller's
 * thread. */
#include "quantize/eval_impl.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/topology.h"
#include "model/choose.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const side_words[] = {"the model", "the reference"};

/* Fills s->kv_dtypes and the name. */
static int kv_dtypes_choose(struct eval_side *s, const struct checkpoint *ckpt, const char *name, bool against,
                            struct octavo_error *err)
{
    const char *flag = against ? "against-kv-cache-dtype" : "kv-cache-dtype";
    int r = model_choose_kv_dtypes(ckpt, flag, name ? name : "auto", false, &s->kv_dtypes, err);
    if (r == 0)
        s->info.kv_cache_dtype = model_kv_dtypes_name(s->kv_dtypes, checkpoint_config(ckpt)->num_hidden_layers);
    return r;
}

static int quantization_choose(const struct checkpoint *ckpt, const char *name, bool against, bool *ret_w8a8,
                               struct octavo_error *err)
{
    return model_choose_quantization(ckpt, against ? "against-quantization" : "quantization", name, ret_w8a8, err);
}

/* One word for the linears of all layers. */
static void weights_name(struct eval_side *s, const struct checkpoint *ckpt, bool w8a8)
{
    static const char *const linears[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                          "mlp.down_proj"};
    s->info.weights = s->weights;
    for (int i = 0; i < checkpoint_config(ckpt)->num_hidden_layers; i++)
        for (size_t j = 0; j < ARRAY_LEN(linears); j++) {
            char module[96];
            struct linear_spec spec;
            snprintf(module, sizeof(module), "model.layers.%d.%s", i, linears[j]);
            checkpoint_linear(ckpt, module, &spec);
            const char *kind = spec.quantised ? spec.kind : w8a8 ? "W8A8_DYNAMIC" : dtype_name(spec.weight->dtype);
            if (i == 0 && j == 0)
                snprintf(s->weights, sizeof(s->weights), "%s", kind);
            else if (strcmp(s->weights, kind))
                s->info.weights = "mixed";
        }
}

static int model_open(struct eval *e, struct eval_side *s, const struct eval_side_options *o, bool against,
                      struct model_options *mo, struct octavo_error *err)
{
    int r;
    if ((r = checkpoint_open(o->model, LOAD_AUTO, 0, &s->ckpt, err)) < 0 ||
        (r = quantization_choose(s->ckpt, o->quantization, against, &mo->quantize_w8a8, err)) < 0 ||
        (r = kv_dtypes_choose(s, s->ckpt, o->kv_cache_dtype, against, err)) < 0)
        return r;
    uint64_t need = model_weights_bytes(s->ckpt, mo), available = mem_available();
    if (need > available)
        return error_set(err, OCTAVO_ENOMEM, "%s: the weights need %.2f GiB of memory, but only %.2f GiB are available",
                         o->model, (double)need / (1 << 30), (double)available / (1 << 30));
    if ((r = model_load(s->ckpt, e->pool, mo, &s->model, err)) < 0)
        return r;
    weights_name(s, s->ckpt, mo->quantize_w8a8);
    s->use_model = s->model;
    return 0;
}

/* The reference is the same folder with the same weights: only its cache may differ. */
static bool same_model(const struct eval_side_options *a, const struct eval_side_options *b)
{
    bool a_w8a8 = a->quantization && !strcmp(a->quantization, "w8a8");
    bool b_w8a8 = b->quantization && !strcmp(b->quantization, "w8a8");
    char pa[PATH_MAX], pb[PATH_MAX];
    return a_w8a8 == b_w8a8 && realpath(a->model, pa) && realpath(b->model, pb) && !strcmp(pa, pb);
}

static int side_open(struct eval *e, int i, const struct eval_options *o, const struct model_options *mo,
                     struct octavo_error *err)
{
    struct eval_side *s = &e->sides[i];
    const struct eval_side_options *so = i ? &o->against : &o->model;
    struct model_options options = *mo;
    int r;
    if (i == 1 && same_model(&o->model, so)) {
        const struct eval_side *first = &e->sides[0];
        bool known_quantization;
        if ((r = quantization_choose(first->ckpt, so->quantization, true, &known_quantization, err)) < 0 ||
            (r = kv_dtypes_choose(s, first->ckpt, so->kv_cache_dtype, true, err)) < 0)
            return r;
        s->use_model = first->use_model;
        s->info.weights = first->info.weights;
    } else if ((r = model_open(e, s, so, i == 1, &options, err)) < 0) {
        return r;
    }
    const struct model_config *c = &s->use_model->config;
    if (e->window > c->max_model_len)
        return error_set_param(err, OCTAVO_EINVAL, "window",
                               "--window %d is more than the %lld tokens that %s is made for", e->window,
                               (long long)c->max_model_len, so->model);
    s->info.architecture = c->architecture;
    s->info.vocab_size = c->vocab_size;
    s->info.weights_bytes = (int64_t)s->use_model->weights_bytes;
    s->info.kv_bytes_per_token = (int64_t)kv_cache_block_bytes(s->kv_dtypes, c->num_hidden_layers,
                                                               c->num_key_value_heads, c->head_dim, EVAL_BLOCK_SIZE) /
                                 EVAL_BLOCK_SIZE;
    return 0;
}

/* The cache and the buffers of a pass. *reserved: bytes of caches mapped before, which nothing has touched yet. */
static int side_reserve(struct eval *e, int i, uint64_t *reserved, struct octavo_error *err)
{
    struct eval_side *s = &e->sides[i];
    const struct model_config *c = &s->use_model->config;
    int64_t blocks = eval_blocks_per_window(e) * e->batch;
    uint64_t need = (uint64_t)blocks * EVAL_BLOCK_SIZE * (uint64_t)s->info.kv_bytes_per_token;
    uint64_t available = mem_available(), left = available > *reserved ? available - *reserved : 0;
    *reserved += need;
    if (need > left)
        return error_set(err, OCTAVO_ENOMEM,
                         "the KV cache of %s for %d windows of %d tokens needs %.2f GiB of memory, but only %.2f GiB "
                         "are available; lower --batch or --window",
                         side_words[i], e->batch, e->window, (double)need / (1 << 30), (double)left / (1 << 30));
    int r = kv_cache_init(&s->kv, s->kv_dtypes, c->num_hidden_layers, c->num_key_value_heads, c->head_dim,
                          EVAL_BLOCK_SIZE, blocks, err);
    if (r < 0)
        return r;
    if (s->model)
        s->ws = workspace_new(s->model, e->step_tokens);
    s->use_ws = s->model ? s->ws : e->sides[0].ws;
    s->hidden_bytes = (size_t)e->step_tokens * (size_t)c->hidden_size * sizeof(float);
    s->hidden = mem_map(s->hidden_bytes);
    s->logits_bytes = (size_t)EVAL_LOGITS_ROWS * (size_t)c->vocab_size * sizeof(float);
    s->logits = mem_map(s->logits_bytes);
    if (!s->use_ws || !s->hidden || !s->logits)
        return error_set(err, OCTAVO_ENOMEM, "no memory for a pass of %d tokens; lower --batch", e->step_tokens);
    return 0;
}

static int range_check(const char *flag, int64_t value, int64_t lo, int64_t hi, struct octavo_error *err)
{
    if (value >= lo && value <= hi)
        return 0;
    return error_set_param(err, OCTAVO_EINVAL, flag, "--%s must be between %lld and %lld, not %lld", flag,
                           (long long)lo, (long long)hi, (long long)value);
}

static int options_check(struct eval *e, const struct eval_options *o, int *ret_threads, enum cpu_isa *ret_isa,
                         struct octavo_error *err)
{
    e->window = o->window;
    e->stride = o->stride ? o->stride : o->window;
    *ret_threads = o->num_threads ? o->num_threads : topology_num_cores();
    int r;
    if ((r = range_check("window", e->window, 2, EVAL_MAX_WINDOW, err)) < 0 ||
        (r = range_check("stride", e->stride, 1, e->window, err)) < 0 ||
        (r = range_check("batch", o->batch, 0, EVAL_MAX_BATCH, err)) < 0 ||
        (r = range_check("threads", *ret_threads, 1, 1024, err)) < 0)
        return r;
    e->batch = o->batch ? o->batch : MAX(1, EVAL_STEP_TOKENS / e->window);
    e->step_tokens = (int)MIN((int64_t)EVAL_STEP_TOKENS, (int64_t)e->batch * e->window);
    return model_choose_isa(o->isa ? o->isa : "auto", ret_isa, err);
}

int eval_open(const struct eval_options *o, struct eval **ret_eval, struct octavo_error *err)
{
    struct eval *e = mem_calloc(1, sizeof(*e));
    struct model_options mo = {.progress = o->load_progress, .progress_arg = o->progress_arg};
    int threads, r = options_check(e, o, &threads, &mo.isa, err);
    if (r < 0)
        goto out;
    e->progress = o->progress;
    e->progress_arg = o->progress_arg;
    e->num_sides = o->against.model ? 2 : 1;
    e->pool = pool_new(threads);
    if (!e->pool) {
        r = error_set_param(err, OCTAVO_ENOMEM, "threads", "cannot start %d compute threads; lower --threads", threads);
        goto out;
    }
    for (int i = 0; i < e->num_sides; i++)
        if ((r = side_open(e, i, o, &mo, err)) < 0)
            goto out;
    int32_t vocab = e->sides[0].info.vocab_size, against_vocab = e->sides[1].info.vocab_size;
    if (e->num_sides == 2 && vocab != against_vocab) {
        r = error_set(err, OCTAVO_EINVAL,
                      "%s has a vocabulary of %d tokens and %s one of %d: their distributions cannot be compared",
                      o->model.model, (int)vocab, o->against.model, (int)against_vocab);
        goto out;
    }
    uint64_t reserved = 0;
    for (int i = 0; i < e->num_sides; i++)
        if ((r = side_reserve(e, i, &reserved, err)) < 0)
            goto out;
    *ret_eval = e;
    e = NULL;
out:
    eval_close(e);
    return r;
}

void eval_close(struct eval *e)
{
    if (!e)
        return;
    for (int i = 1; i >= 0; i--) {
        struct eval_side *s = &e->sides[i];
        if (s->kv.data)
            kv_cache_release(&s->kv);
        if (s->hidden)
            mem_unmap(s->hidden, s->hidden_bytes);
        if (s->logits)
            mem_unmap(s->logits, s->logits_bytes);
        workspace_free(s->ws);
        model_free(s->model);
        checkpoint_free(s->ckpt);
        free(s->kv_dtypes);
    }
    pool_free(e->pool);
    free(e);
}

const struct eval_side_info *eval_side_info(const struct eval *e, int side)
{
    return &e->sides[side].info;
}
