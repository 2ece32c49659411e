/* octavo inspect: reads and checks what serving would (config, weights, tokenizer, chat template), and prints the
 * model, its tensors by type and the memory it needs. No weight is loaded. Main thread. */
#include "cli/cmd_inspect.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "cli/inspect_summary.h"
#include "cli/model_path.h"
#include "cli/options.h"
#include "model/kv_cache.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 32 /* the default: KV bytes are whole blocks */
#define UNUSED_SHOWN 10

struct inspect_flags {
    const char *model, *load_format;
    bool json, skip_tokenizer;
};

#define AT(field) .offset = offsetof(struct inspect_flags, field)

static const char *const load_formats[] = {"auto", "dummy", NULL};

static const struct option_spec specs[] = {
    {"model", OPTION_STRING, AT(model), .group = "Model", .metavar = "DIR",
     .help = "Checkpoint folder; the same as the positional argument. Default: the bundled model."},
    {"load-format", OPTION_CHOICE, AT(load_format), .choices = load_formats,
     .help = "auto reads the weights; dummy looks at config.json alone. Default: auto."},
    {"skip-tokenizer-init", OPTION_SWITCH, AT(skip_tokenizer),
     .help = "Do not look at the tokenizer and the chat template."},
    {"json", OPTION_SWITCH, AT(json), .group = "Output",
     .help = "Print one JSON object, for programs. Sizes are in bytes."},
};

static const char intro[] =
    "usage: octavo inspect [MODEL] [flags]\n"
    "\n"
    "Reads and checks everything that serving would, and prints the model, its tensors by type and\n"
    "the memory it will need. The exit code is 1 when serving would refuse the model; the message\n"
    "says why.\n"
    "\n"
    "  octavo inspect ./Qwen3-0.6B\n"
    "  octavo inspect ./Qwen3-0.6B --json\n";

/* ---- KV cache ---- */

static const struct {
    const char *name;
    enum dtype dtype;
} kv_types[] = {{"bfloat16", DTYPE_BF16}, {"float16", DTYPE_F16}, {"float32", DTYPE_F32}, {"int8", DTYPE_I8}};

/* Of all layers. A checkpoint with scales for some layers keeps the others in its own type when int8 is asked for. */
static uint64_t kv_block_bytes(const struct checkpoint *ck, const struct summary *s, enum dtype dtype)
{
    const struct model_config *c = checkpoint_config(ck);
    enum dtype dtypes[CONFIG_MAX_LAYERS];
    for (int i = 0; i < c->num_hidden_layers; i++) {
        bool narrow = dtype == DTYPE_I8 && (checkpoint_kv_scales(ck, i) || !s->num_int8_layers);
        dtypes[i] = dtype != DTYPE_I8 ? dtype : narrow ? DTYPE_I8 : c->dtype;
    }
    return kv_cache_block_bytes(dtypes, c->num_hidden_layers, c->num_key_value_heads, c->head_dim, BLOCK_SIZE);
}

static uint64_t kv_context_bytes(const struct checkpoint *ck, const struct summary *s, enum dtype dtype)
{
    int64_t blocks = (checkpoint_config(ck)->max_model_len + BLOCK_SIZE - 1) / BLOCK_SIZE;
    return kv_block_bytes(ck, s, dtype) * (uint64_t)blocks;
}

/* ---- for people ---- */

static const char *human_bytes(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < ARRAY_LEN(units)) {
        v /= 1024;
        u++;
    }
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

static const char *human_count(uint64_t n, char out[32])
{
    static const char *const units[] = {"", "K", "M", "B", "T"};
    double v = (double)n;
    size_t u = 0;
    while (v >= 1000 && u + 1 < ARRAY_LEN(units)) {
        v /= 1000;
        u++;
    }
    snprintf(out, 32, u ? "%.2f%s" : "%.0f%s", v, units[u]);
    return out;
}

static const char *rope_name(enum rope_type type)
{
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic",
        [ROPE_LLAMA3] = "llama3",   [ROPE_YARN] = "yarn",
    };
    return names[type];
}

static int count_sliding(const struct model_config *c)
{
    int n = 0;
    for (int i = 0; i < c->num_hidden_layers; i++)
        n += c->layer_types[i] == LAYER_SLIDING_ATTENTION;
    return n;
}

