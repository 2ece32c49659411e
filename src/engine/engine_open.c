/* Opening and closing an engine: options checked, memory planned, checkpoint loaded, thread started. Runs on the
 * caller's thread. */
#include "engine/engine.h"

#include "base/cpu.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/topology.h"
#include "model/choose.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *octavo_version(void)
{
    return OCTAVO_VERSION;
}

void octavo_engine_options_init(struct octavo_engine_options *opts)
{
    *opts = (struct octavo_engine_options){
        .load_format = "auto", .kv_cache_dtype = "auto", .isa = "auto", .max_logprobs = 20};
}

void octavo_sampling_params_init(struct octavo_sampling_params *params)
{
    sampling_params_init(params);
}

/* Takes an option's value, or its default when it is 0; checks the range. */
static int option(const char *param, int64_t value, int64_t def, int64_t lo, int64_t hi, struct octavo_error *err,
                  int64_t *ret)
{
    *ret = value ? value : def;
    if (*ret < lo || *ret > hi)
        return error_set_param(err, OCTAVO_EINVAL, param, "--%s must be between %lld and %lld, not %lld", param,
                               (long long)lo, (long long)hi, (long long)*ret);
    return 0;
}

static int limits_init(struct octavo_engine *e, const struct octavo_engine_options *o, struct octavo_error *err)
{
    struct octavo_engine_info *info = &e->info;
    const struct model_config *c = checkpoint_config(e->ckpt);
    int64_t seqs, tokens, block, threads, len;
    int r;
    if ((r = option("max-num-seqs", o->max_num_seqs, 128, 1, 65536, err, &seqs)) < 0 ||
        (r = option("max-num-batched-tokens", o->max_num_batched_tokens, 2048, 1, 1 << 20, err, &tokens)) < 0 ||
        (r = option("block-size", o->block_size, 32, ATTN_TILE, 4096, err, &block)) < 0 ||
        (r = option("threads", o->num_threads, topology_num_cores(), 1, 1024, err, &threads)) < 0 ||
        (r = option("max-model-len", o->max_model_len, c->max_model_len, 1, INT32_MAX, err, &len)) < 0)
        return r;
    if (block % ATTN_TILE)
        return error_set_param(err, OCTAVO_EINVAL, "block-size", "--block-size must be a multiple of %d, not %lld",
                               ATTN_TILE, (long long)block);
    if (len > c->max_model_len)
        return error_set_param(err, OCTAVO_EINVAL, "max-model-len",
                               "--max-model-len %lld is more than the %lld tokens this checkpoint is made for "
                               "(max_position_embeddings and RoPE scaling in config.json)",
                               (long long)len, (long long)c->max_model_len);
    if (o->max_logprobs < -1)
        return error_set_param(err, OCTAVO_EINVAL, "max-logprobs", "--max-logprobs must be -1 or more, not %d",
                               o->max_logprobs);
    info->max_num_seqs = (int)seqs;
    info->max_num_batched_tokens = (int)tokens;
    info->block_size = (int)block;
    info->num_threads = (int)threads;
    info->max_model_len = len;
    info->max_logprobs = o->max_logprobs;
    return 0;
}

/* Decides the number of KV blocks. Asked for: exactly that, and it must hold one full request. Otherwise enough for
 * every sequence at full length but at most 4 GiB, at least one full request, and no more than the memory left;
 * where not even that is there and the user named no length, the length gives way. Before weights_bytes of weights are
 * loaded: who asked for too much should not have to wait for them. */
