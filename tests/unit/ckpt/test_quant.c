/* Quantised checkpoints made on the spot: what each kind gives out, in every packing and shape that writers use. What
 * is refused is in test_quant_refusals.c. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "quant_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define Q "model.layers.0.self_attn.q_proj"
#define SLIM_DYNAMIC                                                                                                   \
    "@q.weight 'W8A8_DYNAMIC';+q.weight I8 8x8 3;+q.weight_scale F32 8x1 0.5;+q.weight_offset F32 8x1 0;"
#define SLIM_STATIC                                                                                                    \
    "@q.weight 'W8A8';+q.weight I8 8x8 3;+q.input_scale F32 1 0.5;+q.input_offset F32 1 3;+q.quant_bias I32 8 7;"      \
    "+q.deq_scale F32 8 0.25;"
#define CT(weights, input, more)                                                                                       \
    "#{'quant_method':'compressed-tensors','quantization_status':'compressed','format':'int-quantized','ignore':[],"   \
    "'config_groups':{'g':{'targets':['re:.*layers\\\\.0\\\\..*q_proj$'],'weights':" weights                           \
    ",'input_activations':" input "}}" more "};"

static struct folder f;
static struct octavo_error err;

static int setup(void **state)
{
    (void)state;
    folder_init(&f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    folder_release(&f);
    return 0;
}

static struct checkpoint *open_edited(const char *edits)
{
    struct checkpoint *c = NULL;
    folder_edit(&f, edits);
    if (folder_open(&f, &c, &err) < 0)
        fail_msg("%s\n%s", edits, err.msg);
    return c;
}

static struct linear_spec linear(const struct checkpoint *c, const char *module)
{
    struct linear_spec s;
    checkpoint_linear(c, module, &s);
    return s;
}

/* ---- known integers in each packing ---- */

static int weight(int n, int k, int bits)
{
    int range = 1 << bits;
    return (n * 37 + k * 11 + n * k) % range - range / 2;
}

static void assert_integers(const struct checkpoint *c, const struct linear_spec *s, int bits)
{
    int8_t q[64];
    assert_true(s->quantised);
    assert_int_equal(checkpoint_linear_rows(c, s, 0, 8, q), 0);
    for (int i = 0; i < 64; i++)
        assert_int_equal(q[i], weight(i / 8, i % 8, bits));
    assert_int_equal(checkpoint_linear_rows(c, s, 3, 2, q), 0); /* from an odd row */
    for (int i = 0; i < 16; i++)
        assert_int_equal(q[i], weight(3 + i / 8, i % 8, bits));
}

static void int4_packings(void **state)
{
    (void)state;
    folder_edit(&f, "@q.weight 'W4A16';+q.weight I8 4x8 0;+q.weight_scale BF16 8x2 0.5;+q.weight_offset F32 8x2 -3;"
                    "@k.weight 'W4A16';+k.weight I8 8x4 0;+k.weight_scale F16 8x1 0.25;+k.weight_offset I8 8x1 0;"
                    "@v.weight 'W4A16';+v.weight I8 8x8 0;+v.weight_scale F32 8 0.125;"
                    "@o.weight 'W4A8_DYNAMIC';+o.weight I8 4x8 0;+o.weight_scale F32 8x1 2;+o.scale_bias F32 8x16 1");
    uint8_t *rows = folder_data(&f, "q.weight"), *along = folder_data(&f, "k.weight");
    uint8_t *plain = folder_data(&f, "v.weight"), *dynamic = folder_data(&f, "o.weight");
    for (int n = 0; n < 8; n++)
        for (int k = 0; k < 8; k++) {
            int nibble = weight(n, k, 4) & 15;
            rows[n / 2 * 8 + k] |= (uint8_t)(nibble << (n % 2 * 4));
            dynamic[n / 2 * 8 + k] |= (uint8_t)(nibble << (n % 2 * 4));
            along[n * 4 + k / 2] |= (uint8_t)(nibble << (k % 2 * 4));
            plain[n * 8 + k] = (uint8_t)weight(n, k, 4);
        }
    struct checkpoint *c = open_edited("");
    struct linear_spec s = linear(c, Q);
    float scale[16], zero[16];
    assert_integers(c, &s, 4);
    assert_int_equal(s.bits, 4);
    assert_int_equal(s.group_size, 4);
    assert_true(s.has_zero && s.activation == ACTIVATION_FLOAT);
    checkpoint_linear_scales(c, &s, scale, zero);
    assert_true(scale[15] == 0.5f && zero[0] == -3 && zero[15] == -3);
    s = linear(c, "model.layers.0.self_attn.k_proj");
    assert_integers(c, &s, 4);
    assert_int_equal(s.bits, 4);
    assert_int_equal(s.group_size, 8);
    assert_false(s.has_zero);
    checkpoint_linear_scales(c, &s, scale, NULL);
    assert_true(scale[7] == 0.25f);
    s = linear(c, "model.layers.0.self_attn.v_proj");
    assert_integers(c, &s, 4);
    assert_int_equal(s.bits, 8); /* as stored */
    s = linear(c, "model.layers.0.self_attn.o_proj");
    assert_integers(c, &s, 4);
    assert_string_equal(s.kind, "W4A8_DYNAMIC");
    assert_int_equal(s.activation, ACTIVATION_INT8_DYNAMIC);
    assert_int_equal(checkpoint_num_unused(c), 0); /* scale_bias is known */
    checkpoint_free(c);
}

