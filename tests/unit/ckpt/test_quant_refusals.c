/* Quantised checkpoints that must not start: each row edits a good one, and names what the message says. */
#include "base/mem.h"
#include "quant_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SLIM_DYNAMIC                                                                                                   \
    "@q.weight 'W8A8_DYNAMIC';+q.weight I8 8x8 3;+q.weight_scale F32 8x1 0.5;+q.weight_offset F32 8x1 0;"
#define SLIM_STATIC                                                                                                    \
    "@q.weight 'W8A8';+q.weight I8 8x8 3;+q.input_scale F32 1 0.5;+q.input_offset F32 1 3;+q.quant_bias I32 8 7;"      \
    "+q.deq_scale F32 8 0.25;"
#define C8                                                                                                             \
    "@kv_cache_type 'C8';@A.k_proj.kv_cache_scale 'C8';+A.k_proj.kv_cache_scale F32 8 0.5;"                            \
    "+A.v_proj.kv_cache_scale F32 8 0.25;"
#define CT_HEAD "#{'quant_method':'compressed-tensors','config_groups':{"
#define CT_GROUP "'g':{'targets':['re:.*0.*q_proj$'],"
#define W8 "'weights':{'strategy':'channel'}"
#define CT(group) CT_HEAD CT_GROUP group "}}};+q.weight I8 8x8 3;+q.weight_scale F32 8x1 0.5;"
#define CT_KV(scheme) "#{'quant_method':'compressed-tensors','kv_cache_scheme':" scheme ",'ignore':['re:.*[.]1[.]']};"
#define PACKED(args)                                                                                                   \
    CT_HEAD CT_GROUP "'format':'pack-quantized','weights':{'num_bits':4," args                                         \
                     "}}}};+q.weight_packed I32 8x1 7;-q.weight;+q.weight_scale F32 8x2 0.5;"

struct refusal {
    const char *edits;
    int code;
    const char *says, *names;
};

