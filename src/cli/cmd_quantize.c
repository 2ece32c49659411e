/* octavo quantize: makes a W8A8C8 checkpoint (or W8A16, W4A8, C8 alone) from a float one, and says what it cost. Main
 * thread; progress comes on it as well. */
#include "cli/cmd_quantize.h"

#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/topology.h"
#include "cli/engine_options.h"
#include "cli/model_path.h"
#include "quantize/quantize.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct quantize_flags {
    const char *model, *output, *calib, *weights, *kv, *lm_head, *smooth, *isa;
    bool kv_asymmetric, overwrite;
    int64_t calib_tokens, window, threads;
};

#define AT(field) .offset = offsetof(struct quantize_flags, field)

static const char *const weight_kinds[] = {"w8a8", "w8a16", "w4a8", "float", NULL}; /* enum quantize_weights */
static const char *const kv_kinds[] = {"c8", "bf16", NULL};
static const char *const head_kinds[] = {"float", "w8a8", NULL};
static const char *const smooth_kinds[] = {"auto", "none", NULL};

static const struct option_spec specs[] = {
    {"model", OPTION_STRING, AT(model), .group = "Folders", .metavar = "DIR",
     .help = "Float checkpoint to quantise; the same as the positional argument. Default: the bundled model."},
    {"o,output", OPTION_STRING, AT(output), .metavar = "DST",
     .help = "Folder to make. It appears when all of it is written, and not before."},
    {"overwrite", OPTION_SWITCH, AT(overwrite), .help = "Replace DST if it is a quantised checkpoint."},
    {"weights", OPTION_CHOICE, AT(weights), .group = "What to quantise", .choices = weight_kinds,
     .help = "w8a8: INT8 weights, and activations quantised by token. w8a16: INT8 weights, float activations. w4a8: "
             "INT4 weights. float: leave them. Default: w8a8."},
    {"kv", OPTION_CHOICE, AT(kv), .choices = kv_kinds,
     .help = "c8: scales for an INT8 KV cache. bf16: none. Default: c8."},
    {"kv-asymmetric", OPTION_SWITCH, AT(kv_asymmetric),
     .help = "Give cache channels offsets as well. Slightly more accurate; some other engines ignore offsets when they "
             "read."},
    {"lm-head", OPTION_CHOICE, AT(lm_head), .choices = head_kinds, .help = "The output layer. Default: float."},
    {"smooth", OPTION_CHOICE, AT(smooth), .choices = smooth_kinds,
     .help = "auto folds outlier channels of activations into norms and weights, by layer, where that lowers the "
             "measured error; the folding itself is exact. Default: auto."},
    {"calib", OPTION_STRING, AT(calib), .group = "Calibration", .metavar = "FILE",
     .help = "Text like what the model will see: plain, .jsonl with \"text\" or \"messages\" on each line, or .json "
             "with an "
             "array of token ids. Default: a small text that comes with octavo."},
    {"calib-tokens", OPTION_INT, AT(calib_tokens), .metavar = "N", .lo = 1, .hi = 1 << 24,
     .help = "Tokens of it to use, spread over the text; their hidden states are kept in memory. Default: 8192."},
    {"window", OPTION_INT, AT(window), .metavar = "N", .lo = 2, .hi = 1 << 16,
     .help = "Tokens of one sequence. Default: 512."},
    {"threads", OPTION_INT, AT(threads), .group = "Engine", .metavar = "N", .lo = 0, .hi = 4096, .zero_word = "auto",
     .help = "Compute threads. Default: one for each usable core."},
    {"isa", OPTION_CHOICE, AT(isa), .choices = cpu_isa_choices,
     .help = "Highest instruction set to use. Default: auto."},
};

