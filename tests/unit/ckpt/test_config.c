/* ckpt/config: families, defaults, RoPE in both styles, sliding windows, and what is refused by name. */
#include "base/buf.h"
#include "ckpt/config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define assert_near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))

#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"],"
#define QWEN2 "\"architectures\":[\"Qwen2ForCausalLM\"],"
#define QWEN3 "\"architectures\":[\"Qwen3ForCausalLM\"],"
#define CORE                                                                                                           \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,\"num_attention_heads\":4,"                   \
    "\"vocab_size\":100"

static struct model_config c;
static struct generation_config g;
static struct octavo_error err;

static int parse(const char *config, const char *generation)
{
    memset(&err, 0, sizeof(err));
    return model_config_parse(config, strlen(config), generation, generation ? strlen(generation) : 0, &c, &g, &err);
}

static void good(const char *fields)
{
    struct buf b = {0};
    buf_printf(&b, "{%s}", fields);
    if (parse(b.data, NULL) != 0)
        fail_msg("%s: %s", fields, err.msg);
    buf_release(&b);
}

static void bad(const char *fields, int code, const char *a, const char *b)
{
    struct buf t = {0};
    buf_printf(&t, "{%s}", fields);
    int r = parse(t.data, NULL);
    if (r != code || !strstr(err.msg, a) || !strstr(err.msg, b) || !strstr(err.msg, "config.json"))
        fail_msg("%s: %d \"%s\", expected %d with \"%s\" and \"%s\"", fields, r, err.msg, code, a, b);
    buf_release(&t);
}

static void families(void **state)
{
    (void)state;
    good(LLAMA CORE);
    assert_int_equal(c.family, MODEL_LLAMA);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.num_key_value_heads, 4);
    assert_int_equal(c.max_position_embeddings, 2048);
    assert_int_equal(c.max_model_len, 2048);
    assert_int_equal(c.dtype, DTYPE_BF16);
    assert_int_equal(c.bos_token_id, 1);
    assert_int_equal(c.num_eos_token_ids, 1);
    assert_int_equal(c.eos_token_ids[0], 2);
    assert_true(c.rope[0].type == ROPE_DEFAULT && c.rope[0].theta == 10000);
    assert_false(c.tie_word_embeddings);
    good(QWEN3 CORE);
    assert_int_equal(c.head_dim, 128); /* the class's default, not hidden / heads */
    assert_int_equal(c.max_position_embeddings, 32768);
    assert_int_equal(c.num_eos_token_ids, 0);
    assert_int_equal(c.bos_token_id, -1);
    good(QWEN3 CORE ",\"head_dim\":null,\"num_key_value_heads\":null");
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.num_key_value_heads, 4);
    good(QWEN2 CORE ",\"num_key_value_heads\":2");
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.num_key_value_heads, 2);
    good("\"model_type\":\"qwen2\"," CORE); /* no architectures: model_type decides */
    assert_int_equal(c.family, MODEL_QWEN2);
    good("\"architectures\":[],\"model_type\":\"llama\"," CORE);
    assert_int_equal(c.family, MODEL_LLAMA);
    good(QWEN3 "\"text_config\":{" CORE ",\"head_dim\":32},\"tie_word_embeddings\":true");
    assert_int_equal(c.head_dim, 32);
    assert_true(c.tie_word_embeddings);
    bad("\"architectures\":[\"MixtralForCausalLM\"],\"model_type\":\"llama\"," CORE, OCTAVO_EUNSUPPORTED,
        "MixtralForCausalLM", "supported: Qwen3ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM");
    bad("\"architectures\":[\"Qwen2VLForConditionalGeneration\"],\"text_config\":{" QWEN2 CORE "}", OCTAVO_EUNSUPPORTED,
        "Qwen2VLForConditionalGeneration", "supported:");
    bad("\"model_type\":\"gemma\"," CORE, OCTAVO_EUNSUPPORTED, "gemma", "supported:");
    bad("\"architectures\":[7]," CORE, OCTAVO_EINVAL, "architectures", "list of strings");
    bad(CORE, OCTAVO_EINVAL, "neither", "supported:");
    bad(QWEN3 "\"text_config\":7," CORE, OCTAVO_EINVAL, "text_config", "object");
}

static void dtypes(void **state)
{
    (void)state;
    good(LLAMA CORE ",\"torch_dtype\":\"float16\"");
    assert_int_equal(c.dtype, DTYPE_F16);
    good(LLAMA CORE ",\"torch_dtype\":\"float16\",\"dtype\":\"torch.float32\"");
    assert_int_equal(c.dtype, DTYPE_F32);
    bad(LLAMA CORE ",\"dtype\":\"float8_e4m3fn\"", OCTAVO_EUNSUPPORTED, "float8_e4m3fn", "supported:");
}

