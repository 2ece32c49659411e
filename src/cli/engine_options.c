/* Model and engine flags: see engine_options.h. Main thread, except that progress is called where the engine loads. */
#include "cli/engine_options.h"

#include "base/cpu.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void engine_flags_init(struct engine_flags *flags)
{
    *flags = (struct engine_flags){
        .load_format = "auto",
        .kv_cache_dtype = "auto",
        .isa = "auto",
        .generation_config = "auto",
        .log_level = "info",
        .max_logprobs = 20,
        .enable_prefix_caching = true,
    };
}

static const char *const load_formats[] = {"auto", "safetensors", "dummy", NULL};
static const char *const kv_dtypes[] = {"auto", "bfloat16", "float16", "float32", "int8", NULL};
static const char *const quantizations[] = {"none", "w8a8", "ascend", "compressed-tensors", NULL};
static const char *const generation_configs[] = {"auto", "vllm", NULL};
static const char *const log_levels[] = {"debug", "info", "warning", "error", "off", NULL};

#define AT(field) .offset = offsetof(struct engine_flags, field)
#define GPU_ONLY "octavo runs on CPUs"

static const struct option_spec specs[] = {
    {"model", OPTION_STRING, AT(model), .group = "Model", .metavar = "DIR",
     .help = "Folder of the checkpoint; the same as the positional argument. Default: the bundled model."},
    {"tokenizer", OPTION_STRING, AT(tokenizer), .metavar = "DIR",
     .help = "Folder with another tokenizer.json. Default: the model's."},
    {"skip-tokenizer-init", OPTION_SWITCH, AT(skip_tokenizer_init),
     .help = "Load no tokenizer: prompts are token ids, and answers are too."},
    {"load-format", OPTION_CHOICE, AT(load_format), .choices = load_formats,
     .help = "dummy makes random weights from config.json alone, the same for the same --seed. Default: auto."},
    {"max-model-len", OPTION_INT, AT(max_model_len), .metavar = "N", .lo = -1, .hi = 1ll << 31, .zero_word = "auto",
     .help = "Longest prompt plus answer, in tokens (32k and 32K work). Default: what the checkpoint allows."},
    {"generation-config", OPTION_CHOICE, AT(generation_config), .choices = generation_configs,
     .help = "Where default sampling values come from: auto reads the checkpoint's generation_config.json, vllm "
             "ignores it. Default: auto."},
    {"chat-template", OPTION_STRING, AT(chat_template), .metavar = "FILE",
     .help = "Jinja chat template to use in place of the checkpoint's."},
    {"seed", OPTION_INT, AT(seed), .metavar = "N", .lo = 0, .hi = INT64_MAX,
     .help = "Seed of dummy weights. Default: 0."},
    {"max-logprobs", OPTION_INT, AT(max_logprobs), .metavar = "N", .lo = -1, .hi = 1 << 24,
     .help = "Most logprobs a request may ask for; -1: the whole vocabulary. Default: 20."},

    {"threads", OPTION_INT, AT(threads), .group = "Engine", .metavar = "N", .lo = 0, .hi = 4096, .zero_word = "auto",
     .help = "Compute threads. Default: one for each usable core."},
    {"isa", OPTION_CHOICE, AT(isa), .choices = cpu_isa_choices,
     .help = "Highest instruction set to use; results are the same on each. Default: the environment's OCTAVO_ISA, "
             "or the best there is."},
    {"max-num-seqs", OPTION_INT, AT(max_num_seqs), .metavar = "N", .lo = 1, .hi = 65536,
     .help = "Requests that run at once; more wait. Default: 128."},
    {"max-num-batched-tokens", OPTION_INT, AT(max_num_batched_tokens), .metavar = "N", .lo = 1, .hi = 1 << 20,
     .help = "Token budget of one step. Default: 2048."},
    {"block-size", OPTION_INT, AT(block_size), .metavar = "N", .lo = 1, .hi = 65536,
     .help = "Tokens in a KV cache block, a multiple of 32. Default: 32."},
    {"kv-cache-memory-bytes", OPTION_INT, AT(kv_cache_memory_bytes), .metavar = "BYTES", .lo = 1, .hi = 1ll << 46,
     .help = "Memory for the KV cache (4GiB, 512MiB). Default: at most 4 GiB, less when --max-num-seqs requests of "
             "full length need less."},
    {"kv-cache-dtype", OPTION_CHOICE, AT(kv_cache_dtype), .choices = kv_dtypes,
     .help =
         "Number type of the KV cache. Default: auto, which is int8 where the checkpoint brings C8 scales, else its "
         "own type."},
    {"quantization", OPTION_CHOICE, AT(quantization), .choices = quantizations,
     .help = "w8a8 quantises the linears of a float checkpoint while it loads. What the checkpoint's own files say "
             "(ascend: ModelSlim, compressed-tensors) is found without a flag. Default: none."},
    {"enable-prefix-caching", OPTION_SWITCH, AT(enable_prefix_caching),
     .help = "Keep the KV of finished requests and start a prompt after what it shares with them; the answers do not "
             "change. --no-enable-prefix-caching turns it off. Default: on."},
    {"profile", OPTION_SWITCH, AT(profile),
     .help = "Measure where the time of a step goes, and print it at the end beside the machine's limits."},
    {"log-level,uvicorn-log-level", OPTION_CHOICE, AT(log_level), .group = "Log", .choices = log_levels,
     .help = "Least important messages to print. Default: info."},

    /* What people bring from GPU command lines: say plainly what happens. */
    {"gpu-memory-utilization", OPTION_IGNORED, .metavar = "X",
     .help = GPU_ONLY "; size the KV cache with --kv-cache-memory-bytes"},
    {"swap-space", OPTION_IGNORED, .metavar = "X", .help = "there is no second memory to swap to"},
    {"enforce-eager", OPTION_IGNORED, .help = "nothing is compiled at start, so there is nothing to turn off"},
    {"compilation-config,O", OPTION_IGNORED, .metavar = "X", .help = "nothing is compiled at start"},
    {"trust-remote-code", OPTION_IGNORED, .help = "octavo never runs code of a checkpoint"},
    {"enable-chunked-prefill", OPTION_IGNORED, .help = "prompts are always prefilled in chunks"},
    {"dtype", OPTION_IGNORED, .metavar = "X", .help = "weights keep the checkpoint's type and activations are float32"},
    {"disable-log-stats", OPTION_IGNORED, .help = "there is no periodic statistics line"},
    {"tensor-parallel-size,tp", OPTION_REFUSED, .metavar = "N", .lo = 1,
     .help = "one process uses all cores; leave it out, and set --threads if needed"},
    {"pipeline-parallel-size,pp", OPTION_REFUSED, .metavar = "N", .lo = 1, .help = "leave it out"},
    {"data-parallel-size,dp", OPTION_REFUSED, .metavar = "N", .lo = 1,
     .help = "start several servers on different ports instead"},
    {"device", OPTION_IGNORED, .metavar = "X", .help = GPU_ONLY},
    {"speculative-config", OPTION_REFUSED, .metavar = "X", .lo = INT64_MIN,
     .help = "speculative decoding is not there yet"},
    {"enable-lora", OPTION_REFUSED, .lo = INT64_MIN, .help = "adapters are not there yet; merge them into the model"},
    {"cpu-offload-gb", OPTION_IGNORED, .metavar = "X", .help = "weights are in CPU memory already"},
};

