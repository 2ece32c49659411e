/* Calibration: see calibrate.h. A worker looks after columns of its own and adds tokens up in their order, so that the
 * result does not depend on the number of workers. */
#include "quantize/calibrate.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COLUMN_GRAIN 16
#define SCALE_MIN 0x1p-60f /* of dead channels: 1/scale stays finite, and so does anything rounded with it */

/* ---- arithmetic of a cache channel ---- */

float kv_candidate_ratio(int i)
{
    return 1.0f - 0.03f * (float)(i - KV_RATIO_ONE);
}

void kv_scale_of(float lo, float hi, float ratio, bool asymmetric, float *ret_scale, float *ret_offset)
{
    float low = fminf(lo, 0) * ratio, high = fmaxf(hi, 0) * ratio;
    if (asymmetric) {
        *ret_scale = fmaxf((high - low) / 255.0f, SCALE_MIN);
        *ret_offset = fminf(fmaxf(rintf(-low / *ret_scale) - 128.0f, -128.0f), 127.0f);
    } else {
        *ret_scale = fmaxf(fmaxf(-low, high) / 127.0f, SCALE_MIN);
        *ret_offset = 0;
    }
}

/* Clamped before rounding, which is the same and lets rounding be one addition: it vectorises. */
float kv_round_trip(float x, float scale, float inv, float offset)
{
    float q = x * inv + offset;
    q = q < 127.0f ? q : 127.0f;
    q = q > -128.0f ? q : -128.0f;
    q = (q + 0x1.8p23f) - 0x1.8p23f;
    return (q - offset) * scale;
}

/* ---- what a pass is watched with ---- */

struct watch {
    struct calibration *c;
    const struct model_config *config;
    int64_t done; /* tokens before this window */
    int window;
    bool second; /* errors, now that ranges are known */
};

/* Sample i is the row of token i * total / CALIB_ROWS. */
static void input_see(struct input_stats *s, const struct watch *w, const float *x, size_t ldx, int num_tokens,
                      int worker, int num_workers)
{
    int begin, end;
    pool_slice(s->width, COLUMN_GRAIN, worker, num_workers, &begin, &end);
    for (int t = 0; t < num_tokens; t++) {
        const float *row = x + (size_t)t * ldx;
        for (int i = begin; i < end; i++) {
            s->absmax[i] = fmaxf(s->absmax[i], fabsf(row[i]));
            s->mean_sq[i] += row[i] * row[i] / (float)w->c->num_tokens;
        }
    }
    for (int i = 0; i < s->num_rows; i++) {
        int64_t t = (int64_t)i * w->c->num_tokens / s->num_rows - w->done;
        if (t >= 0 && t < num_tokens && begin < end)
            memcpy(s->rows + (size_t)i * (size_t)s->width + begin, x + (size_t)t * ldx + begin,
                   (size_t)(end - begin) * sizeof(float));
    }
}

static void range_see(struct kv_stats *s, int fold, const float *x, int begin, int end)
{
    float *lo = s->lo[fold], *hi = s->hi[fold];
    for (int i = begin; i < end; i++) {
        lo[i] = fminf(lo[i], x[i]);
        hi[i] = fmaxf(hi[i], x[i]);
        s->sum_sq[i] += (double)x[i] * (double)x[i];
    }
}

static void error_see(struct kv_stats *s, int fold, bool asymmetric, const float *x, size_t ldx, int num_tokens,
                      int begin, int end)
{
    for (int i = begin; i < end; i++)
        for (int c = 0; c < KV_CANDIDATES; c++) {
            float scale, offset;
            kv_scale_of(s->lo[fold][i], s->hi[fold][i], kv_candidate_ratio(c), asymmetric, &scale, &offset);
            float inv = 1.0f / scale;
            double sum = 0;
            for (int t = 0; t < num_tokens; t++) {
                float e =
                    x[(size_t)t * ldx + (size_t)i] - kv_round_trip(x[(size_t)t * ldx + (size_t)i], scale, inv, offset);
                sum += (double)e * (double)e;
            }
            s->error[(size_t)i * KV_CANDIDATES + (size_t)c] += sum;
        }
}