static const struct refusal modelslim[] = {
    /* the whole model */
    {"@kv_cache_type 'K_DYNAMIC_V_STATIC_MXFP8_PER_CHANNEL'", OCTAVO_EUNSUPPORTED, "kv_cache_type", "K_DYNAMIC_V"},
    {"@kv_cache_type 'C8';@kv_quant_type 'C4'", OCTAVO_EUNSUPPORTED, "kv_quant_type", "C4"},
    {"@kv_cache_type 8", OCTAVO_EINVAL, "kv_cache_type", "quant_model_description.json"},
    {"@fa_quant_type 'FAKQuant'", OCTAVO_EUNSUPPORTED, "fa_quant_type", "FAKQuant"},
    {"@indexer_quant_type 'INT8_DYNAMIC'", OCTAVO_EUNSUPPORTED, "indexer_quant_type", "INT8_DYNAMIC"},
    {"@A.quant_type 'FAQuant'", OCTAVO_EUNSUPPORTED, "model.layers.0.self_attn.quant_type", "FAQuant"},
    {"@metadata {'quarot':{'heads_rotation':{'layers':['a.']}}}", OCTAVO_EUNSUPPORTED, "online QuaRot",
     "heads_rotation"},
    {"@metadata {'quarot':{'kronecker_rotation':{'layers':['a.']}}}", OCTAVO_EUNSUPPORTED, "online QuaRot",
     "kronecker_rotation"},
    /* types */
    {"@q.weight 'W4A4_DYNAMIC';+q.weight I8 8x8 3", OCTAVO_EUNSUPPORTED, "q_proj.weight", "W4A4_DYNAMIC"},
    {"@q.weight 'W8A8S';+q.weight I8 8x8 3", OCTAVO_EUNSUPPORTED, "q_proj.weight", "W8A8S,"},
    {"@q.weight 'W4A4_FLATQUANT_DYNAMIC'", OCTAVO_EUNSUPPORTED, "q_proj.weight", "FLATQUANT"},
    {"@q.weight 'WFP8AFP8_DYNAMIC';+q.weight F8_E4M3 8x8 1", OCTAVO_EUNSUPPORTED, "q_proj.weight", "WFP8AFP8_DYNAMIC"},
    {"@q.weight 'W8A8_MXFP8';+q.weight F8_E4M3 8x8 1", OCTAVO_EUNSUPPORTED, "q_proj.weight", "W8A8_MXFP8"},
    {"@q.weight 'W8A16_SVD';+q.weight I8 8x8 3", OCTAVO_EUNSUPPORTED, "q_proj.weight", "W8A16_SVD"},
    {"@q.weight 'NF4';+q.weight U8 4x8 3", OCTAVO_EUNSUPPORTED, "q_proj.weight", "NF4"},
    {"@q.weight 8", OCTAVO_EINVAL, "q_proj.weight", "must be a string"},
    {"@k.weight 'FLOAT';+q.weight I8 8x8 3", OCTAVO_EINVAL, "has no entry for model.layers.0.self_attn.q_proj.weight",
     "I8"},
    {"@q.weight 'FLOAT';+q.weight I8 8x8 3", OCTAVO_EINVAL, "q_proj.weight is FLOAT", "I8"},
    {"@q.weight 'W8A8_DYNAMIC'", OCTAVO_EINVAL, "q_proj.weight is W8A8_DYNAMIC", "BF16"},
    {"@a 'FLOAT';+model.embed_tokens.weight I8 16x8 1", OCTAVO_EUNSUPPORTED, "model.embed_tokens.weight",
     "quantised embeddings"},
    /* weights */
    {SLIM_DYNAMIC "+q.weight U8 8x8 3", OCTAVO_EINVAL, "q_proj.weight", "U8"},
    {SLIM_DYNAMIC "+q.weight I8 8x4 3", OCTAVO_EINVAL, "q_proj.weight", "(8, 4)"},
    {SLIM_DYNAMIC "+q.weight I8 64 3", OCTAVO_EINVAL, "q_proj.weight", "(64)"},
    {"@q.weight 'W4A16';+q.weight I8 4x4 3;+q.weight_scale F32 8x1 1", OCTAVO_EINVAL, "q_proj.weight", "(4, 4)"},
    {SLIM_DYNAMIC "-q.weight", OCTAVO_EINVAL, "q_proj.weight", "is missing"},
    /* scales and offsets */
    {SLIM_DYNAMIC "-q.weight_scale", OCTAVO_EINVAL, "q_proj.weight_scale is missing", "W8A8_DYNAMIC needs it"},
    {SLIM_DYNAMIC "+q.weight_scale F32 8x1 0", OCTAVO_EINVAL, "q_proj.weight_scale", "element 0 is 0"},
    {SLIM_DYNAMIC "+q.weight_scale F32 8x1 -1", OCTAVO_EINVAL, "q_proj.weight_scale", "element 0 is -1"},
    {SLIM_DYNAMIC "+q.weight_scale BF16 8x1 nan", OCTAVO_EINVAL, "q_proj.weight_scale", "nan"},
    {SLIM_DYNAMIC "+q.weight_scale F32 8x1 inf", OCTAVO_EINVAL, "q_proj.weight_scale", "inf"},
    {SLIM_DYNAMIC "+q.weight_scale F32 8x1 1e-44", OCTAVO_EINVAL, "q_proj.weight_scale", "reciprocal"},
    {SLIM_DYNAMIC "+q.weight_scale I32 8x1 1", OCTAVO_EUNSUPPORTED, "q_proj.weight_scale", "I32"},
    {SLIM_DYNAMIC "+q.weight_scale F32 7x1 1", OCTAVO_EINVAL, "q_proj.weight_scale", "(7, 1)"},
    {SLIM_DYNAMIC "+q.weight_scale F32 8x2 1", OCTAVO_EINVAL, "q_proj.weight_scale", "(8, 2)"},
    {SLIM_DYNAMIC "+q.weight_scale F32 1 1", OCTAVO_EINVAL, "q_proj.weight_scale", "(1)"},
    {SLIM_DYNAMIC "+q.weight_offset F32 8x1 1", OCTAVO_EUNSUPPORTED, "q_proj.weight_offset", "is symmetric"},
    {SLIM_DYNAMIC "+q.weight_offset F32 8x1 nan", OCTAVO_EINVAL, "q_proj.weight_offset", "nan"},
    {SLIM_DYNAMIC "+q.bias F32 7 1", OCTAVO_EINVAL, "q_proj.bias", "(7)"},
    {SLIM_DYNAMIC "+q.surprise F32 8 1", OCTAVO_EUNSUPPORTED, "q_proj.surprise", "has no such tensor"},
    {"@q.weight 'W8A16';+q.weight I8 8x8 3;+q.weight_scale F32 8x3 1", OCTAVO_EINVAL, "q_proj.weight_scale", "(8, 3)"},
    {"@q.weight 'W8A16';+q.weight I8 8x8 3;+q.weight_scale F4 8x0 0", OCTAVO_EINVAL, "q_proj.weight_scale", "(8, 0)"},
    {"@q.weight 'W8A16';+q.weight I8 8x8 3;+q.weight_scale F32 8x2 1;+q.weight_offset F32 8x1 1", OCTAVO_EINVAL,
     "q_proj.weight_offset", "(8, 2)"},
    {"@q.weight 'W4A8_DYNAMIC';+q.weight I8 4x8 3;+q.weight_scale F32 8x1 1;+q.weight_scale_second F32 8x2 1",
     OCTAVO_EUNSUPPORTED, "q_proj.weight_scale_second", "second scale"},
    /* static */
    {SLIM_STATIC "-q.input_scale", OCTAVO_EINVAL, "q_proj.input_scale is missing", "W8A8 needs it"},
    {SLIM_STATIC "-q.input_offset", OCTAVO_EINVAL, "q_proj.input_offset is missing", "W8A8 needs it"},
    {SLIM_STATIC "-q.quant_bias", OCTAVO_EINVAL, "q_proj.quant_bias is missing", "W8A8 needs it"},
    {SLIM_STATIC "-q.deq_scale", OCTAVO_EINVAL, "q_proj.deq_scale is missing", "W8A8 needs it"},
    {SLIM_STATIC "+q.input_scale F32 1 0", OCTAVO_EINVAL, "q_proj.input_scale", "is 0"},
    {SLIM_STATIC "+q.input_scale F32 2 1", OCTAVO_EINVAL, "q_proj.input_scale", "(2)"},
    {SLIM_STATIC "+q.input_offset F32 1 300", OCTAVO_EINVAL, "q_proj.input_offset", "300"},
    {SLIM_STATIC "+q.quant_bias F32 8 1", OCTAVO_EUNSUPPORTED, "q_proj.quant_bias", "F32"},
    {SLIM_STATIC "+q.quant_bias I32 7 1", OCTAVO_EINVAL, "q_proj.quant_bias", "(7)"},
    {SLIM_STATIC "+q.deq_scale BF16 8 1", OCTAVO_EUNSUPPORTED, "q_proj.deq_scale", "BF16"},
    {SLIM_STATIC "+q.deq_scale F32 8 -1", OCTAVO_EINVAL, "q_proj.deq_scale", "element 0 is -1"},
    {SLIM_STATIC "+q.deq_scale I64 8 0x7fc00000", OCTAVO_EINVAL, "q_proj.deq_scale", "nan"},
    {SLIM_STATIC "+q.deq_scale I64 8 0", OCTAVO_EINVAL, "q_proj.deq_scale", "is 0"},
    {SLIM_STATIC "+q.deq_scale F32 4x2 1", OCTAVO_EINVAL, "q_proj.deq_scale", "(4, 2)"},
    /* tensors that change the arithmetic */
    {SLIM_DYNAMIC "+q.div.mul_scale F32 8 1", OCTAVO_EUNSUPPORTED, "q_proj.div.mul_scale", "NonFusionSmoothQuant"},
    {SLIM_DYNAMIC "+o.heads_rotation F32 2x2 1", OCTAVO_EUNSUPPORTED, "o_proj.heads_rotation", "QuaRot"},
    {SLIM_DYNAMIC "+L.mlp.down_proj.kronecker_rotation_m F32 2x2 1", OCTAVO_EUNSUPPORTED, "kronecker_rotation_m",
     "QuaRot"},
    {SLIM_DYNAMIC "+A.left_trans F32 2x2 1", OCTAVO_EUNSUPPORTED, "self_attn.left_trans", "FlatQuant"},
    {SLIM_DYNAMIC "+q.clip_ratio F32 1 1", OCTAVO_EUNSUPPORTED, "q_proj.clip_ratio", "FlatQuant"},
    {SLIM_DYNAMIC "+q.svd_lora_l F32 8 1", OCTAVO_EUNSUPPORTED, "q_proj.svd_lora_l", "SVD"},
    {SLIM_DYNAMIC "+A.fa_k.scale F32 2x1 1", OCTAVO_EUNSUPPORTED, "fa_k.scale", "FAQuant"},
    {SLIM_DYNAMIC "+A.indexer.wq_b.weight I8 8x8 1", OCTAVO_EUNSUPPORTED, "indexer.wq_b.weight", "indexer"},
    /* norms */
    {SLIM_DYNAMIC "+L.input_layernorm.module.weight BF16 8 2", OCTAVO_EUNSUPPORTED, "input_layernorm.module.weight",
     "two versions"},
    {SLIM_DYNAMIC "+L.input_layernorm.module.bias BF16 8 2", OCTAVO_EUNSUPPORTED, "input_layernorm.module.bias",
     "two versions"},
    {SLIM_DYNAMIC "+L.input_layernorm.bias BF16 7 2", OCTAVO_EINVAL, "input_layernorm.bias", "(7)"},
    {SLIM_DYNAMIC "+L.input_layernorm.bias I8 8 2", OCTAVO_EUNSUPPORTED, "input_layernorm.bias", "I8"},
    {SLIM_DYNAMIC "+model.norm.bias F32 8 nan", OCTAVO_EINVAL, "model.norm.bias", "nan"},
    /* C8 */
    {C8 "-A.v_proj.kv_cache_scale", OCTAVO_EINVAL, "v_proj.kv_cache_scale is missing", "C8"},
    {C8 "-A.k_proj.kv_cache_scale", OCTAVO_EINVAL, "k_proj.kv_cache_scale is missing", "C8"},
    {"@kv_cache_type 'C8'", OCTAVO_EINVAL, "no layer has k_proj.kv_cache_scale", "quant_model_description.json"},
    {C8 "+A.k_proj.kv_cache_scale F32 4 1", OCTAVO_EINVAL, "k_proj.kv_cache_scale", "(4)"},
    {C8 "+A.k_proj.kv_cache_scale F32 8 0", OCTAVO_EINVAL, "k_proj.kv_cache_scale", "element 0 is 0"},
    {C8 "+A.v_proj.kv_cache_scale BF16 2x4 nan", OCTAVO_EINVAL, "v_proj.kv_cache_scale", "nan"},
    {C8 "+A.v_proj.kv_cache_scale U8 8 1", OCTAVO_EUNSUPPORTED, "v_proj.kv_cache_scale", "U8"},
    {C8 "+A.v_proj.kv_cache_offset F32 8 inf", OCTAVO_EINVAL, "v_proj.kv_cache_offset", "inf"},
    {C8 "+A.v_proj.kv_cache_offset F32 3 1", OCTAVO_EINVAL, "v_proj.kv_cache_offset", "(3)"},
};