static void limits(void **state)
{
    (void)state;
    static const struct {
        const char *field, *word;
    } cases[] = {
        {"\"hidden_size\":0", "hidden_size"},
        {"\"hidden_size\":1048577", "hidden_size"},
        {"\"hidden_size\":-64", "hidden_size"},
        {"\"hidden_size\":64.5", "hidden_size"},
        {"\"hidden_size\":\"64\"", "hidden_size"},
        {"\"hidden_size\":null", "missing"},
        {"\"intermediate_size\":4611686018427387904", "intermediate_size"},
        {"\"num_hidden_layers\":1025", "num_hidden_layers"},
        {"\"num_hidden_layers\":0", "num_hidden_layers"},
        {"\"num_attention_heads\":4097", "num_attention_heads"},
        {"\"num_attention_heads\":0", "num_attention_heads"},
        {"\"vocab_size\":16777217", "vocab_size"},
        {"\"num_key_value_heads\":3", "multiple of num_key_value_heads"},
        {"\"num_key_value_heads\":0", "num_key_value_heads"},
        {"\"num_key_value_heads\":8", "multiple of num_key_value_heads"},
        {"\"head_dim\":15", "even"},
        {"\"head_dim\":0", "head_dim"},
        {"\"head_dim\":1026", "head_dim"},
        {"\"hidden_size\":66", "multiple of num_attention_heads"},
        {"\"hidden_size\":8192", "head_dim"},
        {"\"num_attention_heads\":4096,\"head_dim\":1024", "at most 1048576"},
        {"\"max_position_embeddings\":0", "max_position_embeddings"},
        {"\"max_position_embeddings\":134217729", "max_position_embeddings"},
        {"\"rms_norm_eps\":0", "rms_norm_eps"},
        {"\"rms_norm_eps\":-1e-6", "rms_norm_eps"},
        {"\"rms_norm_eps\":1e-300", "rms_norm_eps"},
        {"\"rms_norm_eps\":1e300", "rms_norm_eps"},
        {"\"rms_norm_eps\":NaN", "not valid JSON"},
        {"\"rms_norm_eps\":Infinity", "not valid JSON"},
        {"\"tie_word_embeddings\":1", "tie_word_embeddings"},
        {"\"attention_bias\":\"no\"", "attention_bias"},
        {"\"rope_theta\":0", "rope_theta"},
        {"\"rope_theta\":1", "rope_theta"},
        {"\"rope_theta\":\"1e4\"", "rope_theta"},
        {"\"eos_token_id\":-1", "eos_token_id"},
        {"\"eos_token_id\":[1,\"2\"]", "eos_token_id"},
        {"\"eos_token_id\":true", "eos_token_id"},
        {"\"bos_token_id\":\"<s>\"", "bos_token_id"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf b = {0};
        buf_printf(&b, LLAMA CORE ",%s", cases[i].field); /* the last of two equal keys counts */
        bad(b.data, OCTAVO_EINVAL, cases[i].word, "");
        buf_release(&b);
    }
    good(LLAMA CORE ",\"hidden_act\":\"swish\"");
    bad(LLAMA CORE ",\"hidden_act\":\"gelu\"", OCTAVO_EUNSUPPORTED, "gelu", "supported: silu");
    bad(LLAMA "\"hidden_size\":64", OCTAVO_EINVAL, "intermediate_size", "missing");
    assert_string_equal(err.param, "intermediate_size");
    assert_int_equal(parse("[]", NULL), OCTAVO_EINVAL);
    assert_int_equal(parse("", NULL), OCTAVO_EINVAL);
    bad(LLAMA CORE ",\"quantization_config\":{\"quant_method\":\"awq\"}", OCTAVO_EUNSUPPORTED,
        "the quant_method awq is not supported", "compressed-tensors");
    good(LLAMA CORE ",\"quantization_config\":null");
}

static void biases(void **state)
{
    (void)state;
    good(LLAMA CORE ",\"attention_bias\":true,\"mlp_bias\":true");
    assert_true(c.attention_bias && c.mlp_bias);
    good(QWEN3 CORE ",\"attention_bias\":true,\"mlp_bias\":true");
    assert_true(c.attention_bias && !c.mlp_bias); /* Qwen3's class has no mlp_bias */
}

static void rope_old_style(void **state)
{
    (void)state;
    good(LLAMA CORE ",\"rope_theta\":500000,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4},"
                    "\"max_position_embeddings\":100");
    assert_true(c.rope[0].type == ROPE_LINEAR && c.rope[0].factor == 4 && c.rope[0].theta == 500000);
    assert_int_equal(c.max_model_len, 400);
    good(LLAMA CORE ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"type\":\"su\",\"factor\":2.5},"
                    "\"max_position_embeddings\":101");
    assert_int_equal(c.rope[0].type, ROPE_DYNAMIC); /* rope_type wins over type */
    assert_int_equal(c.rope[0].original_max_position_embeddings, 101);
    assert_int_equal(c.max_model_len, 252);
    good(LLAMA CORE
         ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":8192},\"max_position_embeddings\":131072");
    assert_int_equal(c.rope[0].type, ROPE_LLAMA3);
    assert_int_equal(c.rope[0].original_max_position_embeddings, 8192);
    assert_true(c.rope[0].low_freq_factor == 1 && c.rope[0].high_freq_factor == 4 && c.rope[0].attention_factor == 1);
    assert_int_equal(c.max_model_len, 131072); /* not multiplied */
    good(LLAMA CORE ",\"rope_scaling\":{}");
    assert_int_equal(c.rope[0].type, ROPE_DEFAULT);
    good(LLAMA CORE
         ",\"rope_scaling\":null,\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":7e3},"
         "\"rope_theta\":9");
    assert_true(c.rope[0].type == ROPE_LINEAR && c.rope[0].theta == 7000); /* the object wins */
}