/* A row is a stream of q + 2^(bits-1), bit by bit. */
static void stream_put(uint8_t *row, int index, int bits, int value)
{
    for (int b = 0; b < bits; b++)
        if ((value + (1 << (bits - 1))) >> b & 1)
            row[(index * bits + b) / 8] |= (uint8_t)(1 << ((index * bits + b) % 8));
}

static void packed_streams(void **state)
{
    (void)state;
    for (int bits = 2; bits <= 8; bits++) {
        char edits[1200];
        int words = (8 * bits + 31) / 32;
        snprintf(edits, sizeof(edits),
                 "#{'quant_method':'compressed-tensors','format':'pack-quantized','config_groups':{'g':{'targets':"
                 "['" Q "'],'weights':{'num_bits':%d,'symmetric':false,'strategy':'group','group_size':4}}}};-q.weight;"
                 "+q.weight_packed I32 8x%d 0;+q.weight_scale BF16 8x2 0.5;+q.weight_zero_point I32 %dx2 0;"
                 "+q.weight_shape I64 2 8;+q.weight_g_idx I32 8 -1",
                 bits, words, words);
        folder_edit(&f, edits);
        uint8_t *data = folder_data(&f, "q.weight_packed"), *zeros = folder_data(&f, "q.weight_zero_point");
        uint8_t column[2][32] = {{0}};
        for (int n = 0; n < 8; n++) {
            for (int k = 0; k < 8; k++)
                stream_put(data + n * words * 4, k, bits, weight(n, k, bits));
            for (int g = 0; g < 2; g++)
                stream_put(column[g], n, bits, weight(n, g + 5, bits));
        }
        for (int w = 0; w < words; w++) /* (words, groups) */
            for (int g = 0; g < 2; g++)
                memcpy(zeros + (w * 2 + g) * 4, column[g] + w * 4, 4);
        struct checkpoint *c = open_edited("");
        struct linear_spec s = linear(c, Q);
        float scale[16], zero[16];
        assert_integers(c, &s, bits);
        assert_int_equal(s.bits, bits <= 4 ? 4 : 8);
        assert_true(s.has_zero);
        checkpoint_linear_scales(c, &s, scale, zero);
        for (int i = 0; i < 16; i++)
            assert_true(scale[i] == 0.5f && zero[i] == (float)weight(i / 2, i % 2 + 5, bits));
        assert_int_equal(checkpoint_num_unused(c), 0);
        checkpoint_free(c);
        folder_edit(&f, "+q.weight BF16 8x8 1;-q.weight_packed");
    }
}

/* ---- ModelSlim ---- */