static void print_rope(const char *label, const struct rope_params *p)
{
    printf("%s%s, theta %g", label, rope_name(p->type), p->theta);
    if (p->type != ROPE_DEFAULT)
        printf(", factor %g", p->factor);
    if (p->type == ROPE_LLAMA3 || p->type == ROPE_YARN)
        printf(", from %" PRId64 " tokens", p->original_max_position_embeddings);
    putchar('\n');
}

static bool rope_same(const struct rope_params *a, const struct rope_params *b)
{
    return a->type == b->type && a->theta == b->theta && a->factor == b->factor &&
           a->original_max_position_embeddings == b->original_max_position_embeddings;
}

static void print_model(const struct checkpoint *ck, const struct summary *s)
{
    const struct model_config *c = checkpoint_config(ck);
    char a[32];
    printf("%s  %s\n\n", c->architecture, checkpoint_dir(ck));
    printf("  parameters    %s\n", human_count(s->num_params, a));
    printf("  layers        %d, hidden %d, feed-forward %d\n", c->num_hidden_layers, c->hidden_size,
           c->intermediate_size);
    printf("  attention     %d heads, %d KV heads, head_dim %d%s\n", c->num_attention_heads, c->num_key_value_heads,
           c->head_dim, checkpoint_find(ck, "model.layers.0.self_attn.q_norm.weight") ? ", q and k norms" : "");
    int sliding = count_sliding(c), first = c->layer_types[0];
    if (sliding)
        printf("  sliding       %d of %d layers see %" PRId64 " tokens\n", sliding, c->num_hidden_layers,
               c->sliding_window);
    if (sliding && sliding < c->num_hidden_layers &&
        !rope_same(&c->rope[LAYER_FULL_ATTENTION], &c->rope[LAYER_SLIDING_ATTENTION])) {
        print_rope("  RoPE, full    ", &c->rope[LAYER_FULL_ATTENTION]);
        print_rope("  RoPE, sliding ", &c->rope[LAYER_SLIDING_ATTENTION]);
    } else {
        print_rope("  RoPE          ", &c->rope[first]);
    }
    printf("  context       %" PRId64 " tokens\n", c->max_model_len);
    printf("  vocabulary    %d, embedding %s\n", c->vocab_size, s->tied ? "tied to the output layer" : "not tied");
    if (s->tokenizer_size >= 0)
        printf("  tokenizer     %d ids\n", s->tokenizer_size);
    else
        printf("  tokenizer     none: serve with --skip-tokenizer-init\n");
}

static void print_tensors(const struct checkpoint *ck, const struct summary *s)
{
    char a[32];
    printf("\nTensors\n");
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (s->types[i].count)
            printf("  %-12s  %zu, %s\n", dtype_name((enum dtype)i), s->types[i].count,
                   human_bytes(s->types[i].bytes, a));
    size_t n = checkpoint_num_unused(ck);
    if (!n)
        return;
    printf("  unused        %zu, %s: this architecture has no such tensors\n", n, human_bytes(s->unused_bytes, a));
    for (size_t i = 0; i < MIN(n, (size_t)UNUSED_SHOWN); i++)
        printf("                %s\n", checkpoint_unused(ck, i)->name);
    if (n > UNUSED_SHOWN)
        printf("                and %zu more\n", n - UNUSED_SHOWN);
}

/* Nothing for a float checkpoint. */
static void print_quantisation(const struct checkpoint *ck, const struct summary *s)
{
    if (!strcmp(checkpoint_format(ck), "float"))
        return;
    printf("\nQuantisation\n  format        %s\n  linears       ", checkpoint_format(ck));
    for (size_t i = 0; i < s->num_kinds; i++)
        printf("%s%zu %s", i ? ", " : "", s->kinds[i].count, s->kinds[i].name);
    if (!s->num_int8_layers) {
        printf("\n  KV cache      float: the checkpoint has no scales for it\n");
        return;
    }
    struct buf layers = {0}, asymmetric = {0};
    summary_layers(ck, summary_layer_int8, false, &layers);
    summary_layers(ck, summary_layer_asymmetric, false, &asymmetric);
    printf("\n  KV cache      int8 (C8) in %s %s of %d", s->num_int8_layers == 1 ? "layer" : "layers", layers.data,
           checkpoint_config(ck)->num_hidden_layers);
    if (!s->num_asymmetric_layers)
        printf(", symmetric\n");
    else if (s->num_asymmetric_layers == s->num_int8_layers)
        printf(", asymmetric\n");
    else
        printf("; asymmetric in %s, symmetric in the others\n", asymmetric.data);
    buf_release(&layers);
    buf_release(&asymmetric);
}