struct option_set engine_flags_set(struct engine_flags *flags)
{
    return (struct option_set){specs, ARRAY_LEN(specs), flags};
}

int engine_flags_apply(const struct engine_flags *flags, const char *model, struct octavo_engine_options *opts,
                       struct octavo_error *err)
{
    enum log_level level;
    if (log_level_parse(flags->log_level, &level))
        return error_set(err, OCTAVO_EINVAL, "unknown --log-level %s", flags->log_level);
    log_set_level(level);
    octavo_engine_options_init(opts);
    opts->model = model;
    opts->load_format = strcmp(flags->load_format, "safetensors") ? flags->load_format : "auto";
    opts->kv_cache_dtype = flags->kv_cache_dtype;
    opts->quantization = flags->quantization;
    opts->isa = flags->isa;
    opts->seed = (uint64_t)flags->seed;
    opts->max_model_len = flags->max_model_len < 0 ? 0 : flags->max_model_len;
    opts->max_num_seqs = (int)flags->max_num_seqs;
    opts->max_num_batched_tokens = (int)flags->max_num_batched_tokens;
    opts->block_size = (int)flags->block_size;
    opts->kv_cache_memory_bytes = flags->kv_cache_memory_bytes;
    opts->disable_prefix_caching = !flags->enable_prefix_caching;
    opts->num_threads = (int)flags->threads;
    opts->profile = flags->profile;
    opts->max_logprobs = (int)flags->max_logprobs;
    return 0;
}

/* ---- progress ---- */

const char *format_bytes(char out[32], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (bytes >= 1024 && u + 1 < ARRAY_LEN(units)) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return out;
}

void load_progress_update(void *progress, const char *phase, uint64_t done, uint64_t total)
{
    struct load_progress *p = progress;
    char a[32], b[32];
    int percent = total ? (int)((double)done * 100 / (double)total) : 100;
    bool fresh = strncmp(p->phase, phase, sizeof(p->phase) - 1) != 0;
    if (fresh) {
        load_progress_end(p);
        snprintf(p->phase, sizeof(p->phase), "%s", phase);
        p->last_percent = -1;
        p->tty = isatty(STDERR_FILENO) == 1;
    }
    if (percent == p->last_percent)
        return;
    if (!p->tty) {
        /* a log file gets a line at the start and at each quarter */
        if (fresh || percent / 25 != p->last_percent / 25)
            log_info("%s: %d%% of %s", phase, percent, format_bytes(b, (double)total));
        p->last_percent = percent;
        return;
    }
    p->last_percent = percent;
    p->open = true;
    char bar[31];
    int filled = percent * 30 / 100;
    for (int i = 0; i < 30; i++)
        bar[i] = i < filled ? '=' : ' ';
    bar[30] = '\0';
    fprintf(stderr, "\r\033[K%-20s [%s] %3d%%  %s / %s", phase, bar, percent, format_bytes(a, (double)done),
            format_bytes(b, (double)total));
    fflush(stderr);
}

void load_progress_end(struct load_progress *p)
{
    if (p->open)
        fputc('\n', stderr);
    p->open = false;
}