static void slim_static(void **state)
{
    (void)state;
    static const char *const more[] = {"",
                                       "+q.input_scale BF16 0d 0.5;+q.input_offset I8 0d 3",
                                       "+q.input_scale F16 1x1 0.5;+q.input_offset I32 1 3",
                                       "+q.deq_scale I64 8x1 0x3e800000", /* the bits of 0.25 */
                                       "+q.bias F32 8 9",                 /* within quant_bias already */
                                       "+q.weight_scale F16 8x1 1;+q.weight_offset F16 8x1 0"};
    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        int32_t bias[8];
        float deq[8];
        folder_edit(&f, SLIM_STATIC);
        struct checkpoint *c = open_edited(more[i]);
        struct linear_spec s = linear(c, Q);
        assert_true(s.quantised && s.folded && !s.bias && s.activation == ACTIVATION_INT8_STATIC);
        assert_string_equal(s.kind, "W8A8");
        assert_true(s.input_scale == 0.5f && s.input_offset == 3);
        checkpoint_linear_folded(c, &s, bias, deq);
        assert_true(bias[7] == 7 && deq[0] == 0.25f && deq[7] == 0.25f);
        assert_int_equal(checkpoint_num_unused(c), 0);
        checkpoint_free(c);
    }
}

static void slim_dynamic(void **state)
{
    (void)state;
    struct checkpoint *c = open_edited(SLIM_DYNAMIC "+q.bias F32 8 2");
    struct linear_spec s = linear(c, Q);
    float scale[8], zero[8];
    assert_true(s.quantised && !s.folded && s.activation == ACTIVATION_INT8_DYNAMIC && s.bias);
    checkpoint_linear_scales(c, &s, scale, zero);
    assert_true(scale[0] == 0.5f && scale[7] == 0.5f && zero[7] == 0);
    s = linear(c, "model.layers.1.self_attn.q_proj"); /* no entry, float: it stays float */
    assert_false(s.quantised);
    assert_string_equal(s.kind, "FLOAT");
    assert_int_equal(s.weight->dtype, DTYPE_BF16);
    s = linear(c, "lm_head");
    assert_int_equal(s.n, 16);
    checkpoint_free(c);
    c = open_edited("@q.weight 'W8A8_MIX';+q.input_scale F32 1 0.5;+q.input_offset F32 1 0;+q.quant_bias I32 8 1;"
                    "+q.deq_scale F32 8 1");
    s = linear(c, Q);
    assert_int_equal(s.activation, ACTIVATION_INT8_DYNAMIC);
    assert_false(s.folded);
    assert_int_equal(checkpoint_num_unused(c), 0);
    checkpoint_free(c);
}

static void slim_w8a16(void **state)
{
    (void)state;
    static const char *const groups[] = {"8x1", "8x2", "8x4x1", "8"};
    static const int size[] = {8, 4, 2, 8};
    for (int i = 0; i < 4; i++) {
        char edits[300];
        float scale[64], zero[64];
        snprintf(edits, sizeof(edits),
                 "@q.weight 'W8A16';+q.weight I8 8x8 3;+q.weight_scale F16 %s 0.5;+q.weight_offset BF16 %s 5",
                 groups[i], groups[i]);
        struct checkpoint *c = open_edited(edits);
        struct linear_spec s = linear(c, Q);
        assert_int_equal(s.group_size, size[i]);
        assert_int_equal(s.activation, ACTIVATION_FLOAT);
        assert_true(s.has_zero);
        checkpoint_linear_scales(c, &s, scale, zero);
        assert_true(scale[64 / size[i] - 1] == 0.5f && zero[64 / size[i] - 1] == 5);
        checkpoint_free(c);
    }
}

/* model_quant_type is a summary, and a stale section of config.json says nothing. */
static void slim_decides_by_entry(void **state)
{
    (void)state;
    struct checkpoint *c = open_edited("@model_quant_type 'W8A8S';@version '1.0.0';@group_size 0;@metadata {'quarot':"
                                       "{'max_tp_size':4,'heads_rotation':{'layers':[]}}};@optional {'quarot':{}};"
                                       "#{'quant_method':'awq'};" SLIM_DYNAMIC);
    assert_string_equal(checkpoint_format(c), "ModelSlim");
    checkpoint_free(c);
}

