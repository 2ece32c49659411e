/* Making a quantised checkpoint: see quantize.h. Order: everything is checked and the disk space reserved; then, layer
 * by layer, the calibration text is run through the float layer, the layer is let go, and each of its tensors is read,
 * quantised and written in turn. What comes before and after the layers is written in its place. */
#include "quantize/quantize.h"

#include "base/json.h"
#include "base/mem.h"
#include "kernel/ref/convert.h"
#include "quantize/calib_text.h"
#include "quantize/calibrate.h"
#include "quantize/plan.h"
#include "quantize/smooth.h"
#include "quantize/source_files.h"
#include "quantize/weights.h"
#include "quantize/writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct quantizer {
    const struct quantize_options *opts;
    struct checkpoint *ckpt;
    struct pool *pool;
    struct calib_text text;
    struct calibration calib;
    struct writer *w;
    struct plan plan;
    struct quantize_report *report;
    uint64_t done, total; /* bytes of the source; a layer's count twice: calibrated, and written */
    uint64_t layer_bytes; /* of the layer at work */
    /* Of the layer at work: what columns of each set are multiplied by, and its inverse for the rows of v and up. */
    int layer;
    float *factor[NUM_INPUT_SETS], *v_row, *up_row;
};

static const enum input_set set_of[NUM_LAYER_LINEARS] = {
    [ERROR_Q] = INPUT_QKV,        [ERROR_K] = INPUT_QKV,      [ERROR_V] = INPUT_QKV,     [ERROR_O] = INPUT_O,
    [ERROR_GATE] = INPUT_GATE_UP, [ERROR_UP] = INPUT_GATE_UP, [ERROR_DOWN] = INPUT_DOWN,
};

static bool a8(enum quantize_weights w)
{
    return w == WEIGHTS_W8A8 || w == WEIGHTS_W4A8;
}

static bool stopped(const struct quantizer *q)
{
    return q->opts->stop && atomic_load(q->opts->stop);
}

/* ---- calibration ---- */

static int text_load(struct quantizer *q, struct octavo_error *err)
{
    struct tokenizer *tok = NULL;
    struct chat_template *template = NULL;
    const struct model_config *c = checkpoint_config(q->ckpt);
    int window = (int)MIN((int64_t)q->opts->window, c->max_model_len);
    bool ids = calib_text_is_ids(q->opts->calib);
    int r = ids ? 0 : tokenizer_open(q->opts->src, &tok, err);
    if (r == 0 && !ids)
        r = chat_template_open(q->opts->src, NULL, tok, &template, err);
    if (r == 0)
        r = calib_text_load(q->opts->calib, tok, template, q->opts->calib_tokens, window, c->vocab_size, &q->text, err);
    chat_template_free(template);
    tokenizer_free(tok);
    return r;
}

static void progress(const struct quantizer *q, uint64_t done)
{
    if (q->opts->progress)
        q->opts->progress(q->opts->progress_arg, done, q->total);
}

/* Of the layer at work, while the text runs through it. */
static void layer_progress(void *arg, uint64_t done, uint64_t total)
{
    const struct quantizer *q = arg;
    progress(q, q->done + (uint64_t)((double)q->layer_bytes * (double)done / (double)total));
}

static int calibration_begin(struct quantizer *q, struct octavo_error *err)
{
    const struct quantize_options *o = q->opts;
    const struct calibrate_options run = {.isa = o->isa,
                                          .kv = o->kv_c8,
                                          .kv_asymmetric = o->kv_asymmetric,
                                          .progress = layer_progress,
                                          .progress_arg = q,
                                          .stop = o->stop};
    return calibration_open(q->ckpt, q->pool, &q->text, &run, &q->calib, err);
}

/* ---- one layer ---- */

static void layer_leave(struct quantizer *q)
{
    for (int s = 0; s < NUM_INPUT_SETS; s++) {
        free(q->factor[s]);
        q->factor[s] = NULL;
    }
    free(q->v_row);
    free(q->up_row);
    q->v_row = q->up_row = NULL;
}