static void rope_yarn(void **state)
{
    (void)state;
    good(QWEN3 CORE
         ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768},"
         "\"max_position_embeddings\":40960");
    assert_int_equal(c.rope[0].type, ROPE_YARN);
    assert_int_equal(c.max_model_len, 131072); /* original * factor */
    assert_true(c.rope[0].beta_fast == 32 && c.rope[0].beta_slow == 1 && c.rope[0].truncate);
    assert_near(c.rope[0].attention_factor, 0.1 * log(4) + 1, 1e-12);
    good(QWEN3 CORE ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":0.5,"
                    "\"truncate\":false,\"beta_fast\":0,\"beta_slow\":2},\"max_position_embeddings\":1000");
    assert_near(c.rope[0].attention_factor, (0.1 * log(4) + 1) / (0.05 * log(4) + 1), 1e-12);
    assert_true(c.rope[0].beta_fast == 32 && c.rope[0].beta_slow == 2 && !c.rope[0].truncate);
    assert_int_equal(c.rope[0].original_max_position_embeddings, 1000);
    assert_int_equal(c.max_model_len, 4000);
    good(QWEN3 CORE ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":0.7}"); /* half of the pair */
    assert_near(c.rope[0].attention_factor, 0.1 * log(4) + 1, 1e-12);
    good(QWEN3 CORE ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,\"attention_factor\":1.5,"
                    "\"original_max_position_embeddings\":10},\"original_max_position_embeddings\":20");
    assert_true(c.rope[0].attention_factor == 1.5);
    assert_int_equal(c.rope[0].original_max_position_embeddings, 20); /* the top-level field wins */
    good(QWEN3 CORE
         ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":null,\"original_max_position_embeddings\":8192}");
    assert_true(c.rope[0].factor == 4);
}

static void rope_nested(void **state)
{
    (void)state;
    good(QWEN3 CORE
         ",\"use_sliding_window\":true,\"sliding_window\":33,\"max_window_layers\":2,\"rope_theta\":5e5,"
         "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":1e6},"
         "\"sliding_attention\":{\"rope_type\":\"default\"}},\"max_position_embeddings\":100");
    assert_true(c.rope[LAYER_FULL_ATTENTION].type == ROPE_LINEAR && c.rope[LAYER_FULL_ATTENTION].theta == 1e6);
    assert_true(c.rope[LAYER_SLIDING_ATTENTION].type == ROPE_DEFAULT && c.rope[LAYER_SLIDING_ATTENTION].theta == 5e5);
    assert_int_equal(c.max_model_len, 200);
    bad(QWEN3 CORE ",\"use_sliding_window\":true,\"sliding_window\":33,\"max_window_layers\":2,"
                   "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}",
        OCTAVO_EINVAL, "rope_parameters", "sliding_attention");
    good(LLAMA CORE ",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":2e4}}");
    assert_true(c.rope[0].theta == 2e4 && c.rope[1].theta == 2e4);
}