static const char intro[] =
    "usage: octavo quantize [SRC] -o DST [flags]\n"
    "\n"
    "Makes a quantised checkpoint, in the ModelSlim layout, that octavo and vLLM on Ascend load without a\n"
    "flag. The float model is run on a text, layer by layer: memory is bounded by one layer (and by the\n"
    "output layer), whatever the size of SRC, and by the hidden states of the text, --calib-tokens times the\n"
    "hidden size times 4 bytes. DST is absent or whole, whenever the run ends.\n"
    "\n"
    "  octavo quantize ./Qwen3-0.6B -o ./Qwen3-0.6B-W8A8C8\n"
    "  octavo quantize ./Qwen3-0.6B -o ./Qwen3-0.6B-C8 --weights float --calib chats.jsonl\n";

static atomic_bool stop;

static void on_interrupt(int sig)
{
    (void)sig;
    atomic_store(&stop, true);
}

/* ---- progress ---- */

struct bar {
    int last_percent;
    bool tty;
};

static void bar_end(const struct bar *b)
{
    if (b->last_percent >= 0 && b->tty)
        fputs("\r\033[K", stderr);
}

static void bar_update(void *arg, uint64_t done, uint64_t total)
{
    struct bar *b = arg;
    int percent = total ? (int)((double)done * 100 / (double)total) : 100;
    percent -= b->tty ? 0 : percent % 10; /* a log gets a line for each tenth */
    if (percent == b->last_percent)
        return;
    b->last_percent = percent;
    if (!b->tty) {
        fprintf(stderr, "quantising: %d%%\n", percent);
        return;
    }
    char line[31];
    for (int i = 0; i < 30; i++)
        line[i] = i < percent * 30 / 100 ? '=' : ' ';
    line[30] = '\0';
    fprintf(stderr, "\r\033[Kquantising [%s] %3d%%", line, percent);
    fflush(stderr);
}

/* ---- summary ---- */

static void percent_print(double v)
{
    if (isnan(v))
        printf("        -");
    else
        printf(" %7.3f%%", v * 100);
}

static double linear_worst(const struct layer_report *l)
{
    double worst = 0;
    for (int m = 0; m < NUM_LAYER_LINEARS; m++)
        worst = fmax(worst, l->linear[m]); /* NAN counts as nothing */
    return worst;
}

static void worst_print(const struct quantize_report *r)
{
    static const char *const names[NUM_LAYER_LINEARS] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                         "gate_proj", "up_proj", "down_proj"};
    bool *named = mem_calloc((size_t)r->num_layers, sizeof(*named));
    for (int i = 0; i < MIN(3, r->num_layers); i++) {
        int worst = -1;
        for (int l = 0; l < r->num_layers; l++)
            if (!named[l] && (worst < 0 || linear_worst(&r->layers[l]) > linear_worst(&r->layers[worst])))
                worst = l;
        double e = linear_worst(&r->layers[worst]);
        named[worst] = true;
        for (int m = 0; m < NUM_LAYER_LINEARS && e > 0; m++)
            if (r->layers[worst].linear[m] == e)
                printf("%s layer %d %s %.3f%%", i ? "," : "worst linears:", worst, names[m], e * 100);
    }
    if (linear_worst(&r->layers[0]) > 0)
        putchar('\n');
    int k = 0, v = 0;
    for (int l = 1; l < r->num_layers; l++) {
        k = r->layers[l].k > r->layers[k].k ? l : k;
        v = r->layers[l].v > r->layers[v].v ? l : v;
    }
    if (!isnan(r->layers[k].k))
        printf("worst caches: layer %d K %.3f%%, layer %d V %.3f%%\n", k, r->layers[k].k * 100, v,
               r->layers[v].v * 100);
    free(named);
}

static void summary_print(const struct quantize_report *r, const char *dst, int64_t tokens)
{
    char before[32], after[32];
    int smoothed = 0;
    printf("Relative error of outputs and caches, on the calibration text (%lld tokens):\n", (long long)tokens);
    printf("layer        q        k        v        o     gate       up     down  K cache  V cache\n");
    for (int i = 0; i < r->num_layers; i++) {
        printf("%5d", i);
        for (int m = 0; m < NUM_LAYER_LINEARS; m++)
            percent_print(r->layers[i].linear[m]);
        percent_print(r->layers[i].k);
        percent_print(r->layers[i].v);
        putchar('\n');
        for (int s = 0; s < 4; s++)
            smoothed += r->layers[i].smoothing[s] < 1;
    }
    if (!isnan(r->lm_head))
        printf("lm_head %.3f%%\n", r->lm_head * 100);
    worst_print(r);
    if (smoothed)
        printf("smoothed: %d of %d inputs\n", smoothed, 4 * r->num_layers);
    printf("%s: %s of weights, from %s\n", dst, format_bytes(after, (double)r->bytes_after),
           format_bytes(before, (double)r->bytes_before));
}