static struct plan_item *item_find(const struct quantizer *q, enum item_kind kind, int module)
{
    for (int i = 0; i < q->plan.num_items; i++) {
        struct plan_item *item = &q->plan.items[i];
        if (item->layer == q->layer && item->kind == kind && item->module == module)
            return item;
    }
    return NULL;
}

/* Pins the weights of a set and looks for its factor. fold: the set whose norm takes the inverse, or -1. */
static int set_smooth(struct quantizer *q, enum input_set set, const int *modules, int count, const int *unit,
                      int num_units, struct octavo_error *err)
{
    struct weight_view views[3];
    struct smooth_set s = {.stats = &q->calib.layer.input[set],
                           .weights = views,
                           .count = count,
                           .bits = q->opts->weights == WEIGHTS_W4A8 ? 4 : 8,
                           .unit = unit,
                           .num_units = num_units};
    int folds = 0;
    for (int i = 0; i < q->plan.num_items; i++) {
        const struct plan_item *item = &q->plan.items[i];
        if (item->layer == q->layer && item->kind == ITEM_NORM && item->module == (int)set && folds < 2)
            s.fold[folds++] = item->src;
    }
    for (int i = 0; i < count; i++) {
        const struct plan_item *item = item_find(q, ITEM_LINEAR, modules[i]);
        views[i] = (struct weight_view){.tensor = item->src,
                                        .data = checkpoint_tensor_pin(q->ckpt, item->src),
                                        .n = (int)item->src->shape[0],
                                        .k = (int)item->src->shape[1]};
    }
    int r = smooth_choose(q->pool, &s, &q->factor[set], &q->report->layers[q->layer].smoothing[set], err);
    for (int i = 0; i < count; i++)
        checkpoint_tensor_unpin(q->ckpt, views[i].tensor, views[i].data);
    return r;
}

static int layer_smooth(struct quantizer *q, struct octavo_error *err)
{
    static const int qkv[] = {ERROR_Q, ERROR_K, ERROR_V}, o[] = {ERROR_O}, gate_up[] = {ERROR_GATE, ERROR_UP},
                     down[] = {ERROR_DOWN};
    const struct model_config *c = checkpoint_config(q->ckpt);
    int d = c->head_dim, group = c->num_attention_heads / c->num_key_value_heads, q_width = c->num_attention_heads * d;
    int kv_width = c->num_key_value_heads * d, inter = c->intermediate_size;
    int *unit = mem_alloc((size_t)q_width * sizeof(*unit));
    for (int i = 0; i < q_width; i++)
        unit[i] = i / d / group * d + i % d;
    int r = set_smooth(q, INPUT_QKV, qkv, 3, NULL, c->hidden_size, err);
    if (r == 0)
        r = set_smooth(q, INPUT_O, o, 1, unit, kv_width, err);
    if (r == 0)
        r = set_smooth(q, INPUT_GATE_UP, gate_up, 2, NULL, c->hidden_size, err);
    if (r == 0)
        r = set_smooth(q, INPUT_DOWN, down, 1, NULL, inter, err);
    if (r == 0 && q->factor[INPUT_O]) {
        q->v_row = mem_calloc((size_t)kv_width, sizeof(float));
        for (int i = 0; i < q_width; i++)
            q->v_row[unit[i]] = 1.0f / q->factor[INPUT_O][i];
    }
    if (r == 0 && q->factor[INPUT_DOWN]) {
        q->up_row = mem_calloc((size_t)inter, sizeof(float));
        for (int i = 0; i < inter; i++)
            q->up_row[i] = 1.0f / q->factor[INPUT_DOWN][i];
    }
    free(unit);
    return r;
}

static int kv_put(struct quantizer *q, struct octavo_error *err)
{
    const struct layer_stats *l = &q->calib.layer;
    const float *from[4] = {l->k.scale, l->k.offset, l->v.scale, l->v.offset};
    size_t n = (size_t)l->k.n;
    float *v_scale = mem_alloc(n * sizeof(*v_scale));
    for (size_t i = 0; i < n; i++) /* rows of v have shrunk by a factor, and so has what is cached */
        v_scale[i] = l->v.scale[i] * (q->v_row ? q->v_row[i] : 1.0f);
    from[2] = v_scale;
    int r = 0;
    for (int i = 0; i < 4 && r == 0; i++)
        r = writer_put(q->w, q->plan.kv[q->layer].out[i], 0, from[i], n * sizeof(float), err);
    q->report->layers[q->layer].k = l->k.rel_error;
    q->report->layers[q->layer].v = l->v.rel_error;
    free(v_scale);
    return r;
}