static void slim_norms(void **state)
{
    (void)state;
    struct checkpoint *c =
        open_edited(SLIM_DYNAMIC "+L.input_layernorm.bias F32 8 2;+model.norm.bias BF16 8 1;"
                                 "+L.input_layernorm.module.weight F32 8 1;+L.input_layernorm.module.bias F32 8 2");
    assert_string_equal(checkpoint_norm_bias(c, "model.layers.0.input_layernorm")->name,
                        "model.layers.0.input_layernorm.bias");
    assert_non_null(checkpoint_norm_bias(c, "model.norm"));
    assert_null(checkpoint_norm_bias(c, "model.layers.1.input_layernorm"));
    assert_int_equal(checkpoint_num_unused(c), 0);
    checkpoint_free(c);
}

static void untied_head(void **state)
{
    (void)state;
    json_object_set_new(f.config, "tie_word_embeddings", json_true());
    struct checkpoint *c = open_edited(SLIM_DYNAMIC "@lm_head.weight 'W8A8_DYNAMIC';+lm_head.weight I8 16x8 3;"
                                                    "+lm_head.weight_scale F32 16 1");
    struct linear_spec s = linear(c, "lm_head");
    assert_true(s.quantised);
    checkpoint_free(c);
    c = open_edited("-lm_head.weight;-lm_head.weight_scale");
    s = linear(c, "lm_head");
    assert_false(s.quantised);
    assert_ptr_equal(s.weight, checkpoint_find(c, "model.embed_tokens.weight"));
    checkpoint_free(c);
}

/* ---- C8 ---- */

static void c8_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *scale, *offset;
        float offset_value;
    } shapes[] = {
        {"F32 8 0.5", "F32 8 3", 3},  {"BF16 1x8 0.5", "I8 8x1 3", 3}, {"F16 2x4 0.5", "I32 8 3", 3},
        {"F32 0d 0.5", "F32 1 3", 3}, {"F16 2 0.5", "BF16 2 3", 3},    {"F32 2x1x1 0.5", "F32 0d 3", 3},
        {"BF16 8 0.5", NULL, 0},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        char edits[400];
        snprintf(edits, sizeof(edits),
                 "@kv_cache_type 'C8';@A.k_proj.kv_cache_scale 'C8';+A.k_proj.kv_cache_scale %s;"
                 "+A.v_proj.kv_cache_scale F32 8 0.25%s%s",
                 shapes[i].scale, shapes[i].offset ? ";+A.k_proj.kv_cache_offset " : "",
                 shapes[i].offset ? shapes[i].offset : ";-A.k_proj.kv_cache_offset");
        struct checkpoint *c = open_edited(edits);
        const struct kv_scales *kv = checkpoint_kv_scales(c, 0);
        assert_non_null(kv);
        assert_null(checkpoint_kv_scales(c, 1));
        for (int j = 0; j < 8; j++)
            assert_true(kv->k_scale[j] == 0.5f && kv->k_offset[j] == shapes[i].offset_value &&
                        kv->v_scale[j] == 0.25f && kv->v_offset[j] == 0);
        checkpoint_free(c);
    }
    folder_edit(&f, "+A.k_proj.kv_cache_scale F32 2 1");
    memcpy(folder_data(&f, "A.k_proj.kv_cache_scale") + 4, &(float){4}, 4);
    struct checkpoint *c = open_edited("@kv_cache_type null;@kv_quant_type 'C8'"); /* only the older key */
    const struct kv_scales *kv = checkpoint_kv_scales(c, 0);
    assert_true(kv->k_scale[0] == 1 && kv->k_scale[3] == 1 && kv->k_scale[4] == 4 && kv->k_scale[7] == 4);
    checkpoint_free(c);
    c = open_edited("@kv_quant_type null"); /* neither: left aside, and named */
    assert_null(checkpoint_kv_scales(c, 0));
    assert_int_equal(checkpoint_num_unused(c), 2);
    checkpoint_free(c);
}