/* ---- the command ---- */

/* The text that comes along lies beside the bundled model, wherever that is. */
static int calib_find(char **ret, struct octavo_error *err)
{
    static const char *const beside[] = {"../share/octavo/models/storyteller-calib.txt",
                                         "../models/storyteller-calib.txt", "models/storyteller-calib.txt"};
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[MAX(n, 0)] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; slash && i < ARRAY_LEN(beside); i++) {
        *ret = path_join(exe, beside[i]);
        if (file_exists(*ret))
            return 0;
        free(*ret);
    }
    return error_set_param(err, OCTAVO_EIO, "calib",
                           "the calibration text that comes with octavo is not where it should be "
                           "(../share/octavo/models/storyteller-calib.txt from the program): name one with --calib");
}

static int choice(const char *word, const char *const *words)
{
    int i = 0;
    while (strcmp(words[i], word))
        i++;
    return i;
}

static int run(const struct quantize_flags *flags, struct octavo_error *err)
{
    struct bar bar = {.last_percent = -1, .tty = isatty(STDERR_FILENO) == 1};
    struct quantize_options opts = {
        .dst = flags->output,
        .weights = (enum quantize_weights)choice(flags->weights, weight_kinds),
        .kv_c8 = !strcmp(flags->kv, "c8"),
        .kv_asymmetric = flags->kv_asymmetric,
        .lm_head_w8a8 = !strcmp(flags->lm_head, "w8a8"),
        .smooth = !strcmp(flags->smooth, "auto"),
        .overwrite = flags->overwrite,
        .calib_tokens = flags->calib_tokens,
        .window = (int)flags->window,
        .threads = flags->threads ? (int)flags->threads : topology_num_cores(),
        .progress = bar_update,
        .progress_arg = &bar,
        .stop = &stop,
    };
    struct quantize_report report = {0};
    char *model = NULL, *calib = NULL;
    int r = 0;
    if (!opts.dst)
        r = error_set(err, OCTAVO_EINVAL, "say where the checkpoint goes: -o DST");
    else if (opts.kv_asymmetric && !opts.kv_c8)
        r = error_set(err, OCTAVO_EINVAL, "--kv-asymmetric is for --kv c8");
    cpu_isa_parse(flags->isa, &opts.isa);
    if (r == 0)
        r = model_path_find(flags->model, &model, err);
    if (r == 0)
        r = flags->calib ? (calib = mem_strdup(flags->calib), 0) : calib_find(&calib, err);
    if (r == 0) {
        opts.src = model;
        opts.calib = calib;
        signal(SIGINT, on_interrupt);
        signal(SIGTERM, on_interrupt);
        r = quantize(&opts, &report, err);
        bar_end(&bar);
    }
    if (r == 0) {
        summary_print(&report, opts.dst, report.calib_tokens);
        if (fflush(stdout) != 0 || ferror(stdout))
            r = error_set(err, OCTAVO_EIO, "cannot write to standard output");
    }
    quantize_report_release(&report);
    free(model);
    free(calib);
    return r;
}

int cmd_quantize(int argc, char **argv)
{
    struct quantize_flags flags = {.weights = "w8a8",
                                   .kv = "c8",
                                   .lm_head = "float",
                                   .smooth = "auto",
                                   .isa = "auto",
                                   .calib_tokens = 8192,
                                   .window = 512};
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
        r = run(&flags, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo quantize: %s\n", err.msg);
    option_list_release(&words);
    return r == 0 ? 0 : atomic_load(&stop) ? 130 : 1;
}
