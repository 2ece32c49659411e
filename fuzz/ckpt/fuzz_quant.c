/* Quantised checkpoints: up to the first NUL a quant_model_description.json (or a config.json, when it begins with
 * 'c'), behind it a safetensors image. Every linear and cache of a two-layer model is resolved; what is accepted must
 * be readable and keep the promises of checkpoint.h. */
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/kv_scales.h"
#include "ckpt/modelslim.h"
#include "ckpt/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct model_config config = {.family = MODEL_LLAMA,
                                           .hidden_size = 8,
                                           .intermediate_size = 8,
                                           .num_hidden_layers = 2,
                                           .num_attention_heads = 2,
                                           .num_key_value_heads = 2,
                                           .head_dim = 4,
                                           .vocab_size = 16};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void scales_check(const float *scale, const float *zero, int n)
{
    for (int i = 0; i < n; i++)
        check(scale[i] > 0 && isfinite(scale[i]) && isfinite(1 / scale[i]) && isfinite(zero[i]));
}

static void linear_read(const struct linear_entry *l)
{
    const struct linear_spec *s = &l->spec;
    int8_t q[64];
    int32_t bias[8];
    float scale[64], zero[64];
    check(s->n == 8 && s->k == 8 && s->group_size > 0 && s->k % s->group_size == 0 && (s->bits == 4 || s->bits == 8));
    linear_rows(l, 0, 8, q);
    linear_rows(l, 7, 1, q);
    for (int i = 0; i < 8 && s->bits == 4; i++)
        check(q[i] >= -8 && q[i] <= 7);
    if (s->activation == ACTIVATION_INT8_STATIC)
        check(s->input_scale > 0 && isfinite(1 / s->input_scale) && fabsf(s->input_offset) <= 128);
    if (s->folded) {
        linear_folded(l, bias, scale);
        for (int i = 0; i < 8; i++)
            check(scale[i] > 0 && isfinite(scale[i]));
        return;
    }
    check(s->activation == ACTIVATION_FLOAT || s->group_size == s->k);
    linear_scales(l, scale, zero);
    scales_check(scale, zero, s->n * (s->k / s->group_size));
}

static void resolve(struct tensor_source *src, const struct quant *q)
{
    static const char *const modules[] = {
        "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
        "model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj",
    };
    struct octavo_error err;
    struct kv_scales kv[2] = {{0}};
    if (quant_refuse(src, q, &err) < 0)
        return;
    for (size_t i = 0; i < ARRAY_LEN(modules); i++) {
        struct linear_entry l;
        if (!source_find(src, modules[i], "weight") && !source_find(src, modules[i], "weight_packed"))
            continue;
        if (quant_linear(src, q, modules[i], 8, 8, &l, &err) == 0 && l.spec.quantised)
            linear_read(&l);
    }
    modelslim_norm(src, "model.norm", &err);
    if (kv_scales_load(src, q, kv, &err) == 0)
        for (int i = 0; i < 2; i++)
            if (kv[i].k_scale) {
                scales_check(kv[i].k_scale, kv[i].k_offset, 8);
                scales_check(kv[i].v_scale, kv[i].v_offset, 8);
            }
    for (int i = 0; i < 2; i++)
        kv_scales_release(&kv[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *nul = size ? memchr(text, 0, size) : NULL;
    bool is_config = size && *text == 'c';
    struct quant q = {0};
    struct shards shards = {0};
    struct safetensors_file file = {0};
    struct tensor_source src = {0};
    struct octavo_error err;
    if (!nul)
        return 0;
    size_t len = (size_t)(nul - text);
    log_set_level(LOG_OFF);
    if (quant_parse(is_config ? NULL : text, is_config ? text + 1 : NULL, len - is_config, &q, &err) < 0)
        return 0;
    if (safetensors_parse(data + len + 1, size - len - 1, "fuzz", &file, &err) < 0)
        goto out;
    shards.tensors = mem_calloc(file.num_tensors + 1, sizeof(*shards.tensors));
    for (size_t i = 0; i < file.num_tensors; i++) {
        const struct tensor *t = &file.tensors[i];
        strmap_add(&shards.by_name, t->name, strlen(t->name), (int32_t)i, NULL);
        shards.tensors[shards.num_tensors++] = t;
    }
    if (source_init(&src, "fuzz", &config, &shards, &err) == 0)
        resolve(&src, &q);
out:
    source_release(&src);
    strmap_release(&shards.by_name);
    free(shards.tensors);
    safetensors_close(&file);
    quant_release(&q);
    return 0;
}