static const struct refusal compressed[] = {
    /* the whole */
    {"#{'quant_method':'fp8'}", OCTAVO_EUNSUPPORTED, "quant_method fp8", "config.json"},
    {"#{'quant_method':'awq'}", OCTAVO_EUNSUPPORTED, "quant_method awq", "config.json"},
    {"#{'bits':4}", OCTAVO_EUNSUPPORTED, "quant_method not given", "config.json"},
    {"#'x'", OCTAVO_EUNSUPPORTED, "quant_method not given", "config.json"},
    {"#{'quant_method':'compressed-tensors','quantization_status':'frozen'}", OCTAVO_EUNSUPPORTED,
     "quantization_status", "frozen"},
    {"#{'quant_method':'compressed-tensors','sparsity_config':{'format':'sparse-24-bitmask'}}", OCTAVO_EUNSUPPORTED,
     "sparsity_config", "config.json"},
    {"#{'quant_method':'compressed-tensors','transform_config':{'config_groups':{'R1':{}}}}", OCTAVO_EUNSUPPORTED,
     "transform_config", "config.json"},
    {"#{'quant_method':'compressed-tensors','format':'float-quantized'}", OCTAVO_EUNSUPPORTED, "float-quantized",
     "config.json"},
    {"#{'quant_method':'compressed-tensors','format':'nvfp4-pack-quantized'}", OCTAVO_EUNSUPPORTED,
     "nvfp4-pack-quantized", "config.json"},
    {"#{'quant_method':'compressed-tensors','config_groups':[]}", OCTAVO_EINVAL, "config_groups", "must be an object"},
    {"#{'quant_method':'compressed-tensors','config_groups':{'a':1}}", OCTAVO_EINVAL, "the group a", "object"},
    {"#{'quant_method':'compressed-tensors','config_groups':{'FP8':['Linear']}}", OCTAVO_EUNSUPPORTED, "preset", "FP8"},
    {"#{'quant_method':'compressed-tensors','ignore':'lm_head'}", OCTAVO_EINVAL, "ignore", "list of strings"},
    {"#{'quant_method':'compressed-tensors','ignore':[1]}", OCTAVO_EINVAL, "ignore", "list of strings"},
    {"#{'quant_method':'compressed-tensors','ignore':['re:(']}", OCTAVO_EINVAL, "re:(", "is not valid"},
    {"#{'quant_method':'compressed-tensors','ignore':['re:(.*.*.*)*[^a-z0-9._]$']}", OCTAVO_EINVAL, "takes too long",
     "(.*"},
    {"#{'quant_method':'compressed-tensors','config_groups':{'a':{'targets':['LlamaAttention']}}}", OCTAVO_EUNSUPPORTED,
     "LlamaAttention", "the group"},
    /* arguments */
    {CT("'weights':{'type':'float','strategy':'channel'}"), OCTAVO_EUNSUPPORTED, "config_groups.g.weights", "float"},
    {CT("'weights':{'num_bits':1}"), OCTAVO_EUNSUPPORTED, "config_groups.g.weights", "num_bits 1"},
    {CT("'weights':{'num_bits':16}"), OCTAVO_EUNSUPPORTED, "config_groups.g.weights", "num_bits 16"},
    {CT("'weights':{'strategy':'block'}"), OCTAVO_EUNSUPPORTED, "q_proj", "tensor, channel or group"},
    {CT("'weights':{'strategy':'odd'}"), OCTAVO_EUNSUPPORTED, "strategy", "odd"},
    {CT("'weights':{'strategy':'group'}"), OCTAVO_EUNSUPPORTED, "q_proj", "without a group_size"},
    {CT("'weights':{'dynamic':true}"), OCTAVO_EUNSUPPORTED, "q_proj", "dynamic weights"},
    {CT("'weights':{'dynamic':'local'}"), OCTAVO_EUNSUPPORTED, "dynamic", "local"},
    {CT("'weights':null,'input_activations':{}"), OCTAVO_EUNSUPPORTED, "q_proj", "without quantised weights"},
    {CT(W8 ",'format':'dense'"), OCTAVO_EUNSUPPORTED, "q_proj", "format dense"},
    {CT(W8 ",'output_activations':{}"), OCTAVO_EUNSUPPORTED, "q_proj", "output_activations"},
    {CT(W8 ",'input_activations':{'num_bits':4}"), OCTAVO_EUNSUPPORTED, "q_proj", "other than 8 bits"},
    {CT(W8 ",'input_activations':{'type':'float','dynamic':true}"), OCTAVO_EUNSUPPORTED, "input_activations", "float"},
    {CT(W8 ",'input_activations':{'dynamic':true,'strategy':'tensor'}"), OCTAVO_EUNSUPPORTED, "q_proj", "token"},
    {CT(W8 ",'input_activations':{'strategy':'token'}"), OCTAVO_EUNSUPPORTED, "q_proj", "other than tensor"},
    {CT("'weights':{'group_size':4},'input_activations':{'dynamic':true}"), OCTAVO_EUNSUPPORTED, "q_proj", "in groups"},
    /* tensors */
    {CT(W8) "+q.weight BF16 8x8 1", OCTAVO_EINVAL, "q_proj.weight", "BF16"},
    {CT(W8) "+q.weight F8_E4M3 8x8 1", OCTAVO_EINVAL, "q_proj.weight", "F8_E4M3"},
    {CT(W8) "-q.weight_scale", OCTAVO_EINVAL, "q_proj.weight_scale is missing", "W8A16 needs it"},
    {CT(W8) "+q.weight_scale F32 1 1", OCTAVO_EINVAL, "q_proj.weight_scale", "(8, 1)"},
    {CT(W8) "+q.weight_scale F32 8x1 0", OCTAVO_EINVAL, "q_proj.weight_scale", "is 0"},
    {CT(W8) "+q.weight_zero_point I8 8x1 1", OCTAVO_EINVAL, "q_proj.weight_zero_point", "are symmetric"},
    {CT("'weights':{'strategy':'channel','symmetric':false}"), OCTAVO_EINVAL, "q_proj.weight_zero_point is missing",
     "needs it"},
    {CT("'weights':{'group_size':3}"), OCTAVO_EUNSUPPORTED, "q_proj.weight", "leave a rest"},
    {CT("'weights':{'group_size':4}") "+q.weight_scale F32 8x1 1", OCTAVO_EINVAL, "q_proj.weight_scale", "(8, 2)"},
    {CT(W8) "+q.weight_g_idx I32 8 1", OCTAVO_EUNSUPPORTED, "q_proj.weight_g_idx", "actorder"},
    {CT(W8) "+q.weight_g_idx I32 7 0", OCTAVO_EINVAL, "q_proj.weight_g_idx", "8 integers"},
    {CT(W8 ",'input_activations':{}"), OCTAVO_EINVAL, "q_proj.input_scale is missing", "W8A8 needs it"},
    {CT(W8 ",'input_activations':{}") "+q.input_scale F32 8 1", OCTAVO_EINVAL, "q_proj.input_scale", "(8)"},
    {CT(W8 ",'input_activations':{}") "+q.input_scale F32 1 nan", OCTAVO_EINVAL, "q_proj.input_scale", "nan"},
    {CT(W8 ",'input_activations':{'symmetric':false}") "+q.input_scale F32 1 1", OCTAVO_EINVAL,
     "q_proj.input_zero_point is missing", "needs it"},
    {CT(W8 ",'input_activations':{}") "+q.input_scale F32 1 1;+q.input_zero_point I32 1 200", OCTAVO_EINVAL,
     "q_proj.input_zero_point", "200"},
    {CT(W8) "+q.output_scale F32 1 1", OCTAVO_EUNSUPPORTED, "q_proj.output_scale", "has no such tensor"},
    {CT(W8) "+A.q_scale F32 1 1", OCTAVO_EUNSUPPORTED, "self_attn.q_scale", "attention quantisation"},
    {CT(W8) "+model.embed_tokens.weight_packed I32 16x1 1;-model.embed_tokens.weight", OCTAVO_EUNSUPPORTED,
     "model.embed_tokens.weight_packed", "quantised embeddings"},
    {PACKED("'group_size':4") "+q.weight_packed I32 8x2 7", OCTAVO_EINVAL, "q_proj.weight_packed", "(8, 2)"},
    {PACKED("'group_size':4") "+q.weight_packed I64 8x1 7", OCTAVO_EINVAL, "q_proj.weight_packed", "I64"},
    {PACKED("'group_size':4") "+q.weight_shape I64 2 7", OCTAVO_EINVAL, "q_proj.weight_shape", "(7, 7)"},
    {PACKED("'group_size':4") "+q.weight_shape F32 2 8", OCTAVO_EINVAL, "q_proj.weight_shape", "two integers"},
    {PACKED("'group_size':4,'symmetric':false") "+q.weight_zero_point I32 2x2 7", OCTAVO_EINVAL,
     "q_proj.weight_zero_point", "(2, 2)"},
    {PACKED("'group_size':4") "+q.weight BF16 8x8 1;-q.weight_packed", OCTAVO_EINVAL, "q_proj.weight_packed is missing",
     "needs it"},
    /* the cache */
    {CT_KV("{'type':'float'}"), OCTAVO_EUNSUPPORTED, "kv_cache_scheme", "float"},
    {CT_KV("{'num_bits':4}"), OCTAVO_EUNSUPPORTED, "kv_cache_scheme", "num_bits 4"},
    {CT_KV("{'dynamic':true}"), OCTAVO_EUNSUPPORTED, "kv_cache_scheme", "dynamic"},
    {CT_KV("{'strategy':'token'}"), OCTAVO_EUNSUPPORTED, "kv_cache_scheme", "token"},
    {CT_KV("[]"), OCTAVO_EINVAL, "kv_cache_scheme", "object or null"},
    {CT_KV("{}"), OCTAVO_EINVAL, "model.layers.0.self_attn.k_scale is missing", "kv_cache_scheme"},
    {CT_KV("{}") "+A.k_scale F32 1 1", OCTAVO_EINVAL, "model.layers.0.self_attn.v_scale is missing", "kv_cache_scheme"},
    {CT_KV("{}") "+A.k_scale F32 1 1;+A.v_scale F32 2 1", OCTAVO_EINVAL, "self_attn.v_scale", "(2)"},
    {CT_KV("{'strategy':'attn_head'}") "+A.k_scale F32 8 1;+A.v_scale F32 2 1", OCTAVO_EINVAL, "self_attn.k_scale",
     "(8)"},
    {CT_KV("{'symmetric':false}") "+A.k_scale F32 1 1;+A.v_scale F32 1 1;+A.k_zero_point I8 1 1", OCTAVO_EINVAL,
     "self_attn.v_zero_point is missing", "not symmetric"},
    {CT_KV("{}") "+A.k_scale F32 1 -1;+A.v_scale F32 1 1", OCTAVO_EINVAL, "self_attn.k_scale", "is -1"},
};