/* ---- compressed-tensors ---- */

#define W8 "{'num_bits':8,'strategy':'channel'}"

static void ct_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *edits, *kind;
        enum activation_kind activation;
        float offset;
        bool zero;
        int groups;
    } kinds[] = {
        {CT(W8, "{'dynamic':true,'strategy':'token'}", "") "+q.weight_scale BF16 8x1 0.5",
         "compressed-tensors W8A8 dynamic", ACTIVATION_INT8_DYNAMIC, 0, false, 1},
        {CT(W8, "{'dynamic':true,'symmetric':false}", ""), "compressed-tensors W8A8 dynamic",
         ACTIVATION_INT8_DYNAMIC_ASYM, 0, false, 1},
        {CT(W8, "{'strategy':'tensor'}", "") "+q.input_scale BF16 1 0.5", "compressed-tensors W8A8",
         ACTIVATION_INT8_STATIC, 0, false, 1},
        {CT(W8, "{'symmetric':false}", "") "+q.input_zero_point I8 1 -4", "compressed-tensors W8A8",
         ACTIVATION_INT8_STATIC, -4, false, 1},
        {CT("{'symmetric':false,'group_size':-1}", "null", "") "+q.weight_zero_point I8 8x1 -4",
         "compressed-tensors W8A16", ACTIVATION_FLOAT, 0, true, 1},
        {CT("{'num_bits':8}", "null", "") "+q.weight_scale F32 1 0.5;-q.weight_zero_point", "compressed-tensors W8A16",
         ACTIVATION_FLOAT, 0, false, 1},
        {CT("{'group_size':4}", "null", "") "+q.weight_scale F32 8x2 0.5", "compressed-tensors W8A16", ACTIVATION_FLOAT,
         0, false, 2},
    };
    folder_edit(&f, "+q.weight I8 8x8 3");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct checkpoint *c = open_edited(kinds[i].edits);
        struct linear_spec s = linear(c, Q);
        float scale[16], zero[16];
        assert_string_equal(checkpoint_format(c), "compressed-tensors");
        assert_string_equal(s.kind, kinds[i].kind);
        assert_int_equal(s.activation, kinds[i].activation);
        assert_true(s.input_offset == kinds[i].offset && s.has_zero == kinds[i].zero && !s.folded);
        assert_int_equal(s.k / s.group_size, kinds[i].groups);
        checkpoint_linear_scales(c, &s, scale, zero);
        assert_true(scale[8 * kinds[i].groups - 1] == 0.5f && zero[7] == (kinds[i].zero ? -4 : 0));
        assert_false(linear(c, "model.layers.1.self_attn.q_proj").quantised); /* the pattern does not match */
        checkpoint_free(c);
    }
}

/* A name before a pattern, a pattern before a class; ignore before all. */
static void ct_matching(void **state)
{
    (void)state;
    static const char config[] =
        "#{'quant_method':'compressed-tensors','format':'int-quantized','quantization_status':'compressed',"
        "'sparsity_config':{},'transform_config':null,'ignore':['lm_head','re:.*layers.1','re:.*mlp'],'config_groups':{"
        "'class':{'targets':['Linear'],'weights':{'strategy':'channel'},'input_activations':null},"
        "'pattern':{'targets':['re:.*[kv]_proj'],'weights':{'strategy':'channel'},'input_activations':{'dynamic':true}}"
        ","
        "'name':{'targets':['model.layers.0.self_attn.v_proj'],'weights':{'strategy':'channel'},"
        "'input_activations':{}}}};";
    folder_edit(&f, "+q.weight I8 8x8 3;+k.weight I8 8x8 3;+v.weight I8 8x8 3;+o.weight I8 8x8 3;"
                    "+q.weight_scale F32 8x1 1;+k.weight_scale F32 8x1 1;+v.weight_scale F32 8x1 1;"
                    "+o.weight_scale F32 8x1 1;+v.input_scale F32 1 1");
    struct checkpoint *c = open_edited(config);
    assert_int_equal(linear(c, "model.layers.0.self_attn.q_proj").activation, ACTIVATION_FLOAT);
    assert_true(linear(c, "model.layers.0.self_attn.q_proj").quantised);
    assert_int_equal(linear(c, "model.layers.0.self_attn.k_proj").activation, ACTIVATION_INT8_DYNAMIC);
    assert_int_equal(linear(c, "model.layers.0.self_attn.v_proj").activation, ACTIVATION_INT8_STATIC);
    assert_false(linear(c, "model.layers.1.self_attn.v_proj").quantised);
    assert_false(linear(c, "lm_head").quantised);
    checkpoint_free(c);
    c = open_edited("#{'quant_method':'compressed-tensors','format':'mixed-precision','config_groups':{'W8A16':"
                    "['Linear']},'ignore':['lm_head','re:.*layers.1','re:.*mlp']};-v.input_scale");
    assert_int_equal(linear(c, "model.layers.0.self_attn.v_proj").activation, ACTIVATION_FLOAT);
    checkpoint_free(c);
}