static uint64_t layer_bytes(const struct quantizer *q, int layer)
{
    uint64_t bytes = 0;
    for (int i = 0; i < q->plan.num_items; i++)
        bytes += q->plan.items[i].layer == layer ? q->plan.items[i].src->bytes : 0;
    return bytes;
}

static int layer_enter(struct quantizer *q, int layer, struct octavo_error *err)
{
    layer_leave(q);
    q->layer = layer;
    if (layer < 0)
        return 0;
    q->layer_bytes = layer_bytes(q, layer);
    int r = calibration_layer(&q->calib, layer, err);
    q->done += q->layer_bytes;
    if (r == 0 && q->opts->smooth && a8(q->opts->weights))
        r = layer_smooth(q, err);
    return r == 0 && q->plan.kv ? kv_put(q, err) : r;
}

/* ---- one tensor ---- */

static int copy_put(struct quantizer *q, const struct plan_item *item, struct octavo_error *err)
{
    const uint8_t *data = checkpoint_tensor_pin(q->ckpt, item->src);
    int r = writer_put(q->w, item->out, 0, data, item->src->bytes, err);
    checkpoint_tensor_unpin(q->ckpt, item->src, data);
    return r;
}

static void value_store(uint8_t *to, enum dtype dtype, float v)
{
    uint16_t h = dtype == DTYPE_BF16 ? bf16_from_f32(v) : f16_from_f32(v);
    if (dtype == DTYPE_F32)
        memcpy(to, &v, 4);
    else
        memcpy(to, &h, 2);
}

/* A vector, times a factor or over one, in the type it is written in. Exact: factors were chosen to be. */
static int vector_put(struct quantizer *q, const struct plan_item *item, enum dtype dtype, const float *times,
                      const float *over, struct octavo_error *err)
{
    const struct tensor *t = item->src;
    size_t n = (size_t)t->shape[0], elem = (size_t)dtype_bits(t->dtype) / 8, out_elem = (size_t)dtype_bits(dtype) / 8;
    const uint8_t *data = checkpoint_tensor_pin(q->ckpt, t);
    uint8_t *out = mem_alloc(n * out_elem);
    for (size_t i = 0; i < n; i++) {
        float v = tensor_elem(data + i * elem, t->dtype);
        v = times ? v * times[i] : over ? v / over[i] : v;
        value_store(out + i * out_elem, dtype, v);
    }
    int r = writer_put(q->w, item->out, 0, out, n * out_elem, err);
    checkpoint_tensor_unpin(q->ckpt, t, data);
    free(out);
    return r;
}

static const float *row_factor(const struct quantizer *q, int module)
{
    return module == ERROR_V ? q->v_row : module == ERROR_UP ? q->up_row : NULL;
}

/* Rows 2i and 2i + 1 as the low and the high half of a byte, in place. */
static void pack_pairs(int8_t *w, size_t n, size_t k)
{
    for (size_t i = 0; i < n / 2; i++)
        for (size_t j = 0; j < k; j++)
            w[i * k + j] = (int8_t)((w[2 * i * k + j] & 15) | (int)((unsigned)w[(2 * i + 1) * k + j] << 4));
}

/* 8 * the sum of each row's weights, in parts along k: what hardware adds that splits activations into halves. */
static int scale_bias_put(struct quantizer *q, const struct plan_item *item, const int8_t *w, const float *scale,
                          struct octavo_error *err)
{
    size_t n = (size_t)item->src->shape[0], k = (size_t)item->src->shape[1], chunks = (size_t)item->chunks;
    float *out = mem_alloc(n * chunks * sizeof(*out));
    for (size_t j = 0; j < n; j++)
        for (size_t c = 0; c < chunks; c++) {
            int64_t sum = 0;
            for (size_t i = k / chunks * c; i < k / chunks * (c + 1); i++)
                sum += w[j * k + i];
            out[j * chunks + c] = 8.0f * (float)sum * scale[j];
        }
    int r = writer_put(q->w, item->scale_bias, 0, out, n * chunks * sizeof(*out), err);
    free(out);
    return r;
}