static void rope_refused(void **state)
{
    (void)state;
    static const char *const types[] = {"longrope", "su", "mrope", "proportional", "Yarn", ""};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct buf b = {0};
        buf_printf(&b, LLAMA CORE ",\"rope_scaling\":{\"type\":\"%s\",\"factor\":2}", types[i]);
        bad(b.data, OCTAVO_EUNSUPPORTED, types[i], "supported: default, linear, dynamic, llama3, yarn");
        buf_release(&b);
    }
    static const struct {
        const char *params, *a, *b;
    } cases[] = {
        {"\"type\":7", "type must be a string", ""},
        {"\"type\":\"linear\"", "factor is missing", "linear"},
        {"\"type\":\"dynamic\"", "factor is missing", "dynamic"},
        {"\"type\":\"yarn\"", "factor is missing", "yarn"},
        {"\"type\":\"linear\",\"factor\":0", "factor is 0", "between 1"},
        {"\"type\":\"linear\",\"factor\":-2", "factor is -2", ""},
        {"\"type\":\"linear\",\"factor\":1e300", "factor", "between"},
        {"\"type\":\"linear\",\"factor\":\"2\"", "factor", "number"},
        {"\"type\":\"linear\",\"factor\":2,\"rope_theta\":-1", "rope_theta", ""},
        {"\"type\":\"llama3\",\"factor\":8,\"high_freq_factor\":4", "low_freq_factor is missing", "llama3"},
        {"\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4", "high_freq_factor is missing", "llama3"},
        {"\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4",
         "greater than low_freq_factor", ""},
        {"\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":0,\"high_freq_factor\":4", "low_freq_factor", ""},
        {"\"type\":\"yarn\",\"factor\":2,\"beta_fast\":1,\"beta_slow\":2", "beta_fast", "less than"},
        {"\"type\":\"yarn\",\"factor\":2,\"attention_factor\":-1", "attention_factor", ""},
        {"\"type\":\"yarn\",\"factor\":2,\"attention_factor\":0", "attention_factor", ""},
        {"\"type\":\"yarn\",\"factor\":2,\"truncate\":1", "truncate", ""},
        {"\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":0", "original_max_position_embeddings",
         ""},
        {"\"type\":\"yarn\",\"factor\":null,\"original_max_position_embeddings\":99999", "factor is null", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf b = {0};
        buf_printf(&b, LLAMA CORE ",\"rope_scaling\":{%s}", cases[i].params);
        bad(b.data, OCTAVO_EINVAL, cases[i].a, cases[i].b);
        buf_release(&b);
    }
    bad(LLAMA CORE ",\"rope_scaling\":\"linear\"", OCTAVO_EINVAL, "rope_scaling", "object");
    bad(LLAMA CORE ",\"partial_rotary_factor\":0.5", OCTAVO_EUNSUPPORTED, "partial_rotary_factor", "0.5");
    bad(LLAMA CORE ",\"rope_parameters\":{\"partial_rotary_factor\":0.5}", OCTAVO_EUNSUPPORTED, "partial_rotary_factor",
        "0.5");
    bad(LLAMA CORE ",\"head_dim\":2,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", OCTAVO_EINVAL, "head_dim",
        "dynamic");
    bad(LLAMA CORE ",\"max_position_embeddings\":134217728,\"rope_scaling\":{\"type\":\"linear\",\"factor\":3}",
        OCTAVO_EINVAL, "at most 268435456", "");
}