static void ct_caches(void **state)
{
    (void)state;
    static const char layer1[] = "model.layers.1.self_attn";
    static const struct {
        const char *scheme, *k, *v, *shape;
        bool zero;
    } schemes[] = {
        {"{'strategy':'tensor'}", "k_scale", "v_scale", "BF16 1", false},
        {"{}", "k_proj.output_scale", "v_proj.output_scale", "F32 0d", false},
        {"{'strategy':'attn_head'}", "k_scale", "v_scale", "BF16 2x1x1", false},
        {"{'strategy':'channel','symmetric':false}", "k_scale", "v_scale", "F16 8", true},
        {"{'strategy':'channel'}", "k_proj.kv_cache_scale", "v_proj.kv_cache_scale", "F16 2x4", false},
        {"{'strategy':'tensor'}", "k_proj.k_scale", "v_proj.v_scale", "F32 1", false},
        {"{'strategy':'tensor'}", "kv_scale", "kv_scale", "F32 1", false},
    };
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        char edits[900];
        snprintf(edits, sizeof(edits),
                 "#{'quant_method':'compressed-tensors','config_groups':{},'ignore':['%s'],'kv_cache_scheme':%s};"
                 "+A.%s %s 0.5;+A.%s %s 0.5%s",
                 i % 2 ? layer1 : "LlamaAttention", schemes[i].scheme, schemes[i].k, schemes[i].shape, schemes[i].v,
                 schemes[i].shape, schemes[i].zero ? ";+A.k_zero_point I8 8 5;+A.v_zero_point I8 8 -6" : "");
        struct checkpoint *c = open_edited(edits);
        const struct kv_scales *kv = checkpoint_kv_scales(c, 0);
        assert_non_null(kv);
        assert_null(checkpoint_kv_scales(c, 1));
        for (int j = 0; j < 8; j++)
            assert_true(kv->k_scale[j] == 0.5f && kv->v_scale[j] == 0.5f &&
                        kv->k_offset[j] == (schemes[i].zero ? 5 : 0) && kv->v_offset[j] == (schemes[i].zero ? -6 : 0));
        checkpoint_free(c);
        snprintf(edits, sizeof(edits), "-A.%s%s%s%s", schemes[i].k, i == 6 ? "" : ";-A.", i == 6 ? "" : schemes[i].v,
                 schemes[i].zero ? ";-A.k_zero_point;-A.v_zero_point" : "");
        folder_edit(&f, edits);
    }
}

/* ---- files ---- */

static void rename_in(const char *from, const char *to)
{
    char a[160], b[160];
    snprintf(a, sizeof(a), "%s/%s", f.dir, from);
    snprintf(b, sizeof(b), "%s/%s", f.dir, to);
    assert_int_equal(rename(a, b), 0);
}

static void assert_opens_quantised(void)
{
    struct checkpoint *c = NULL;
    if (checkpoint_open(f.dir, LOAD_AUTO, 0, &c, &err) < 0)
        fail_msg("%s", err.msg);
    assert_true(linear(c, Q).quantised);
    checkpoint_free(c);
}

