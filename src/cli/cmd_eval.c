/* octavo eval: perplexity of a model on a text and, against a reference, what its weights and its cache cost: KL
 * divergence, agreement, perplexity ratio. Flags, progress, and the two forms of the answer. Main thread. */
#include "cli/cmd_eval.h"

#include "base/cpu.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/engine_options.h"
#include "cli/input.h"
#include "cli/model_path.h"
#include "cli/options.h"
#include "cli/output.h"
#include "quantize/eval_text.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct eval_flags {
    const char *model, *against, *text, *tokenizer, *json, *isa, *log_level;
    const char *kv_cache_dtype, *against_kv_cache_dtype, *quantization, *against_quantization;
    int64_t window, stride, max_tokens, threads, batch;
};

#define AT(field) .offset = offsetof(struct eval_flags, field)

static const char *const kv_dtypes[] = {"auto", "bfloat16", "float16", "float32", "int8", NULL};
static const char *const quantizations[] = {"none", "w8a8", NULL};
static const char *const log_levels[] = {"debug", "info", "warning", "error", "off", NULL};

static const struct option_spec specs[] = {
    {"model", OPTION_STRING, AT(model), .group = "Model", .metavar = "DIR",
     .help = "Checkpoint to judge; the same as the positional argument. Default: the bundled model."},
    {"kv-cache-dtype", OPTION_CHOICE, AT(kv_cache_dtype), .choices = kv_dtypes,
     .help =
         "Number type of its KV cache. Default: auto, which is int8 where the checkpoint brings C8 scales, else its "
         "own type."},
    {"quantization", OPTION_CHOICE, AT(quantization), .choices = quantizations,
     .help = "w8a8 quantises the linears of a float checkpoint while it loads. Default: none."},
    {"tokenizer", OPTION_STRING, AT(tokenizer), .metavar = "DIR",
     .help = "Folder of the tokenizer that cuts the text for both. Default: each model's own, which must agree."},

    {"against", OPTION_STRING, AT(against), .group = "Reference", .metavar = "DIR",
     .help = "Checkpoint to compare with; may be MODEL itself with another cache. Default: none, perplexity alone."},
    {"against-kv-cache-dtype", OPTION_CHOICE, AT(against_kv_cache_dtype), .choices = kv_dtypes,
     .help = "Number type of the reference's KV cache. Default: auto."},
    {"against-quantization", OPTION_CHOICE, AT(against_quantization), .choices = quantizations,
     .help = "The same as --quantization, for the reference. Default: none."},

    {"text,f", OPTION_STRING, AT(text), .group = "Text", .metavar = "FILE",
     .help =
         "The text: UTF-8, or with the name ending in .jsonl an object with \"text\" on each line, a document each. "
         "- is standard input. Required."},
    {"window", OPTION_INT, AT(window), .metavar = "N", .lo = 2, .hi = EVAL_MAX_WINDOW,
     .help = "Tokens of a window. Default: 512."},
    {"stride", OPTION_INT, AT(stride), .metavar = "N", .lo = 1, .hi = EVAL_MAX_WINDOW,
     .help = "Tokens from the beginning of a window to that of the next, at most the window. Default: the window."},
    {"max-tokens", OPTION_INT, AT(max_tokens), .metavar = "N", .lo = 1, .hi = INT64_MAX,
     .help = "Use the first N tokens of the text. Default: all."},

    {"json", OPTION_STRING, AT(json), .group = "Output", .metavar = "FILE",
     .help = "Also write one JSON object with everything, each position included; - is standard output, in place of "
             "the summary."},
    {"log-level", OPTION_CHOICE, AT(log_level), .choices = log_levels,
     .help = "Least important messages to print. Default: info."},

    {"threads", OPTION_INT, AT(threads), .group = "Engine", .metavar = "N", .lo = 0, .hi = 1024, .zero_word = "auto",
     .help = "Compute threads; the numbers do not depend on it. Default: one for each usable core."},
    {"batch", OPTION_INT, AT(batch), .metavar = "N", .lo = 0, .hi = EVAL_MAX_BATCH, .zero_word = "auto",
     .help = "Windows computed together; the numbers do not depend on it. Default: as many as make 2,048 tokens."},
    {"isa", OPTION_CHOICE, AT(isa), .choices = cpu_isa_choices,
     .help = "Highest instruction set to use; the numbers do not depend on it. Default: the environment's OCTAVO_ISA, "
             "or the best there is."},
};