static void sliding(void **state)
{
    (void)state;
    good(QWEN2 CORE ",\"sliding_window\":32,\"use_sliding_window\":false,\"max_window_layers\":1");
    assert_int_equal(c.sliding_window, 0);
    good(QWEN2 CORE ",\"sliding_window\":32,\"use_sliding_window\":true,\"max_window_layers\":1");
    assert_int_equal(c.sliding_window, 32);
    assert_memory_equal(c.layer_types, ((uint8_t[]){0, 1, 1, 1}), 4);
    good(QWEN2 CORE ",\"sliding_window\":32,\"use_sliding_window\":true"); /* from layer 28 on: none of four */
    assert_int_equal(c.sliding_window, 0);
    good(QWEN2 CORE ",\"sliding_window\":null,\"use_sliding_window\":true,\"max_window_layers\":0");
    assert_int_equal(c.sliding_window, 0);
    good(QWEN3 CORE ",\"sliding_window\":48,\"use_sliding_window\":true,\"max_window_layers\":0,\"layer_types\":"
                    "[\"sliding_attention\",\"full_attention\",\"sliding_attention\",\"full_attention\"]");
    assert_int_equal(c.sliding_window, 48);
    assert_memory_equal(c.layer_types, ((uint8_t[]){1, 0, 1, 0}), 4);
    good(LLAMA CORE ",\"sliding_window\":48,\"use_sliding_window\":true,\"max_window_layers\":0");
    assert_int_equal(c.sliding_window, 0);
#define TYPES(a) ",\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"" a "\"]"
    good(LLAMA CORE TYPES("full_attention"));
    bad(LLAMA CORE TYPES("sliding_attention"), OCTAVO_EUNSUPPORTED, "sliding_attention", "LlamaForCausalLM");
    bad(QWEN3 CORE TYPES("chunked_attention"), OCTAVO_EUNSUPPORTED, "layer_types[3]", "chunked_attention");
    bad(QWEN3 CORE TYPES("linear_attention"), OCTAVO_EUNSUPPORTED, "linear_attention", "supported:");
    bad(QWEN3 CORE TYPES("sliding_attention"), OCTAVO_EINVAL, "sliding_attention", "use_sliding_window is not true");
    bad(QWEN3 CORE TYPES("sliding_attention") ",\"use_sliding_window\":true,\"sliding_window\":null", OCTAVO_EINVAL,
        "sliding_attention", "sliding_window is null");
    bad(QWEN3 CORE ",\"layer_types\":[\"full_attention\"]", OCTAVO_EINVAL, "layer_types", "num_hidden_layers (4)");
    bad(QWEN3 CORE ",\"layer_types\":[1,2,3,4]", OCTAVO_EINVAL, "layer_types[0]", "string");
    bad(QWEN3 CORE ",\"use_sliding_window\":true,\"sliding_window\":0", OCTAVO_EINVAL, "sliding_window", "");
}

static void generation(void **state)
{
    (void)state;
    const char *base = "{" QWEN3 CORE ",\"eos_token_id\":[7,7,5,100,5000],\"bos_token_id\":3}";
    assert_int_equal(parse(base, NULL), 0);
    assert_int_equal(c.bos_token_id, 3);
    assert_int_equal(c.num_eos_token_ids, 2); /* no duplicates, nothing the vocabulary lacks */
    assert_false(g.has_temperature || g.has_top_k || g.has_top_p);
    assert_int_equal(parse(base,
                           "{\"eos_token_id\":[9,5],\"do_sample\":true,\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95,"
                           "\"min_p\":0,\"repetition_penalty\":1.05,\"max_new_tokens\":2048,\"x\":{}}"),
                     0);
    assert_int_equal(c.num_eos_token_ids, 3);
    assert_memory_equal(c.eos_token_ids, ((int32_t[]){7, 5, 9}), 12);
    assert_true(g.has_temperature && g.temperature == 0.6 && g.has_top_k && g.top_k == 20 && g.has_top_p &&
                g.top_p == 0.95);
    assert_true(g.has_min_p && g.min_p == 0 && g.has_repetition_penalty && g.repetition_penalty == 1.05);
    assert_true(g.has_max_new_tokens && g.max_new_tokens == 2048);
    assert_int_equal(parse(base, "{\"do_sample\":false,\"temperature\":0.6}"), 0);
    assert_true(g.has_temperature && g.temperature == 0); /* greedy */
    assert_int_equal(parse(base, "{\"temperature\":null}"), 0);
    assert_false(g.has_temperature);
    static const char *const wrong[] = {
        "{\"temperature\":-1}",
        "{\"temperature\":\"1\"}",
        "{\"top_p\":0}",
        "{\"top_p\":1.5}",
        "{\"min_p\":2}",
        "{\"repetition_penalty\":0}",
        "{\"top_k\":-2}",
        "{\"top_k\":1.5}",
        "{\"do_sample\":1}",
        "{\"max_new_tokens\":0}",
        "{\"eos_token_id\":\"x\"}",
        "[]",
        "{\"temperature\":NaN}",
        "{\"max_new_tokens\":99999999999}",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(parse(base, wrong[i]), OCTAVO_EINVAL);
        assert_non_null(strstr(err.msg, "generation_config.json"));
    }
    struct buf many = {0};
    buf_puts(&many, "{" LLAMA CORE ",\"eos_token_id\":[");
    for (int i = 0; i < 65; i++)
        buf_printf(&many, "%s%d", i ? "," : "", i);
    buf_puts(&many, "]}");
    assert_int_equal(parse(many.data, NULL), OCTAVO_EINVAL);
    assert_non_null(strstr(err.msg, "more than 64"));
    buf_release(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families),    cmocka_unit_test(dtypes),    cmocka_unit_test(limits),
        cmocka_unit_test(biases),      cmocka_unit_test(rope_yarn), cmocka_unit_test(rope_old_style),
        cmocka_unit_test(rope_nested), cmocka_unit_test(sliding),   cmocka_unit_test(rope_refused),
        cmocka_unit_test(generation),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