static void refused(const struct refusal *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct folder f;
        struct octavo_error err;
        struct checkpoint *c = NULL;
        folder_init(&f);
        folder_edit(&f, rows[i].edits);
        int r = folder_open(&f, &c, &err);
        folder_release(&f);
        if (r != rows[i].code || !strstr(err.msg, rows[i].says) || !strstr(err.msg, rows[i].names))
            fail_msg("%s\n%d \"%s\", expected %d with \"%s\" and \"%s\"", rows[i].edits, r, err.msg, rows[i].code,
                     rows[i].says, rows[i].names);
        assert_null(c);
    }
}

static void modelslim_refusals(void **state)
{
    (void)state;
    refused(modelslim, ARRAY_LEN(modelslim));
}

static void compressed_refusals(void **state)
{
    (void)state;
    refused(compressed, ARRAY_LEN(compressed));
}

/* Nothing says that these are quantised. */
static void undescribed(void **state)
{
    (void)state;
    static const struct refusal rows[] = {
        {"+q.weight I8 8x8 3", OCTAVO_EUNSUPPORTED, "q_proj.weight", "nothing says how it is quantised"},
        {"-q.weight;+q.weight_packed I32 8x1 3", OCTAVO_EINVAL, "q_proj.weight", "is missing"},
    };
    refused(rows, ARRAY_LEN(rows));
}