static const char intro[] =
    "usage: octavo eval [MODEL] [--against REF] --text FILE [flags]\n"
    "\n"
    "Measures the perplexity of MODEL on a text and, with --against, how far its predictions are from\n"
    "those of REF: what a number type of weights or cache costs. The same tokens, one forward pass each.\n"
    "\n"
    "  octavo eval --text heldout.txt\n"
    "  octavo eval ./Qwen3-W8A8C8 --against ./Qwen3 --text heldout.txt --json eval.json\n"
    "  octavo eval ./Qwen3-C8 --against ./Qwen3-C8 --against-kv-cache-dtype bfloat16 --text heldout.txt\n"
    "\n"
    "What is measured. The text becomes tokens (with bos, where the tokenizer adds it), and the tokens\n"
    "windows of --window tokens, the last one perhaps shorter. Each window is a prompt of its own: it\n"
    "begins at position 0 with an empty cache. Its token t is predicted from its tokens 0 to t-1, so the\n"
    "first is not; a window of 512 counts 511 times. With --stride below --window, windows overlap, and\n"
    "a token counts in the first that predicts it. Logits cover the model's whole vocabulary, and\n"
    "everything after them is computed in double precision, in nats:\n"
    "  NLL         -log p(token) at a position; perplexity is exp of its mean over all positions\n"
    "  KLD         sum over the vocabulary of p_REF (log p_REF - log p_MODEL) at a position; percentiles\n"
    "              are interpolated linearly\n"
    "  agreement   share of positions where both find the same token likeliest\n";

/* ---- progress ---- */

struct eval_progress {
    struct load_progress load;
    struct timespec start;
    int last_percent;
    bool tty, started;
};

static double seconds_since(const struct timespec *t0)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(t.tv_sec - t0->tv_sec) + 1e-9 * (double)(t.tv_nsec - t0->tv_nsec);
}

static void on_load(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    struct eval_progress *p = arg;
    load_progress_update(&p->load, phase, done, total);
}

static void on_eval(void *arg, uint64_t done, uint64_t total)
{
    struct eval_progress *p = arg;
    if (!p->started)
        return;
    int percent = (int)((double)done * 100 / (double)total);
    if (percent == p->last_percent)
        return;
    double seconds = seconds_since(&p->start), rate = seconds > 0 ? (double)done / seconds : 0;
    if (p->tty) {
        char bar[31];
        for (int i = 0; i < 30; i++)
            bar[i] = i < percent * 30 / 100 ? '=' : ' ';
        bar[30] = '\0';
        fprintf(stderr, "\r\033[K%-20s [%s] %3d%%  %" PRIu64 " / %" PRIu64 " tokens, %.0f tokens/s, %.0f s left%s",
                "evaluating", bar, percent, done, total, rate, rate > 0 ? (double)(total - done) / rate : 0.0,
                done == total ? "\n" : "");
        fflush(stderr);
    } else if (percent / 25 != p->last_percent / 25) {
        log_info("evaluating: %" PRIu64 " of %" PRIu64 " tokens, %.0f tokens/s", done, total, rate);
    }
    p->last_percent = percent;
}

static void progress_start(struct eval_progress *p)
{
    load_progress_end(&p->load);
    clock_gettime(CLOCK_MONOTONIC, &p->start);
    p->tty = isatty(STDERR_FILENO) == 1;
    p->started = true;
}

/* ---- for people ---- */

static void print_side(FILE *f, const char *title, const char *path, const struct eval_side_info *info,
                       double perplexity, double mean_nll)
{
    char a[32], b[32];
    fprintf(f, "%-12s%s: %s, %s weights (%s), %s cache (%s per token)\n", title, path, info->architecture,
            info->weights, format_bytes(a, (double)info->weights_bytes), info->kv_cache_dtype,
            format_bytes(b, (double)info->kv_bytes_per_token));
    fprintf(f, "%-12sperplexity %.4f, mean NLL %.6f nats\n", "", perplexity, mean_nll);
}

static void print_summary(FILE *f, const struct eval_flags *flags, const char *model, const struct eval *eval,
                          const struct eval_result *res, size_t num_documents, double seconds)
{
    fprintf(f, "%-12s%s: %" PRId64 " tokens", "text", flags->text, res->num_tokens);
    if (num_documents > 1)
        fprintf(f, " in %zu documents", num_documents);
    fprintf(f, ", %" PRId64 " windows of at most %" PRId64 ", %" PRId64 " tokens predicted\n", res->num_windows,
            flags->window, res->num_positions);
    print_side(f, "model", model, eval_side_info(eval, 0), res->perplexity, res->mean_nll);
    if (res->kld) {
        print_side(f, "reference", flags->against, eval_side_info(eval, 1), res->against_perplexity,
                   res->against_mean_nll);
        fprintf(f, "%-12sperplexity ratio %.6f (model / reference)\n", "difference", res->perplexity_ratio);
        fprintf(f, "%-12sKLD mean %.3e, median %.3e, 99.9%% %.3e, max %.3e nats\n", "", res->kld_mean, res->kld_median,
                res->kld_p999, res->kld_max);
        fprintf(f, "%-12stop-1 agreement %.3f%%\n", "", 100 * res->top1_agreement);
    }
    fprintf(f, "%-12s%.1f s, %.0f tokens/s\n", "time", seconds, (double)res->num_positions / seconds);
}

