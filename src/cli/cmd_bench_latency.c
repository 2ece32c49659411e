/* octavo bench latency: one batch of requests after another, each from its prompts to its last token. Main thread. */
#include "cli/cmd_bench.h"

#include "base/mem.h"
#include "cli/bench.h"

#include <stdlib.h>

struct latency_flags {
    struct engine_flags engine;
    int64_t input_len, output_len, batch_size, num_iters_warmup, num_iters;
    const char *output_json;
};

#define AT(field) .offset = offsetof(struct latency_flags, field)

static const struct option_spec specs[] = {
    {"input-len", OPTION_INT, AT(input_len), .group = "Load", .metavar = "N", .lo = 1, .hi = BENCH_MAX_TOKENS,
     .help = "Tokens of a prompt. Default: 32."},
    {"output-len", OPTION_INT, AT(output_len), .metavar = "N", .lo = 1, .hi = BENCH_MAX_TOKENS,
     .help = "Tokens of an answer; no token ends it early. Default: 128."},
    {"batch-size", OPTION_INT, AT(batch_size), .metavar = "N", .lo = 1, .hi = BENCH_MAX_REQUESTS,
     .help = "Requests of a batch. Default: 8."},
    {"num-iters-warmup", OPTION_INT, AT(num_iters_warmup), .metavar = "N", .lo = 0, .hi = 1000000,
     .help = "Batches to run before measuring. Default: 10."},
    {"num-iters", OPTION_INT, AT(num_iters), .metavar = "N", .lo = 1, .hi = 1000000,
     .help = "Batches to measure. Default: 30."},
    {"output-json", OPTION_STRING, AT(output_json), .metavar = "FILE",
     .help = "Also write the results as JSON, each latency included; - is standard output, in place of the summary."},
    {"disable-detokenize", OPTION_IGNORED, .help = "benchmarks work on token ids"},
};

static const char intro[] =
    "usage: octavo bench latency [MODEL] [flags]\n"
    "\n"
    "Runs one batch of requests after another and shows how long each takes, from submission to the\n"
    "last token, to the first token of a request, and for each token after it. Prompts are random\n"
    "tokens (--seed), sampled at temperature 1; prefix caching is off.\n"
    "\n"
    "  octavo bench latency ./Qwen3-0.6B --input-len 512 --output-len 64 --batch-size 1\n"
    "  octavo bench latency bench/configs/qwen3-0.6b --load-format dummy --quantization w8a8 \\\n"
    "         --kv-cache-dtype int8 --num-iters-warmup 1 --num-iters 5 --output-json latency.json\n";

/* Of the batches measured. */
struct latencies {
    double *batch;             /* (num_iters) seconds */
    double *first, *per_token; /* (num_iters * batch_size), of requests */
    size_t num_batches, num_requests;
};

static int measure(const struct bench *b, const struct latency_flags *flags, struct latencies *ret,
                   struct octavo_error *err)
{
    struct bench_progress progress = {0};
    struct bench_load load = {.num_requests = flags->batch_size,
                              .input_len = flags->input_len,
                              .output_len = flags->output_len,
                              .temperature = 1};
    int64_t total = flags->num_iters_warmup + flags->num_iters;
    int r = 0;
    for (int64_t i = 0; i < total && r == 0; i++) {
        bool warm = i >= flags->num_iters_warmup;
        struct bench_run run;
        bench_progress_update(&progress, warm ? "measuring" : "warming up", (double)i / (double)total);
        load.seed = (uint64_t)(flags->engine.seed + i);
        r = bench_run(&run, b, &load, err);
        if (r == 0 && warm) {
            ret->batch[ret->num_batches++] = run.end - run.start;
            for (int64_t q = 0; q < run.num_requests; q++, ret->num_requests++) {
                ret->first[ret->num_requests] = bench_first_token_seconds(&run.requests[q]);
                ret->per_token[ret->num_requests] = bench_seconds_per_output_token(&run.requests[q]);
            }
        }
        bench_run_release(&run);
    }
    bench_progress_end(&progress);
    return r;
}

static void print_requests(const char *title, const double *sorted, size_t n)
{
    printf("%-22s mean %.2f, median %.2f, p99 %.2f ms\n", title, 1e3 * bench_mean(sorted, n),
           1e3 * bench_percentile(sorted, n, 50), 1e3 * bench_percentile(sorted, n, 99));
}

/* Sorts all of l. */
static int report(const struct bench *b, const struct latency_flags *flags, struct latencies *l, struct output *json,
                  struct octavo_error *err)
{
    json_t *all = json_array();
    for (size_t i = 0; i < l->num_batches; i++)
        json_array_append_new(all, json_real(l->batch[i]));
    json_t *root = bench_describe(b), *batch = bench_distribution(l->batch, l->num_batches);
    json_object_update_new(
        root, json_pack("{s:I, s:I, s:I, s:O, s:O, s:o, s:o, s:o}", "input_len", (json_int_t)flags->input_len,
                        "output_len", (json_int_t)flags->output_len, "batch_size", (json_int_t)flags->batch_size,
                        "avg_latency", json_object_get(batch, "mean"), "percentiles",
                        json_object_get(batch, "percentiles"), "ttft", bench_distribution(l->first, l->num_requests),
                        "tpot", bench_distribution(l->per_token, l->num_requests), "latencies", all));
    int r = bench_write_json(json, root, err);
    if (json->f != stdout) {
        printf("Avg latency: %.6f seconds\n", json_real_value(json_object_get(batch, "mean")));
        const char *key;
        json_t *value;
        json_object_foreach (json_object_get(batch, "percentiles"), key, value)
            printf("%s%% percentile latency: %.6f seconds\n", key, json_real_value(value));
        print_requests("Time to first token:", l->first, l->num_requests);
        if (flags->output_len > 1)
            print_requests("Time per output token:", l->per_token, l->num_requests);
    }
    json_decref(batch);
    return r;
}

static int latency(void *values, struct octavo_error *err)
{
    const struct latency_flags *flags = values;
    struct bench b = {0};
    struct latencies l = {0};
    struct output json = {0};
    const struct bench_need need = {.num_seqs = flags->batch_size,
                                    .len = flags->input_len + flags->output_len,
                                    .all_in_cache = true,
                                    .flags = "--input-len and --output-len"};
    size_t batches = (size_t)flags->num_iters, requests = batches * (size_t)flags->batch_size;
    int r;
    l.batch = mem_try_calloc(batches, sizeof(double));
    l.first = mem_try_calloc(requests, sizeof(double));
    l.per_token = mem_try_calloc(requests, sizeof(double));
    if (!l.batch || !l.first || !l.per_token) {
        r = error_set(err, OCTAVO_ENOMEM, "no memory for the times of %zu requests; lower --num-iters", requests);
        goto out;
    }
    if ((r = output_open(&json, "--output-json", flags->output_json, err)) == 0 &&
        (r = bench_open(&b, &flags->engine, &need, err)) == 0 && (r = measure(&b, flags, &l, err)) == 0)
        r = report(&b, flags, &l, &json, err);
out:
    output_close(&json, r != 0);
    bench_close(&b);
    free(l.batch);
    free(l.first);
    free(l.per_token);
    return r;
}

int cmd_bench_latency(int argc, char **argv)
{
    struct latency_flags flags = {
        .input_len = 32, .output_len = 128, .batch_size = 8, .num_iters_warmup = 10, .num_iters = 30};
    bench_flags_init(&flags.engine);
    return bench_command(argc, argv, "latency", intro, &(struct option_set){specs, ARRAY_LEN(specs), &flags},
                         &flags.engine, latency);
}