/* Channel i of a KV head is multiplied by channel i of every query head of its group. */
static void weight_see(struct kv_stats *k, const struct model_config *c, const float *q, int begin, int end)
{
    int d = c->head_dim, group = c->num_attention_heads / c->num_key_value_heads;
    for (int i = begin; i < end; i++)
        for (int g = 0; g < group; g++) {
            double v = (double)q[(i / d * group + g) * d + i % d];
            k->weight[i] += v * v;
        }
}

static void kv_see(const struct watch *w, struct layer_stats *l, const float *x, size_t ldx, int num_tokens, int worker,
                   int num_workers)
{
    const struct model_config *c = w->config;
    int begin, end, q_width = c->num_attention_heads * c->head_dim;
    pool_slice(l->k.n, COLUMN_GRAIN, worker, num_workers, &begin, &end);
    const float *k = x + q_width, *v = k + l->k.n;
    int fold = w->window % KV_FOLDS;
    if (w->second) {
        fold = w->c->text->num_windows > 1 ? 1 - fold : fold; /* a lone window has no other to be judged by */
        error_see(&l->k, fold, w->c->opts.kv_asymmetric, k, ldx, num_tokens, begin, end);
        error_see(&l->v, fold, w->c->opts.kv_asymmetric, v, ldx, num_tokens, begin, end);
        return;
    }
    for (int t = 0; t < num_tokens; t++) {
        range_see(&l->k, fold, k + (size_t)t * ldx, begin, end);
        range_see(&l->v, fold, v + (size_t)t * ldx, begin, end);
        weight_see(&l->k, c, x + (size_t)t * ldx, begin, end);
    }
}

static void see(void *arg, int layer, enum tap_point point, const float *x, size_t ldx, int num_tokens, int worker,
                int num_workers)
{
    static const enum input_set sets[] = {[TAP_QKV_INPUT] = INPUT_QKV,
                                          [TAP_O_INPUT] = INPUT_O,
                                          [TAP_GATE_UP_INPUT] = INPUT_GATE_UP,
                                          [TAP_DOWN_INPUT] = INPUT_DOWN};
    const struct watch *w = arg;
    struct layer_stats *l = &w->c->layer;
    (void)layer; /* there is one */
    if (point != TAP_QKV && !w->second)
        input_see(&l->input[sets[point]], w, x, ldx, num_tokens, worker, num_workers);
    else if (point == TAP_QKV && w->c->opts.kv)
        kv_see(w, l, x, ldx, num_tokens, worker, num_workers);
}

/* ---- passes ---- */

static int pass_run(struct watch *w, const struct model *m, struct workspace *ws, struct octavo_error *err)
{
    struct calibration *c = w->c;
    const struct tap tap = {see, w};
    size_t hidden = (size_t)m->config.hidden_size, window = (size_t)c->text->window;
    uint64_t total = (uint64_t)c->num_tokens;
    bool kept = w->second || !c->opts.kv; /* a layer's streams take the place of the ones before in its last pass */
    struct batch batch = c->batch;
    batch.tap = &tap;
    w->done = 0;
    for (int i = 0; i < c->text->num_windows; i++) {
        if (c->opts.stop && atomic_load(c->opts.stop))
            return error_set(err, OCTAVO_EBUSY, "interrupted");
        float *streams = c->streams + (size_t)i * window * hidden, *out = kept ? streams : c->scratch;
        w->window = i;
        batch.token_ids = c->text->ids + (size_t)i * window;
        batch.inputs_embeds = streams;
        model_forward(m, ws, &c->kv, &batch, out);
        if (m->norm.weight && !w->second)
            input_see(&c->head, w, out, hidden, c->text->window, 0, 1);
        w->done += c->text->window;
        if (c->opts.progress)
            c->opts.progress(c->opts.progress_arg, (w->second ? total : 0) + (uint64_t)w->done,
                             c->opts.kv ? 2 * total : total);
    }
    return 0;
}

/* ---- choosing ---- */

