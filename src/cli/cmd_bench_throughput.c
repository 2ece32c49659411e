/* octavo bench throughput: many requests submitted at once, as fast as the engine can. Main thread. */
#include "cli/cmd_bench.h"

#include "base/mem.h"
#include "cli/bench.h"

#include <stdlib.h>

struct throughput_flags {
    struct engine_flags engine;
    int64_t input_len, output_len, num_prompts;
    const char *output_json, *dataset_name;
};

#define AT(field) .offset = offsetof(struct throughput_flags, field)

static const char *const datasets[] = {"random", NULL};

static const struct option_spec specs[] = {
    {"num-prompts", OPTION_INT, AT(num_prompts), .group = "Load", .metavar = "N", .lo = 1, .hi = BENCH_MAX_REQUESTS,
     .help = "Requests, all submitted at once. Default: 100."},
    {"input-len,random-input-len", OPTION_INT, AT(input_len), .metavar = "N", .lo = 1, .hi = BENCH_MAX_TOKENS,
     .help = "Tokens of a prompt. Default: 1024."},
    {"output-len,random-output-len", OPTION_INT, AT(output_len), .metavar = "N", .lo = 1, .hi = BENCH_MAX_TOKENS,
     .help = "Tokens of an answer; no token ends it early. Default: 128."},
    {"dataset-name", OPTION_CHOICE, AT(dataset_name), .choices = datasets, .help = "Random tokens are all there is."},
    {"output-json", OPTION_STRING, AT(output_json), .metavar = "FILE",
     .help = "Also write the results as JSON; - is standard output, in place of the summary."},
    {"disable-detokenize", OPTION_IGNORED, .help = "benchmarks work on token ids"},
};

static const char intro[] =
    "usage: octavo bench throughput [MODEL] [flags]\n"
    "\n"
    "Submits many requests at once and shows how many requests and tokens are done per second.\n"
    "Prompts are random tokens (--seed), sampled at temperature 1; prefix caching is off. --max-num-seqs\n"
    "says how many run at once, --max-num-batched-tokens how much of them one step takes.\n"
    "\n"
    "  octavo bench throughput ./Qwen3-0.6B --num-prompts 32 --input-len 640 --output-len 128\n"
    "  octavo bench throughput bench/configs/qwen3-0.6b --load-format dummy --quantization w8a8 \\\n"
    "         --kv-cache-dtype int8 --num-prompts 32 --output-json throughput.json\n";

struct ticker {
    const struct bench *b;
    struct bench_progress progress;
    double total; /* tokens, prompts and answers */
};

static void tick(void *arg)
{
    struct ticker *t = arg;
    struct octavo_engine_stats stats;
    octavo_engine_get_stats(t->b->engine, &stats);
    bench_progress_update(&t->progress, "serving",
                          (double)(stats.prompt_tokens + stats.generation_tokens) / MAX(t->total, 1));
}

static int report(const struct bench *b, const struct throughput_flags *flags, const struct bench_run *run,
                  struct output *json, struct octavo_error *err)
{
    double seconds = run->end - run->start, n = (double)flags->num_prompts;
    double in = n * (double)flags->input_len, out = n * (double)flags->output_len;
    json_t *root = bench_describe(b);
    json_object_update_new(root, json_pack("{s:I, s:I, s:f, s:I, s:I, s:f, s:f, s:f}", "input_len",
                                           (json_int_t)flags->input_len, "output_len", (json_int_t)flags->output_len,
                                           "elapsed_time", seconds, "num_requests", (json_int_t)flags->num_prompts,
                                           "total_num_tokens", (json_int_t)(in + out), "requests_per_second",
                                           n / seconds, "tokens_per_second", (in + out) / seconds,
                                           "output_tokens_per_second", out / seconds));
    int r = bench_write_json(json, root, err);
    if (json->f != stdout)
        printf("Throughput: %.2f requests/s, %.2f total tokens/s, %.2f output tokens/s\n"
               "Total num prompt tokens:  %.0f\n"
               "Total num output tokens:  %.0f\n",
               n / seconds, (in + out) / seconds, out / seconds, in, out);
    return r;
}

static int throughput(void *values, struct octavo_error *err)
{
    const struct throughput_flags *flags = values;
    struct bench b = {0};
    struct bench_run run = {0};
    struct output json = {0};
    struct ticker ticker = {&b, .total = (double)flags->num_prompts * (double)(flags->input_len + flags->output_len)};
    const struct bench_need need = {.num_seqs = MIN(flags->num_prompts, 128),
                                    .len = flags->input_len + flags->output_len,
                                    .flags = "--input-len and --output-len"};
    const struct bench_load warmup = {.num_requests = 1, .input_len = MIN(flags->input_len, 64), .output_len = 1};
    const struct bench_load load = {.num_requests = flags->num_prompts,
                                    .input_len = flags->input_len,
                                    .output_len = flags->output_len,
                                    .seed = (uint64_t)flags->engine.seed,
                                    .temperature = 1,
                                    .tick = tick,
                                    .tick_arg = &ticker};
    int r;
    if ((r = output_open(&json, "--output-json", flags->output_json, err)) < 0 ||
        (r = bench_open(&b, &flags->engine, &need, err)) < 0 || (r = bench_run(&run, &b, &warmup, err)) != 0)
        goto out;
    bench_run_release(&run);
    r = bench_run(&run, &b, &load, err);
    bench_progress_end(&ticker.progress);
    if (r == 0)
        r = report(&b, flags, &run, &json, err);
out:
    bench_run_release(&run);
    output_close(&json, r != 0);
    bench_close(&b);
    return r;
}

int cmd_bench_throughput(int argc, char **argv)
{
    struct throughput_flags flags = {.input_len = 1024, .output_len = 128, .num_prompts = 100};
    bench_flags_init(&flags.engine);
    return bench_command(argc, argv, "throughput", intro, &(struct option_set){specs, ARRAY_LEN(specs), &flags},
                         &flags.engine, throughput);
}