/* ---- for programs ---- */

static void write_string(FILE *f, const char *key, const char *value)
{
    struct buf b = {0};
    json_write_string(&b, value, strlen(value));
    fprintf(f, "\"%s\": %s", key, buf_str(&b));
    buf_release(&b);
}

static void write_number(FILE *f, const char *before, double x)
{
    if (isfinite(x))
        fprintf(f, "%s%.17g", before, x);
    else
        fprintf(f, "%snull", before);
}

static void write_array(FILE *f, const char *key, const double *x, int64_t n)
{
    fprintf(f, ", \"%s\": [", key);
    for (int64_t i = 0; i < n; i++)
        write_number(f, i ? ", " : "", x[i]);
    fputc(']', f);
}

static void write_side(FILE *f, const char *key, const char *path, const struct eval_side_info *info, double perplexity,
                       double mean_nll)
{
    fprintf(f, "\"%s\": {", key);
    write_string(f, "path", path);
    const struct {
        const char *key, *value;
    } words[] = {
        {"architecture", info->architecture}, {"weights", info->weights}, {"kv_cache_dtype", info->kv_cache_dtype}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        fputs(", ", f);
        write_string(f, words[i].key, words[i].value);
    }
    fprintf(f, ", \"weights_bytes\": %" PRId64 ", \"kv_bytes_per_token\": %" PRId64, info->weights_bytes,
            info->kv_bytes_per_token);
    write_number(f, ", \"perplexity\": ", perplexity);
    write_number(f, ", \"mean_nll\": ", mean_nll);
    fputs("},\n ", f);
}

static void write_window(FILE *f, const struct eval_result *res, const struct eval_text *text, int64_t i)
{
    const struct eval_window *w = &res->windows[i];
    int64_t n = w->end - w->first_predicted, at = w->first_position;
    fprintf(f,
            "%s\n  {\"document\": %" PRId64 ", \"begin\": %" PRId64 ", \"end\": %" PRId64
            ", \"first_predicted\": %" PRId64 ", \"token_ids\": [",
            i ? "," : "", w->document, w->begin, w->end, w->first_predicted);
    for (int64_t t = w->first_predicted; t < w->end; t++)
        fprintf(f, "%s%d", t > w->first_predicted ? ", " : "", (int)text->documents[w->document].ids[t]);
    fputc(']', f);
    write_array(f, "nll", res->nll + at, n);
    if (res->kld) {
        write_array(f, "against_nll", res->against_nll + at, n);
        write_array(f, "kld", res->kld + at, n);
        fputs(", \"same_top1\": [", f);
        for (int64_t t = 0; t < n; t++)
            fprintf(f, "%s%s", t ? ", " : "", res->same_top[at + t] ? "true" : "false");
        fputc(']', f);
    }
    fputc('}', f);
}

/* Nothing here depends on the machine or the time, so that two runs can be compared with cmp. */
static void write_json(FILE *f, const struct eval_flags *flags, const char *model, const struct eval *eval,
                       const struct eval_result *res, const struct eval_text *text)
{
    fputs("{", f);
    write_string(f, "text", flags->text);
    fprintf(f,
            ",\n \"window\": %" PRId64 ", \"stride\": %" PRId64 ", \"num_documents\": %zu, \"num_tokens\": %" PRId64
            ", \"num_windows\": %" PRId64 ", \"num_positions\": %" PRId64 ",\n ",
            flags->window, flags->stride ? flags->stride : flags->window, text->num_documents, res->num_tokens,
            res->num_windows, res->num_positions);
    write_side(f, "model", model, eval_side_info(eval, 0), res->perplexity, res->mean_nll);
    if (res->kld) {
        write_side(f, "against", flags->against, eval_side_info(eval, 1), res->against_perplexity,
                   res->against_mean_nll);
        write_number(f, "\"perplexity_ratio\": ", res->perplexity_ratio);
        write_number(f, ",\n \"kld\": {\"mean\": ", res->kld_mean);
        write_number(f, ", \"median\": ", res->kld_median);
        write_number(f, ", \"p999\": ", res->kld_p999);
        write_number(f, ", \"max\": ", res->kld_max);
        write_number(f, "},\n \"top1_agreement\": ", res->top1_agreement);
        fputs(",\n ", f);
    }
    fputs("\"windows\": [", f);
    for (int64_t i = 0; i < res->num_windows; i++)
        write_window(f, res, text, i);
    fputs("]}\n", f);
}