/* The ratio with the least squared error in a channel, and what the choice costs over all channels. */
static int kv_choose(struct kv_stats *s, bool asymmetric, const char *what, int layer, struct octavo_error *err)
{
    double error = 0, norm = 0;
    for (int i = 0; i < s->n; i++) {
        const double *e = s->error + (size_t)i * KV_CANDIDATES;
        float lo = fminf(s->lo[0][i], s->lo[1][i]), hi = fmaxf(s->hi[0][i], s->hi[1][i]);
        int best = KV_RATIO_ONE;
        for (int c = 0; c < KV_CANDIDATES; c++)
            if (e[c] < e[best])
                best = c;
        if (!isfinite(lo) || !isfinite(hi) || !isfinite(s->sum_sq[i]))
            return error_set(err, OCTAVO_EINVAL,
                             "layer %d: %s of channel %d is not a number on the calibration text; is the checkpoint "
                             "damaged?",
                             layer, what, i);
        kv_scale_of(lo, hi, kv_candidate_ratio(best), asymmetric, &s->scale[i], &s->offset[i]);
        error += s->weight[i] * e[best];
        norm += s->weight[i] * s->sum_sq[i];
    }
    /* A channel that never spoke may yet: it gets the widest range of its layer, which costs nothing if it does not. */
    float widest = 0;
    for (int i = 0; i < s->n; i++)
        widest = fmaxf(widest, s->scale[i]);
    for (int i = 0; i < s->n; i++)
        if (s->sum_sq[i] == 0)
            s->scale[i] = widest > SCALE_MIN ? widest : 1.0f / 127.0f;
    s->rel_error = norm > 0 ? sqrt(error / norm) : 0;
    return 0;
}

static void input_init(struct input_stats *s, int width, int64_t total)
{
    size_t n = (size_t)width;
    s->width = width;
    s->num_rows = (int)MIN(total, CALIB_ROWS);
    s->absmax = mem_calloc(n, sizeof(float));
    s->mean_sq = mem_calloc(n, sizeof(float));
    s->rows = mem_calloc((size_t)s->num_rows, n * sizeof(float));
}

static void kv_init(struct kv_stats *s, int channels, double weight)
{
    size_t n = (size_t)channels;
    s->n = channels;
    for (int f = 0; f < KV_FOLDS; f++) {
        s->lo[f] = mem_calloc(n, sizeof(float));
        s->hi[f] = mem_calloc(n, sizeof(float));
    }
    s->scale = mem_calloc(n, sizeof(float));
    s->offset = mem_calloc(n, sizeof(float));
    s->sum_sq = mem_calloc(n, sizeof(double));
    s->error = mem_calloc(n * KV_CANDIDATES, sizeof(double));
    s->weight = mem_calloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++)
        s->weight[i] = weight;
}

static void input_release(struct input_stats *s)
{
    free(s->absmax);
    free(s->mean_sq);
    free(s->rows);
}

static void kv_release(struct kv_stats *s)
{
    void *const all[] = {s->lo[0], s->lo[1], s->hi[0], s->hi[1], s->sum_sq, s->error, s->weight, s->scale, s->offset};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        free(all[i]);
}

static void layer_init(struct layer_stats *l, const struct model_config *c, int64_t total)
{
    int q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    const int widths[NUM_INPUT_SETS] = {c->hidden_size, q, c->hidden_size, c->intermediate_size};
    for (int s = 0; s < NUM_INPUT_SETS; s++)
        input_init(&l->input[s], widths[s], total);
    kv_init(&l->k, kv, 0);
    kv_init(&l->v, kv, 1);
}

static void layer_release(struct layer_stats *l)
{
    for (int s = 0; s < NUM_INPUT_SETS; s++)
        input_release(&l->input[s]);
    kv_release(&l->k);
    kv_release(&l->v);
    *l = (struct layer_stats){0};
}

/* ---- the whole ---- */

static int streams_take(struct calibration *c, struct octavo_error *err)
{
    size_t hidden = (size_t)checkpoint_config(c->ckpt)->hidden_size, row = hidden * sizeof(float), bytes;
    uint64_t available = mem_available();
    if (size_mul_ok((size_t)c->num_tokens, row, &bytes) && bytes <= available)
        c->streams = mem_try_array((size_t)c->num_tokens, row);
    if (!c->streams)
        return error_set_param(err, OCTAVO_ENOMEM, "calib_tokens",
                               "the hidden states of %lld calibration tokens need %.2f GiB of memory (%zu bytes a "
                               "token), and %.2f GiB are available; lower --calib-tokens",
                               (long long)c->num_tokens, (double)c->num_tokens * (double)row / (1 << 30), row,
                               (double)available / (1 << 30));
    c->scratch = mem_try_array((size_t)c->text->window, row);
    return c->scratch
               ? 0
               : error_set(err, OCTAVO_ENOMEM, "no memory for a window of %d tokens; lower --window", c->text->window);
}