static void print_memory(const struct checkpoint *ck, const struct summary *s)
{
    char a[32], b[32];
    printf("\nMemory\n");
    printf("  weights       %s packed, and the embedding's %s\n", human_bytes(s->packed_bytes, a),
           human_bytes(s->embedding_bytes, b));
    for (size_t i = 0; i < ARRAY_LEN(kv_types); i++)
        printf("  KV %-9s  %s per token, %s for one full context\n", kv_types[i].name,
               human_bytes(kv_block_bytes(ck, s, kv_types[i].dtype) / BLOCK_SIZE, a),
               human_bytes(kv_context_bytes(ck, s, kv_types[i].dtype), b));
}

/* ---- for programs ---- */

static void json_rope(struct buf *out, const struct rope_params *p)
{
    buf_printf(out, "{\"rope_type\": \"%s\", \"rope_theta\": %.17g, \"factor\": %.17g, \"attention_factor\": %.17g, ",
               rope_name(p->type), p->theta, p->factor, p->attention_factor);
    buf_printf(out, "\"original_max_position_embeddings\": %" PRId64 "}", p->original_max_position_embeddings);
}

static void json_tensors(struct buf *out, const struct checkpoint *ck, const struct summary *s)
{
    const char *sep = "";
    buf_puts(out, "\"tensors\": {");
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (!s->types[i].count)
            continue;
        buf_printf(out, "%s\"%s\": {\"count\": %zu, \"elements\": %" PRIu64 ", \"bytes\": %" PRIu64 "}", sep,
                   dtype_name((enum dtype)i), s->types[i].count, s->types[i].elements, s->types[i].bytes);
        sep = ", ";
    }
    buf_puts(out, "}, \"unused_tensors\": [");
    for (size_t i = 0; i < checkpoint_num_unused(ck); i++) {
        const struct tensor *t = checkpoint_unused(ck, i);
        buf_puts(out, i ? ", " : "");
        json_write_string(out, t->name, strlen(t->name));
    }
    buf_puts(out, "]");
}

static void json_quantisation(struct buf *out, const struct checkpoint *ck, const struct summary *s)
{
    buf_printf(out, "\"quantization\": {\"format\": \"%s\", \"linears\": {", checkpoint_format(ck));
    for (size_t i = 0; i < s->num_kinds; i++)
        buf_printf(out, "%s\"%s\": %zu", i ? ", " : "", s->kinds[i].name, s->kinds[i].count);
    buf_puts(out, "}, \"int8_kv_layers\": [");
    summary_layers(ck, summary_layer_int8, true, out);
    buf_puts(out, "], \"asymmetric_kv_layers\": [");
    summary_layers(ck, summary_layer_asymmetric, true, out);
    buf_puts(out, "]}, ");
}