/* ---- the command ---- */

static int text_open(const struct eval_flags *flags, const char *model, struct eval_text *ret, struct octavo_error *err)
{
    struct buf text = {0};
    struct tokenizer *tok = NULL, *against = NULL;
    size_t len = strlen(flags->text);
    bool jsonl = len > 6 && !strcmp(flags->text + len - 6, ".jsonl");
    const char *file = strcmp(flags->text, "-") ? flags->text : NULL;
    int r;
    if ((r = input_read(NULL, file, &text, err)) < 0 ||
        (r = tokenizer_open(flags->tokenizer ? flags->tokenizer : model, &tok, err)) < 0)
        goto out;
    if (flags->against && !flags->tokenizer && (r = tokenizer_open(flags->against, &against, err)) < 0)
        goto out;
    r = eval_text_read(buf_str(&text), text.len, file ? file : "standard input", jsonl, flags->max_tokens, tok, against,
                       ret, err);
out:
    tokenizer_free(tok);
    tokenizer_free(against);
    buf_release(&text);
    return r;
}

static int flags_check(const struct eval_flags *flags, struct octavo_error *err)
{
    enum log_level level;
    if (log_level_parse(flags->log_level, &level))
        return error_set(err, OCTAVO_EINVAL, "unknown --log-level %s", flags->log_level);
    log_set_level(level);
    if (!flags->text)
        return error_set_param(err, OCTAVO_EINVAL, "text",
                               "no text: name a file with --text FILE (- is standard input)");
    if (flags->stride > flags->window)
        return error_set_param(err, OCTAVO_EINVAL, "stride",
                               "--stride %" PRId64 " is more than --window %" PRId64
                               ": tokens between would be left out",
                               flags->stride, flags->window);
    if (!flags->against && (flags->against_kv_cache_dtype || flags->against_quantization))
        return error_set_param(err, OCTAVO_EINVAL, "against",
                               "--against-kv-cache-dtype and --against-quantization need --against REF; to compare a "
                               "model with itself, name it there as well");
    return 0;
}

static int evaluate(const struct eval_flags *flags, struct octavo_error *err)
{
    char *model = NULL;
    struct eval_text text = {0};
    struct eval *eval = NULL;
    struct eval_result res = {0};
    struct eval_progress progress = {.last_percent = -1};
    struct output json = {0};
    int r;
    if ((r = flags_check(flags, err)) < 0 || (r = model_path_find(flags->model, &model, err)) < 0 ||
        (r = text_open(flags, model, &text, err)) < 0 || (r = output_open(&json, "--json", flags->json, err)) < 0)
        goto out;
    const struct eval_options opts = {
        .model = {model, flags->kv_cache_dtype, flags->quantization},
        .against = {flags->against, flags->against_kv_cache_dtype, flags->against_quantization},
        .isa = flags->isa,
        .num_threads = (int)flags->threads,
        .window = (int)flags->window,
        .stride = (int)flags->stride,
        .batch = (int)flags->batch,
        .load_progress = on_load,
        .progress = on_eval,
        .progress_arg = &progress,
    };
    if ((r = eval_open(&opts, &eval, err)) < 0)
        goto out;
    progress_start(&progress);
    if ((r = eval_run(eval, text.documents, text.num_documents, &res, err)) < 0)
        goto out;
    double seconds = seconds_since(&progress.start);
    if (json.path) {
        FILE *f = output_begin(&json, err);
        if (f)
            write_json(f, flags, model, eval, &res, &text);
        r = f ? output_finish(&json, err) : OCTAVO_EIO;
    }
    if (r == 0 && json.f != stdout) {
        print_summary(stdout, flags, model, eval, &res, text.num_documents, seconds);
        if (fflush(stdout) || ferror(stdout))
            r = error_set(err, OCTAVO_EIO, "cannot write to standard output: %s", strerror(errno));
    }
out:
    load_progress_end(&progress.load);
    output_close(&json, r < 0);
    eval_result_release(&res);
    eval_close(eval);
    eval_text_release(&text);
    free(model);
    return r;
}

int cmd_eval(int argc, char **argv)
{
    struct eval_flags flags = {.log_level = "info", .window = 512};
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
        r = evaluate(&flags, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo eval: %s\n", err.msg);
    option_list_release(&words);
    return r < 0 ? 1 : 0;
}