static int linear_write(struct quantizer *q, const struct plan_item *item, int8_t *w, const float *scale,
                        struct octavo_error *err)
{
    size_t n = (size_t)item->src->shape[0], k = (size_t)item->src->shape[1], bytes = n * k;
    float *zeros = mem_calloc(n, sizeof(*zeros));
    int r = 0;
    if (item->weights == WEIGHTS_W4A8) {
        r = scale_bias_put(q, item, w, scale, err);
        pack_pairs(w, n, k);
        bytes /= 2;
    }
    if (r == 0)
        r = writer_put(q->w, item->out, 0, w, bytes, err);
    if (r == 0)
        r = writer_put(q->w, item->scale, 0, scale, n * sizeof(*scale), err);
    if (r == 0)
        r = writer_put(q->w, item->offset, 0, zeros, n * sizeof(*zeros), err);
    free(zeros);
    return r;
}

static int linear_put(struct quantizer *q, const struct plan_item *item, struct octavo_error *err)
{
    const struct tensor *t = item->src;
    const struct input_stats *s = item->is_head ? &q->calib.head : &q->calib.layer.input[set_of[item->module]];
    struct weight_view view = {.tensor = t, .n = (int)t->shape[0], .k = (int)t->shape[1]};
    struct linear_error e;
    struct probe probe;
    if (!item->is_head) {
        view.col = q->factor[set_of[item->module]];
        view.row = row_factor(q, item->module);
    }
    int8_t *w = mem_try_array((size_t)view.n, (size_t)view.k);
    float *scale = mem_try_array((size_t)view.n, sizeof(*scale));
    int r = probe_init(&probe, s->num_rows, view.k, s->rows, s->mean_sq, view.col, a8(item->weights), err);
    if (r == 0 && (!w || !scale))
        r = error_set(err, OCTAVO_ENOMEM, "no memory for %s (%d x %d)", t->name, view.n, view.k);
    if (r == 0) {
        view.data = checkpoint_tensor_pin(q->ckpt, t);
        r = weights_quantize(q->pool, &view, item->weights == WEIGHTS_W4A8 ? 4 : 8, &probe, 1, w, scale, &e, err);
        checkpoint_tensor_unpin(q->ckpt, t, view.data);
    }
    if (r == 0)
        r = linear_write(q, item, w, scale, err);
    if (r == 0)
        *(item->is_head ? &q->report->lm_head : &q->report->layers[item->layer].linear[item->module]) =
            linear_error_ratio(&e);
    probe_release(&probe);
    free(w);
    free(scale);
    return r;
}

static int item_put(struct quantizer *q, const struct plan_item *item, struct octavo_error *err)
{
    switch (item->kind) {
    case ITEM_LINEAR:
        return item->weights == WEIGHTS_FLOAT ? copy_put(q, item, err) : linear_put(q, item, err);
    case ITEM_BIAS:
        return item->weights == WEIGHTS_FLOAT ? copy_put(q, item, err)
                                              : vector_put(q, item, DTYPE_F32, row_factor(q, item->module), NULL, err);
    case ITEM_NORM:
        return vector_put(q, item, item->src->dtype, NULL, item->module >= 0 ? q->factor[item->module] : NULL, err);
    default:
        return copy_put(q, item, err);
    }
}

static int tensors_put(struct quantizer *q, struct octavo_error *err)
{
    int r = 0;
    q->layer = -1;
    for (int i = 0; i < q->plan.num_items; i++)
        q->total += q->plan.items[i].src->bytes * (q->plan.items[i].layer < 0 ? 1 : 2);
    for (int i = 0; i < q->plan.num_items && r == 0; i++) {
        const struct plan_item *item = &q->plan.items[i];
        if (stopped(q))
            return error_set(err, OCTAVO_EBUSY, "interrupted");
        if (item->layer != q->layer)
            r = layer_enter(q, item->layer, err);
        if (r == 0)
            r = item_put(q, item, err);
        q->done += item->src->bytes;
        progress(q, q->done);
    }
    return r;
}