static void print_json(const struct checkpoint *ck, const struct summary *s)
{
    const struct model_config *c = checkpoint_config(ck);
    struct buf out = {0};
    buf_puts(&out, "{\"path\": ");
    json_write_string(&out, checkpoint_dir(ck), strlen(checkpoint_dir(ck)));
    buf_printf(&out, ", \"architecture\": \"%s\", \"dtype\": \"%s\", \"num_parameters\": %" PRIu64 ", ",
               c->architecture, dtype_name(c->dtype), s->num_params);
    buf_printf(&out, "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, ", c->hidden_size,
               c->intermediate_size, c->num_hidden_layers);
    buf_printf(&out, "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d, ",
               c->num_attention_heads, c->num_key_value_heads, c->head_dim, c->vocab_size);
    buf_printf(&out, "\"max_model_len\": %" PRId64 ", \"sliding_window\": %" PRId64 ", \"num_sliding_layers\": %d, ",
               c->max_model_len, c->sliding_window, count_sliding(c));
    buf_printf(&out, "\"tied_embeddings\": %s, \"eos_token_ids\": [", s->tied ? "true" : "false");
    for (int i = 0; i < c->num_eos_token_ids; i++)
        buf_printf(&out, "%s%d", i ? ", " : "", (int)c->eos_token_ids[i]);
    buf_puts(&out, "], \"rope\": {\"full_attention\": ");
    json_rope(&out, &c->rope[LAYER_FULL_ATTENTION]);
    buf_puts(&out, ", \"sliding_attention\": ");
    json_rope(&out, &c->rope[LAYER_SLIDING_ATTENTION]);
    buf_puts(&out, "}, \"tokenizer_size\": ");
    if (s->tokenizer_size >= 0)
        buf_printf(&out, "%d, ", (int)s->tokenizer_size);
    else
        buf_puts(&out, "null, ");
    json_quantisation(&out, ck, s);
    json_tensors(&out, ck, s);
    buf_printf(
        &out, ", \"memory\": {\"packed_weights_bytes\": %" PRIu64 ", \"embedding_bytes\": %" PRIu64 ", \"kv_cache\": {",
        s->packed_bytes, s->embedding_bytes);
    for (size_t i = 0; i < ARRAY_LEN(kv_types); i++)
        buf_printf(&out, "%s\"%s\": {\"bytes_per_token\": %" PRIu64 ", \"full_context_bytes\": %" PRIu64 "}",
                   i ? ", " : "", kv_types[i].name, kv_block_bytes(ck, s, kv_types[i].dtype) / BLOCK_SIZE,
                   kv_context_bytes(ck, s, kv_types[i].dtype));
    buf_puts(&out, "}}}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&out);
}

/* ---- the command ---- */

/* Opens the text side as serving would. A folder without tokenizer.json is not refused here: it can be served by ids.
 */
static int check_text(const char *dir, int32_t *ret_size, struct octavo_error *err)
{
    struct tokenizer *tok = NULL;
    struct chat_template *template = NULL;
    char *path = path_join(dir, "tokenizer.json");
    int r = 0;
    if (file_exists(path)) {
        r = tokenizer_open(dir, &tok, err);
        if (r == 0)
            *ret_size = tokenizer_vocab_size(tok);
        if (r == 0)
            r = chat_template_open(dir, NULL, tok, &template, err);
    }
    chat_template_free(template);
    tokenizer_free(tok);
    free(path);
    return r;
}

static int inspect(const struct inspect_flags *flags, struct octavo_error *err)
{
    char *dir = NULL;
    struct checkpoint *ck = NULL;
    struct summary s = {.tokenizer_size = -1};
    bool dummy = flags->load_format && !strcmp(flags->load_format, "dummy");
    int r;
    if ((r = model_path_find(flags->model, &dir, err)) < 0 ||
        (r = checkpoint_open(dir, dummy ? LOAD_DUMMY : LOAD_AUTO, 0, &ck, err)) < 0)
        goto out;
    if (!flags->skip_tokenizer && (r = check_text(dir, &s.tokenizer_size, err)) < 0)
        goto out;
    summary_count(ck, &s);
    if (flags->json) {
        print_json(ck, &s);
    } else {
        print_model(ck, &s);
        print_tensors(ck, &s);
        print_quantisation(ck, &s);
        print_memory(ck, &s);
    }
out:
    checkpoint_free(ck);
    free(dir);
    return r;
}

int cmd_inspect(int argc, char **argv)
{
    struct inspect_flags flags = {0};
    const struct option_set sets[] = {{specs, ARRAY_LEN(specs), &flags}};
    struct option_list words = {0};
    struct octavo_error err = {0};
    int r = options_parse(sets, ARRAY_LEN(sets), argc, argv, &words, 1, &err);
    if (r == 1) {
        fputs(intro, stdout);
        options_print_help(stdout, sets, ARRAY_LEN(sets));
        r = 0;
    } else if (r == 0) {
        if (words.len)
            flags.model = words.items[0];
        r = inspect(&flags, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo inspect: %s\n", err.msg);
    option_list_release(&words);
    return r < 0 ? 1 : 0;
}