/* One more product than 32 bits hold. */
static void wide_sums(void **state)
{
    (void)state;
    static const char *const edits[] = {
        "@L.mlp.down_proj.weight 'W8A8_DYNAMIC';+L.mlp.down_proj.weight I8 8x131073 1;"
        "+L.mlp.down_proj.weight_scale F32 8 1;",
        "#{'quant_method':'compressed-tensors','config_groups':{'W8A8':['re:.*0.mlp.down']}};"
        "+L.mlp.down_proj.weight I8 8x131073 1;+L.mlp.down_proj.weight_scale F32 8x1 1",
    };
    for (size_t i = 0; i < ARRAY_LEN(edits); i++) {
        struct folder f;
        struct octavo_error err;
        struct checkpoint *c = NULL;
        folder_init(&f);
        folder_edit(&f, edits[i]);
        for (int l = 0; l < 2; l++) {
            char more[300];
            snprintf(more, sizeof(more),
                     "+model.layers.%d.mlp.gate_proj.weight BF16 131073x8 1;+model.layers.%d.mlp.up_proj.weight BF16 "
                     "131073x8 1",
                     l, l);
            folder_edit(&f, more);
        }
        json_object_set_new(f.config, "intermediate_size", json_integer(131073));
        assert_int_equal(folder_open(&f, &c, &err), OCTAVO_EUNSUPPORTED);
        assert_non_null(strstr(err.msg, "down_proj.weight"));
        assert_non_null(strstr(err.msg, "at most 131072 fit 32 bits"));
        folder_release(&f);
    }
}

/* A damaged description must not pass for a float checkpoint. */
static void damaged_descriptions(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "[]", "{", "{\"a\":1,\"a\":2}", "7", "null"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct folder f;
        struct octavo_error err;
        struct checkpoint *c = NULL;
        folder_init(&f);
        folder_write(&f);
        folder_put(&f, "quant_model_description.json", texts[i], strlen(texts[i]));
        assert_int_equal(checkpoint_open(f.dir, LOAD_AUTO, 0, &c, &err), OCTAVO_EINVAL);
        assert_non_null(strstr(err.msg, "quant_model_description.json"));
        folder_release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modelslim_refusals), cmocka_unit_test(compressed_refusals),  cmocka_unit_test(undescribed),
        cmocka_unit_test(wide_sums),          cmocka_unit_test(damaged_descriptions),
    };
    return cmocka_run_group_tests_name("quant_refusals", tests, NULL, NULL);
}