/* ---- the whole ---- */

static json_t *description_head(const struct quantize_options *o)
{
    json_t *head =
        json_pack("{s:s, s:s, s:i}", "model_quant_type", weights_type(o->weights), "version", "1.0.0", "group_size", 0);
    if (o->kv_c8) {
        json_object_set_new(head, "kv_cache_type", json_string("C8"));
        json_object_set_new(head, "kv_quant_type", json_string("C8"));
    }
    return head;
}

static void report_init(struct quantize_report *r, int num_layers)
{
    *r = (struct quantize_report){.num_layers = num_layers, .lm_head = NAN};
    r->layers = mem_calloc((size_t)num_layers, sizeof(*r->layers));
    for (int i = 0; i < num_layers; i++) {
        struct layer_report *l = &r->layers[i];
        for (int m = 0; m < NUM_LAYER_LINEARS; m++)
            l->linear[m] = NAN;
        for (int s = 0; s < NUM_INPUT_SETS; s++)
            l->smoothing[s] = 1;
        l->k = l->v = NAN;
    }
}

void quantize_report_release(struct quantize_report *r)
{
    free(r->layers);
    *r = (struct quantize_report){0};
}

static int source_open(struct quantizer *q, struct octavo_error *err)
{
    const struct quantize_options *o = q->opts;
    if (o->weights == WEIGHTS_FLOAT && !o->kv_c8 && !o->lm_head_w8a8)
        return error_set(err, OCTAVO_EINVAL, "--weights float with --kv bf16 leaves nothing to quantise");
    int r = checkpoint_open(o->src, LOAD_AUTO, 0, &q->ckpt, err);
    if (r == 0 && strcmp(checkpoint_format(q->ckpt), "float"))
        r = error_set(err, OCTAVO_EUNSUPPORTED,
                      "%s is quantised already (%s); quantise the float checkpoint that it was made from", o->src,
                      checkpoint_format(q->ckpt));
    return r;
}

int quantize(const struct quantize_options *opts, struct quantize_report *ret_report, struct octavo_error *err)
{
    struct quantizer q = {.opts = opts, .report = ret_report, .layer = -1};
    *ret_report = (struct quantize_report){0};
    int r;
    if ((r = source_open(&q, err)) < 0 || (r = text_load(&q, err)) < 0 ||
        (r = source_outside(opts->src, opts->dst, err)) < 0 ||
        (r = writer_open(opts->dst, opts->overwrite, &q.w, err)) < 0)
        goto out;
    plan_make(q.ckpt, opts, q.w, &q.plan);
    report_init(ret_report, checkpoint_config(q.ckpt)->num_hidden_layers);
    q.pool = pool_new(opts->threads);
    if (!q.pool) {
        r = error_set(err, OCTAVO_ENOMEM, "cannot start %d threads; lower --threads", opts->threads);
        goto out;
    }
    if ((r = calibration_begin(&q, err)) < 0 ||
        (r = writer_begin(q.w, opts->part_bytes ? opts->part_bytes : WRITER_PART_BYTES, err)) < 0 ||
        (r = tensors_put(&q, err)) < 0 || (r = source_files_copy(opts->src, q.w, err)) < 0)
        goto out;
    json_t *head = description_head(opts);
    r = writer_commit(q.w, head, err);
    json_decref(head);
    ret_report->calib_tokens = q.calib.num_tokens;
    for (size_t i = 0; i < checkpoint_num_tensors(q.ckpt); i++)
        ret_report->bytes_before += checkpoint_tensor(q.ckpt, i)->bytes;
    ret_report->bytes_after = writer_bytes(q.w);
out:
    layer_leave(&q);
    calibration_release(&q.calib);
    calib_text_release(&q.text);
    plan_release(&q.plan);
    writer_free(q.w);
    pool_free(q.pool);
    checkpoint_free(q.ckpt);
    if (r < 0)
        quantize_report_release(ret_report);
    return r;
}