/* An index that maps everything to one file. */
static void put_index(const char *name, const char *file)
{
    struct buf b = {0};
    buf_puts(&b, "{\"weight_map\":{");
    for (size_t i = 0; i < f.num_items; i++)
        buf_printf(&b, "%s\"%s\":\"%s\"", i ? "," : "", f.items[i].name, file);
    buf_puts(&b, "}}");
    folder_put(&f, name, b.data, b.len);
    buf_release(&b);
}

static void put_text(const char *name, const char *text)
{
    folder_put(&f, name, text, strlen(text));
}

/* A float set beside the quantised one is never read: here it is not even a safetensors file. */
static void file_names(void **state)
{
    (void)state;
    static const char *const singles[] = {"quant_model_weights.safetensors", "quant_model_weight_w8a8.safetensors",
                                          "quant_model_weight.safetensors",
                                          "quant_model_weights-00001-of-00001.safetensors"};
    folder_edit(&f, SLIM_DYNAMIC);
    for (size_t i = 0; i < sizeof(singles) / sizeof(singles[0]); i++) {
        f.weights = singles[i];
        folder_write(&f);
        folder_put(&f, "model.safetensors", "float", 5);
        folder_put(&f, "model-00001-of-00001.safetensors", "float", 5);
        put_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model-00001-of-00001.safetensors\"}}");
        assert_opens_quantised();
        put_index("model.safetensors.index.json", singles[i]); /* a renamed index */
        assert_opens_quantised();
        put_index("quant_model_weights.safetensors.index.json", singles[i]);
        folder_put(&f, "model.safetensors.index.json", "float", 5);
        assert_opens_quantised();
        rename_in("quant_model_weights.safetensors.index.json", "quant_model_weight_w8a8.safetensors.index.json");
        assert_opens_quantised();
        rename_in("quant_model_weight_w8a8.safetensors.index.json", "old");
        rename_in(singles[i], "old");
    }
    f.weights = "model.safetensors"; /* renamed altogether */
    rename_in("model.safetensors.index.json", "old");
    folder_write(&f);
    assert_opens_quantised();
}

static void description_names(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    folder_edit(&f, SLIM_DYNAMIC);
    f.weights = "quant_model_weight_w8a8_dynamic.safetensors";
    folder_write(&f);
    rename_in("quant_model_description.json", "quant_model_description_w8a8_dynamic.json");
    folder_put(&f, "quant_model_weight_w8a16.safetensors", "another", 7);
    assert_opens_quantised(); /* the description's name picks the weights */
    folder_put(&f, "quant_model_description_w8a16.json", "{}", 2);
    assert_int_equal(checkpoint_open(f.dir, LOAD_AUTO, 0, &c, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "leave the one that goes with the weights"));
    rename_in("quant_model_description_w8a16.json", "quant_model_description.json");
    assert_int_equal(checkpoint_open(f.dir, LOAD_AUTO, 0, &c, &err), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "several sets of weights"));
}

static void dummies_stay_float(void **state)
{
    (void)state;
    struct checkpoint *c = NULL;
    folder_edit(&f, CT(W8, "null", ""));
    folder_write(&f);
    assert_int_equal(checkpoint_open(f.dir, LOAD_DUMMY, 0, &c, &err), 0);
    struct linear_spec s = linear(c, Q);
    assert_false(s.quantised);
    assert_string_equal(s.weight->name, Q ".weight");
    assert_null(checkpoint_kv_scales(c, 0));
    checkpoint_free(c);
}

/* ---- damage ---- */

static uint64_t rng_state = 1;

static uint32_t rng(uint32_t n)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) % n);
}