static int kv_size(struct octavo_engine *e, const struct octavo_engine_options *o, const enum dtype *dtypes,
                   uint64_t weights_bytes, struct octavo_error *err)
{
    struct octavo_engine_info *info = &e->info;
    const struct model_config *c = checkpoint_config(e->ckpt);
    const int64_t bs = info->block_size;
    int64_t block_bytes = (int64_t)kv_cache_block_bytes(dtypes, c->num_hidden_layers, c->num_key_value_heads,
                                                        c->head_dim, info->block_size);
    int64_t one = (info->max_model_len + bs - 1) / bs, limit = INT32_MAX;
    int64_t available = (int64_t)MIN(mem_available(), (uint64_t)INT64_MAX), blocks;
    int64_t left = available - (int64_t)weights_bytes -
                   (int64_t)model_runner_workspace_bytes(c, info->max_num_batched_tokens, info->num_threads);
    int64_t fit = left > 0 ? left / 10 * 9 / block_bytes : 0;
    if (o->kv_cache_memory_bytes < 0)
        return error_set_param(err, OCTAVO_EINVAL, "kv-cache-memory-bytes",
                               "--kv-cache-memory-bytes must not be negative");
    if (o->kv_cache_memory_bytes) {
        blocks = MIN(o->kv_cache_memory_bytes / block_bytes, limit);
        if (blocks > fit)
            return error_set_param(err, OCTAVO_ENOMEM, "kv-cache-memory-bytes",
                                   "--kv-cache-memory-bytes asks for %.2f GiB, but only %.2f GiB of memory are left",
                                   (double)(blocks * block_bytes) / (1 << 30), (double)(fit * block_bytes) / (1 << 30));
    } else {
        int64_t wanted = one > limit / info->max_num_seqs ? limit : one * info->max_num_seqs;
        blocks = MIN(wanted, MAX((INT64_C(4) << 30) / block_bytes, one));
        blocks = MIN(blocks, fit);
    }
    if (blocks < one && !o->max_model_len && blocks > 0) {
        info->max_model_len = blocks * bs;
        log_warning("the KV cache holds %lld tokens, fewer than the model's context: --max-model-len is now that",
                    (long long)info->max_model_len);
    } else if (blocks < one) {
        return error_set_param(err, OCTAVO_ENOMEM, "max-model-len",
                               "one request of %lld tokens needs %.2f GiB of KV cache, but there are %.2f GiB; lower "
                               "--max-model-len or raise --kv-cache-memory-bytes",
                               (long long)info->max_model_len, (double)(one * block_bytes) / (1 << 30),
                               (double)(blocks * block_bytes) / (1 << 30));
    }
    info->num_blocks = blocks;
    info->kv_cache_bytes = blocks * block_bytes;
    info->kv_bytes_per_token = block_bytes / bs;
    info->kv_cache_dtype = model_kv_dtypes_name(dtypes, c->num_hidden_layers);
    return 0;
}

