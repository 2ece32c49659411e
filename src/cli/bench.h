/* What the benchmark commands share: an engine opened for a load, requests of random tokens run to their end with the
 * time of every token, percentiles, a progress bar. Main thread; times are taken on the engine's, which nothing else
 * wakes meanwhile. */
#ifndef OCTAVO_CLI_BENCH_H
#define OCTAVO_CLI_BENCH_H

#include "cli/bench_cost.h"
#include "cli/engine_options.h"
#include "cli/output.h"
#include "kernel/peak.h"

#include <jansson.h>
#include <stdatomic.h>

#define BENCH_INTERRUPTED 1 /* beside 0 and errors: Ctrl-C */
#define BENCH_MAX_REQUESTS 100000
#define BENCH_MAX_TOKENS (1 << 24)

/* ---- the engine ---- */

void bench_flags_init(struct engine_flags *flags); /* the defaults, but without prefix caching */
/* A benchmark from its command line on: parses specs into values, which flags is a part of, and the engine's flags;
 * then runs it. name is for messages, intro stands before the flags in help. Returns the exit status. */
int bench_command(int argc, char **argv, const char *name, const char *intro, const struct option_set *own,
                  struct engine_flags *flags, int (*run)(void *values, struct octavo_error *err));

/* What will be asked of the engine: sizes that flags leave open are made to fit. */
struct bench_need {
    int64_t num_seqs;     /* requests at once */
    int64_t len;          /* tokens of the longest */
    bool all_in_cache;    /* the KV cache has to hold all of them at full length */
    const char *flags;    /* that ask for it, for messages: "--input-len + --output-len" */
    const char *kv_dtype; /* of the cache; NULL: --kv-cache-dtype */
};

struct bench {
    struct octavo_engine *engine;
    struct bench_cost cost;
    char *model; /* folder */
};

int bench_open(struct bench *b, const struct engine_flags *flags, const struct bench_need *need,
               struct octavo_error *err);
/* Prints what --profile asked for to standard error. Fine on a zeroed struct. */
void bench_close(struct bench *b);
/* The machine's limits for this engine's tier and threads, while it idles; takes about `seconds` for each of the three.
 */
int bench_peak(const struct bench *b, double seconds, struct machine_peak *ret, struct octavo_error *err);

/* Whether Ctrl-C has come; a second one ends the program. */
bool bench_interrupted(void);

/* ---- requests ---- */

struct bench_load {
    int64_t num_requests, input_len, output_len;
    /* 0: run all to their end. Else: stop once all have begun to answer and the last to do so has this many tokens
     * after its first. */
    int64_t steady_tokens;
    uint64_t seed; /* of the prompts */
    float temperature;
    void (*tick)(void *arg); /* called now and then; may be NULL */
    void *tick_arg;
};

struct bench_request {
    struct octavo_request *handle;
    double submitted;      /* seconds on a clock of its own */
    double *token_seconds; /* (output_len) the same clock */
    _Atomic int64_t num_tokens;
    int64_t output_len;
    bool finished;
};

struct bench_run {
    struct bench_request *requests; /* (num_requests) */
    int64_t num_requests;
    double *token_seconds;
    double start, end; /* first submission, last token */
};

/* Returns 0, BENCH_INTERRUPTED or an error; bench_run_release in any case. */
int bench_run(struct bench_run *run, const struct bench *b, const struct bench_load *load, struct octavo_error *err);
void bench_run_release(struct bench_run *run);
double bench_first_token_seconds(const struct bench_request *q);      /* since it was submitted */
double bench_seconds_per_output_token(const struct bench_request *q); /* after the first; 0 when there is but one */

/* ---- figures ---- */

double bench_mean(const double *x, size_t n);
/* Sorts x. */
void bench_sort(double *x, size_t n);
/* Of sorted values, p in 0..100, interpolated linearly. */
double bench_percentile(const double *sorted, size_t n, double p);
/* {"mean": , "p10": ...} of x, which is sorted by this. */
json_t *bench_distribution(double *x, size_t n);
/* What was measured: what every result file begins with. */
json_t *bench_describe(const struct bench *b);
json_t *bench_peak_json(const struct machine_peak *peak);
/* Takes root. */
int bench_write_json(struct output *out, json_t *root, struct octavo_error *err);
void bench_print_peak(FILE *f, int num_threads, const char *isa, const struct machine_peak *peak);

/* ---- progress ---- */

/* A bar on a terminal, a line at each quarter otherwise. Zero-initialise. */
struct bench_progress {
    int last_percent;
    bool tty, open, started;
    double start;
};
/* fraction in 0..1; what names the work: "int8, depth 4096". */
void bench_progress_update(struct bench_progress *p, const char *what, double fraction);
void bench_progress_end(struct bench_progress *p);
double bench_now(void);

#endif