/* Reads all that a checkpoint gives out. */
static void read_all(const struct checkpoint *c)
{
    static const char *const modules[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    int8_t q[64];
    float scale[64], zero[64];
    int32_t bias[8];
    for (int i = 0; i < 8; i++) {
        char name[96];
        snprintf(name, sizeof(name), "model.layers.%d.self_attn.%s", i / 4, modules[i % 4]);
        struct linear_spec s = linear(c, name);
        if (!s.quantised)
            continue;
        assert_int_equal(checkpoint_linear_rows(c, &s, 0, 8, q), 0);
        if (s.folded)
            checkpoint_linear_folded(c, &s, bias, scale);
        else
            checkpoint_linear_scales(c, &s, scale, zero);
        assert_true(scale[0] > 0 && scale[7] > 0);
        if (i < 2 && checkpoint_kv_scales(c, i))
            assert_true(checkpoint_kv_scales(c, i)->v_scale[7] > 0);
    }
}

/* One to four bytes of one file changed, or its end cut off: an error with a message, or a sound checkpoint. */
static void damage_rounds(const char *const *files, int num_files)
{
    struct buf whole = {0};
    folder_write(&f);
    for (int round = 0; round < 600; round++) {
        struct checkpoint *c = NULL;
        const char *name = files[rng((uint32_t)num_files)];
        char *path = path_join(f.dir, name);
        buf_clear(&whole);
        assert_int_equal(file_read(path, 1 << 20, &whole, NULL), 0);
        char *copy = mem_alloc(whole.len);
        memcpy(copy, whole.data, whole.len);
        size_t len = rng(8) ? whole.len : rng((uint32_t)whole.len);
        for (uint32_t edits = 1 + rng(4); edits--;)
            copy[rng((uint32_t)whole.len)] = rng(2) ? (char)rng(256) : "{}[]\":,0189-."[rng(14)];
        folder_put(&f, name, copy, len);
        err = (struct octavo_error){0};
        int r = checkpoint_open(f.dir, LOAD_AUTO, 0, &c, &err);
        if (r == 0)
            read_all(c);
        else
            assert_true(err.code == r && err.msg[0] && !c);
        checkpoint_free(c);
        folder_put(&f, name, whole.data, whole.len);
        free(copy);
        free(path);
    }
    buf_release(&whole);
}

static void damage_modelslim(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "quant_model_description.json",
                                        "quant_model_weights.safetensors"};
    folder_edit(&f, SLIM_STATIC "@k.weight 'W4A16';+k.weight I8 4x8 7;+k.weight_scale F16 8x2 1;"
                                "+k.weight_offset F16 8x2 1;@kv_cache_type 'C8';+A.k_proj.kv_cache_scale F32 8 1;"
                                "+A.v_proj.kv_cache_scale BF16 2 1;+A.v_proj.kv_cache_offset I8 2 1;"
                                "@v.weight 'W8A8_DYNAMIC';+v.weight I8 8x8 1;+v.weight_scale F32 8x1 1;"
                                "+model.norm.bias F32 8 1");
    damage_rounds(files, 3);
}

static void damage_compressed(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "quant_model_weights.safetensors"};
    folder_edit(&f, "#{'quant_method':'compressed-tensors','format':'pack-quantized','config_groups':{'g':{'targets':"
                    "['re:.*0.*q_proj'],'weights':{'num_bits':4,'symmetric':false,'group_size':4}},'h':{'targets':["
                    "'model.layers.0.self_attn.v_proj'],'weights':{'strategy':'tensor'},'input_activations':{}}},"
                    "'kv_cache_scheme':{'strategy':'attn_head'},'ignore':['re:.*[.]1[.]self_attn$']};-q.weight;"
                    "+q.weight_packed I32 8x1 7;+q.weight_scale BF16 8x2 1;+q.weight_zero_point I32 1x2 7;"
                    "+v.weight I8 8x8 7;+v.weight_scale F32 1 1;+v.input_scale F32 1 1;"
                    "+A.k_scale BF16 2x1x1 1;+A.v_scale BF16 2x1x1 1");
    damage_rounds(files, 2);
}

int main(void)
{
    log_set_level(LOG_ERROR);
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(int4_packings),         T(packed_streams),    T(slim_static), T(slim_dynamic),      T(slim_w8a16),
        T(slim_decides_by_entry), T(slim_norms),        T(untied_head), T(c8_shapes),         T(ct_kinds),
        T(ct_matching),           T(ct_caches),         T(file_names),  T(description_names), T(dummies_stay_float),
        T(damage_modelslim),      T(damage_compressed),
    };
    return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