static void batch_init(struct calibration *c)
{
    size_t t = (size_t)c->text->window, blocks = (size_t)c->kv.num_blocks;
    c->block_table = mem_alloc(blocks * sizeof(int32_t));
    for (size_t i = 0; i < blocks; i++)
        c->block_table[i] = (int32_t)i;
    c->batch = (struct batch){
        .num_tokens = c->text->window,
        .positions = mem_alloc(t * sizeof(int64_t)),
        .rope_lens = mem_alloc(t * sizeof(int64_t)),
        .slot_mapping = mem_alloc(t * sizeof(int64_t)),
        .block_table = mem_alloc(t * sizeof(int32_t *)),
        .num_logits = c->text->window,
        .logits_rows = mem_alloc(t * sizeof(int32_t)),
    };
    for (size_t i = 0; i < t; i++) {
        c->batch.positions[i] = c->batch.slot_mapping[i] = (int64_t)i;
        c->batch.rope_lens[i] = c->text->window;
        c->batch.block_table[i] = c->block_table;
        c->batch.logits_rows[i] = (int32_t)i;
    }
}

int calibration_open(const struct checkpoint *ckpt, struct pool *pool, const struct calib_text *text,
                     const struct calibrate_options *opts, struct calibration *ret, struct octavo_error *err)
{
    const struct model_config *config = checkpoint_config(ckpt);
    const enum dtype dtype = DTYPE_F32;
    *ret = (struct calibration){.num_tokens = (int64_t)text->num_windows * text->window,
                                .ckpt = ckpt,
                                .pool = pool,
                                .text = text,
                                .opts = *opts};
    int r = streams_take(ret, err);
    if (r == 0)
        r = kv_cache_init(&ret->kv, &dtype, 1, config->num_key_value_heads, config->head_dim, ATTN_TILE,
                          (text->window + ATTN_TILE - 1) / ATTN_TILE, err);
    if (r < 0) {
        calibration_release(ret);
        return r;
    }
    batch_init(ret);
    input_init(&ret->head, config->hidden_size, ret->num_tokens);
    return 0;
}

int calibration_layer(struct calibration *c, int layer, struct octavo_error *err)
{
    const struct model_options stage = {.isa = c->opts.isa, .first_layer = layer, .num_layers = 1};
    struct watch w = {.c = c, .config = checkpoint_config(c->ckpt)};
    struct model *model = NULL;
    struct workspace *ws = NULL;
    layer_release(&c->layer);
    layer_init(&c->layer, w.config, c->num_tokens);
    int r = model_load(c->ckpt, c->pool, &stage, &model, err);
    if (r == 0 && !(ws = workspace_new(model, c->text->window)))
        r = error_set(err, OCTAVO_ENOMEM, "no memory for a window of %d tokens; lower --window", c->text->window);
    if (r == 0)
        r = pass_run(&w, model, ws, err);
    w.second = true;
    if (r == 0 && c->opts.kv)
        r = pass_run(&w, model, ws, err);
    workspace_free(ws);
    model_free(model);
    if (r == 0 && c->opts.kv)
        r = kv_choose(&c->layer.k, c->opts.kv_asymmetric, "K", layer, err);
    if (r == 0 && c->opts.kv)
        r = kv_choose(&c->layer.v, c->opts.kv_asymmetric, "V", layer, err);
    return r;
}

void calibration_release(struct calibration *c)
{
    layer_release(&c->layer);
    input_release(&c->head);
    kv_cache_release(&c->kv);
    free(c->streams);
    free(c->scratch);
    free(c->block_table);
    free(c->batch.positions);
    free(c->batch.rope_lens);
    free(c->batch.slot_mapping);
    free(c->batch.block_table);
    free(c->batch.logits_rows);
    *c = (struct calibration){0};
}