static void default_sampling_init(struct octavo_engine_info *info, const struct generation_config *g)
{
    struct octavo_sampling_params *p = &info->default_sampling;
    sampling_params_init(p);
    if (g->has_temperature)
        p->temperature = (float)g->temperature;
    if (g->has_top_p)
        p->top_p = (float)g->top_p;
    if (g->has_top_k)
        p->top_k = (int32_t)g->top_k;
    if (g->has_min_p)
        p->min_p = (float)g->min_p;
    if (g->has_repetition_penalty)
        p->repetition_penalty = (float)g->repetition_penalty;
    if (g->has_max_new_tokens)
        p->max_tokens = g->max_new_tokens;
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int engine_load(struct octavo_engine *e, const struct octavo_engine_options *o, enum dtype **ret_dtypes,
                       struct octavo_error *err)
{
    struct octavo_engine_info *info = &e->info;
    struct model_options mo = {.progress = o->progress, .progress_arg = o->progress_arg};
    bool dummy = !strcmp(o->load_format, "dummy");
    if (!dummy && strcmp(o->load_format, "auto") && strcmp(o->load_format, "safetensors"))
        return error_set_param(err, OCTAVO_EINVAL, "load-format",
                               "--load-format must be auto, safetensors or dummy, not '%s'", o->load_format);
    int r;
    double before = seconds_now();
    if ((r = model_choose_isa(o->isa, &mo.isa, err)) < 0 ||
        (r = checkpoint_open(o->model, dummy ? LOAD_DUMMY : LOAD_AUTO, o->seed, &e->ckpt, err)) < 0 ||
        (r = model_choose_quantization(e->ckpt, "quantization", o->quantization, &mo.quantize_w8a8, err)) < 0)
        return r;
    mo.dummy_c8 = dummy;
    info->open_seconds = seconds_now() - before;
    const struct model_config *c = checkpoint_config(e->ckpt);
    if ((r = model_choose_kv_dtypes(e->ckpt, "kv-cache-dtype", o->kv_cache_dtype, dummy, ret_dtypes, err)) < 0 ||
        (r = limits_init(e, o, err)) < 0)
        return r;
    uint64_t need = model_weights_bytes(e->ckpt, &mo), available = mem_available();
    if (need > available)
        return error_set(err, OCTAVO_ENOMEM, "%s: the weights need %.2f GiB of memory, but only %.2f GiB are available",
                         o->model, (double)need / (1 << 30), (double)available / (1 << 30));
    if ((r = kv_size(e, o, *ret_dtypes, need, err)) < 0)
        return r;
    e->pool = pool_new(info->num_threads);
    if (!e->pool)
        return error_set_param(err, OCTAVO_ENOMEM, "threads", "cannot start %d compute threads; lower --threads",
                               info->num_threads);
    before = seconds_now();
    if ((r = model_load(e->ckpt, e->pool, &mo, &e->model, err)) < 0)
        return r;
    info->pack_seconds = seconds_now() - before;
    info->architecture = c->architecture;
    info->isa = cpu_isa_name(mo.isa);
    info->vocab_size = c->vocab_size;
    info->weights_bytes = (int64_t)e->model->weights_bytes;
    info->num_parameters = e->model->num_parameters;
    info->eos_token_ids = c->eos_token_ids;
    info->num_eos_token_ids = (size_t)c->num_eos_token_ids;
    default_sampling_init(info, checkpoint_generation_config(e->ckpt));
    struct sampler sampler = {.ops = e->model->ops,
                              .vocab_size = c->vocab_size,
                              .num_sampled = o->tokenizer_vocab_size > 0 ? MIN(o->tokenizer_vocab_size, c->vocab_size)
                                                                         : c->vocab_size,
                              .eos = c->eos_token_ids,
                              .num_eos = (size_t)c->num_eos_token_ids};
    e->profiling = o->profile;
    r = model_runner_new(e->model, *ret_dtypes, info->block_size, info->num_blocks, info->max_num_batched_tokens,
                         &sampler, o->profile ? &e->profile : NULL, &e->runner, err);
    if (r < 0)
        return r;
    scheduler_init(&e->sched, info->max_num_seqs, info->max_num_batched_tokens, info->num_blocks, info->block_size);
    e->sched_ready = true;
    return o->disable_prefix_caching ? 0 : scheduler_enable_prefix_caching(&e->sched, info->kv_cache_dtype, err);
}

int octavo_engine_open(const struct octavo_engine_options *opts, struct octavo_engine **ret_engine,
                       struct octavo_error *err)
{
    if (!opts->model)
        return error_set_param(err, OCTAVO_EINVAL, "model", "no model: name the folder of a checkpoint");
    double before = seconds_now();
    struct octavo_engine *e = mem_calloc(1, sizeof(*e));
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->cond, NULL);
    e->model_dir = mem_strdup(opts->model);
    e->info.model = e->model_dir;
    enum dtype *layer_dtypes = NULL;
    int r = engine_load(e, opts, &layer_dtypes, err);
    free(layer_dtypes);
    if (r == 0) {
        sigset_t all, old; /* signals belong to the main program */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        e->thread_ready = pthread_create(&e->thread, NULL, engine_main, e) == 0;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (!e->thread_ready)
            r = error_set(err, OCTAVO_ENOMEM, "cannot start the engine thread");
    }
    if (r < 0) {
        octavo_engine_close(e);
        return r;
    }
    e->info.load_seconds = seconds_now() - before;
    *ret_engine = e;
    return 0;
}

void octavo_engine_close(struct octavo_engine *e)
{
    if (!e)
        return;
    if (e->thread_ready) {
        pthread_mutex_lock(&e->lock);
        e->quit = true;
        pthread_cond_signal(&e->cond);
        pthread_mutex_unlock(&e->lock);
        pthread_join(e->thread, NULL);
    }
    if (e->sched_ready)
        scheduler_release(&e->sched);
    model_runner_free(e->runner);
    model_free(e->model);
    pool_free(e->pool);
    checkpoint_free(e->ckpt);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->cond);
    free(e->model_dir);
    free(e);
}

const struct octavo_engine_info *octavo_engine_info(const struct octavo_engine *e)
{
    return &e->info;
}
