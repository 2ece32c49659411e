/* octavo bench sweep: prefill and decode speed against context depth, for each type of KV cache, beside what the
 * machine could do at most. Main thread. */
#include "cli/cmd_bench.h"

#include "base/mem.h"
#include "cli/bench.h"
#include "cli/bench_plot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTHS 64
#define MAX_KV_DTYPES 4
#define MAX_REPEAT 1000
#define ENOUGH_SECONDS 30  /* what has taken so long is not measured again */
#define FIRST_SECONDS 0.6  /* for each limit, at the start */
#define BESIDE_SECONDS 0.1 /* and between two repetitions */

struct sweep_flags {
    struct engine_flags engine;
    const char *depths, *kv_cache_dtypes, *output_json, *output_svg;
    int64_t decode_tokens, batch_size, repeat;
};

#define AT(field) .offset = offsetof(struct sweep_flags, field)

static const struct option_spec specs[] = {
    {"depths", OPTION_STRING, AT(depths), .group = "Load", .metavar = "N,N,...",
     .help = "Context depths in tokens (16k and 16K work). Default: 128,1024,4096,16384."},
    {"kv-cache-dtypes", OPTION_STRING, AT(kv_cache_dtypes), .metavar = "TYPE,...",
     .help = "Number types of the KV cache to compare: bfloat16, float16, float32, int8. Default: int8,bfloat16, or "
             "bfloat16 where the checkpoint has no scales for int8."},
    {"decode-tokens", OPTION_INT, AT(decode_tokens), .metavar = "N", .lo = 1, .hi = 1 << 20,
     .help = "Tokens to decode at each depth; the first one belongs to prefill. Default: 32."},
    {"batch-size", OPTION_INT, AT(batch_size), .metavar = "N", .lo = 1, .hi = 65536,
     .help = "Also decode N streams together, each with a prompt of its own. Default: 1, one stream alone."},
    {"repeat", OPTION_INT, AT(repeat), .metavar = "N", .lo = 1, .hi = MAX_REPEAT,
     .help = "Times to measure each; the best and the middle one are shown. What has taken 30 seconds is not measured "
             "again. Default: 5."},
    {"output-json", OPTION_STRING, AT(output_json), .metavar = "FILE",
     .help = "Also write the results as JSON; - is standard output, in place of the table."},
    {"output-svg", OPTION_STRING, AT(output_svg), .metavar = "FILE", .help = "Also draw them, as SVG."},
};

static const char intro[] =
    "usage: octavo bench sweep [MODEL] [flags]\n"
    "\n"
    "Shows how fast prompts are read and answers are written as the context grows, for each type of KV\n"
    "cache, and what share of the machine's limits that is. The limits are measured between any two\n"
    "repetitions, for a machine that is shared is not the same all the time. best is the fastest of\n"
    "--repeat; middle has the median share of what the machine could do just then, and the share is its.\n"
    "\n"
    "  prefill   a prompt of that many tokens, to its first answer token. Share: the multiply-adds of\n"
    "            the linears and of causal attention, per second, of the peak of the type that the\n"
    "            linears compute in (int8, or float32)\n"
    "  decode    tokens per second after the first one, at that depth. Share: the bytes of weights and\n"
    "            KV cache that a step has to read, per second, of the memory's bandwidth; or of the peak\n"
    "            of multiply-adds, where many streams come nearer to that.\n"
    "            A small model that stays in the caches can be above it\n"
    "  GB/s      the bandwidth measured after the middle one's decode\n"
    "\n"
    "  octavo bench sweep ./Qwen3-0.6B-W8A8C8 --depths 128,1024,4096 --output-svg sweep.svg\n"
    "  octavo bench sweep bench/configs/qwen3-0.6b --load-format dummy --quantization w8a8 \\\n"
    "         --batch-size 16 --output-json sweep.json --output-svg sweep.svg\n";

/* One repetition: tokens per second, what a token costs at least, and what the machine could do just then. */
struct rep {
    double rate;
    double macs, bytes; /* multiply-adds; bytes to be read, 0 where they are not looked at */
    struct machine_peak peak;
    double limit; /* tokens per second */
};

struct figure {
    double best;       /* tokens per second */
    struct rep middle; /* the one with the median share of its limit */
};

struct point {
    const char *kv_dtype;
    int64_t depth;
    struct figure prefill, decode, batch; /* batch: zero when there is but one stream */
};

struct sweep {
    const struct sweep_flags *flags;
    int64_t depths[MAX_DEPTHS];
    const char *kv_dtypes[MAX_KV_DTYPES];
    size_t num_depths, num_kv_dtypes;
    struct machine_peak peak; /* the best that was seen */
    bool integer;             /* what prefill's share is of */
    struct point points[MAX_DEPTHS * MAX_KV_DTYPES];
    size_t num_points;
    json_t *described; /* of the first engine */
    char title[160];
    const char *isa;
    int num_threads;
    /* progress, in seconds of an ideal machine */
    struct bench_progress progress;
    const struct bench *b;
    char what[64];
    double done, all, prefill_seconds, decode_seconds, prefill_tokens, decode_tokens;
    struct octavo_engine_stats before;
    size_t kv_dtype;
};

/* ---- flags ---- */

/* The next word of a list that is not at its end; perhaps an empty one. */
static size_t next_word(const char **list, const char **ret)
{
    *ret = *list;
    size_t n = strcspn(*list, ",");
    *list += n + ((*list)[n] == ',');
    return n;
}

static int compare_depths(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int parse_depths(struct sweep *s, struct octavo_error *err)
{
    const char *list = s->flags->depths, *word;
    do {
        char text[32];
        int64_t depth = 0;
        size_t n = next_word(&list, &word);
        snprintf(text, sizeof(text), "%.*s", (int)MIN(n, sizeof(text) - 1), word);
        if (n >= sizeof(text) || parse_human_int(text, &depth) || depth < 1 || depth > BENCH_MAX_TOKENS)
            return error_set_param(err, OCTAVO_EINVAL, "depths",
                                   "--depths takes numbers of tokens between 1 and %d, such as 128,1024,16k; not '%s'",
                                   BENCH_MAX_TOKENS, text);
        if (s->num_depths == MAX_DEPTHS)
            return error_set_param(err, OCTAVO_EINVAL, "depths", "--depths takes at most %d depths", MAX_DEPTHS);
        s->depths[s->num_depths++] = depth;
    } while (*list);
    qsort(s->depths, s->num_depths, sizeof(*s->depths), compare_depths);
    size_t kept = 1;
    for (size_t i = 1; i < s->num_depths; i++)
        if (s->depths[i] != s->depths[kept - 1])
            s->depths[kept++] = s->depths[i];
    s->num_depths = kept;
    return 0;
}

static int parse_kv_dtypes(struct sweep *s, struct octavo_error *err)
{
    static const char *const known[] = {"bfloat16", "float16", "float32", "int8"};
    const char *list = s->flags->kv_cache_dtypes ? s->flags->kv_cache_dtypes : "int8,bfloat16", *word;
    do {
        size_t n = next_word(&list, &word), i = 0;
        while (i < ARRAY_LEN(known) && (strlen(known[i]) != n || strncmp(known[i], word, n)))
            i++;
        if (i == ARRAY_LEN(known))
            return error_set_param(
                err, OCTAVO_EINVAL, "kv-cache-dtypes",
                "--kv-cache-dtypes takes bfloat16, float16, float32 and int8, such as int8,bfloat16; "
                "not '%.*s'",
                (int)n, word);
        for (size_t j = 0; j < s->num_kv_dtypes; j++)
            if (s->kv_dtypes[j] == known[i])
                return error_set_param(err, OCTAVO_EINVAL, "kv-cache-dtypes", "--kv-cache-dtypes names %s twice",
                                       known[i]);
        s->kv_dtypes[s->num_kv_dtypes++] = known[i];
    } while (*list);
    return 0;
}

static int64_t budget(const struct sweep_flags *f)
{
    return f->engine.max_num_batched_tokens ? f->engine.max_num_batched_tokens : 2048;
}

static int flags_check(struct sweep *s, struct octavo_error *err)
{
    const struct sweep_flags *f = s->flags;
    const struct engine_flags *e = &f->engine;
    int r;
    if (strcmp(e->kv_cache_dtype, "auto"))
        return error_set_param(err, OCTAVO_EINVAL, "kv-cache-dtype",
                               "a sweep compares types: give --kv-cache-dtypes %s in place of --kv-cache-dtype",
                               e->kv_cache_dtype);
    if (e->enable_prefix_caching)
        return error_set_param(err, OCTAVO_EINVAL, "enable-prefix-caching",
                               "a sweep computes every prompt; leave --enable-prefix-caching out");
    if (e->max_num_seqs && e->max_num_seqs < f->batch_size)
        return error_set_param(err, OCTAVO_EINVAL, "batch-size",
                               "--batch-size %" PRId64 " streams run together, but --max-num-seqs is %" PRId64,
                               f->batch_size, e->max_num_seqs);
    if (f->batch_size >= budget(f))
        return error_set_param(err, OCTAVO_EINVAL, "batch-size",
                               "--batch-size %" PRId64 " leaves no room for prompts in a step of %" PRId64
                               " tokens; raise --max-num-batched-tokens",
                               f->batch_size, budget(f));
    return (r = parse_depths(s, err)) < 0 ? r : parse_kv_dtypes(s, err);
}

/* ---- measuring ---- */

/* Tokens that a stream of n may have to answer before the last prompt is read and all have decoded enough. */
static int64_t output_len(const struct sweep_flags *f, int64_t n, int64_t depth)
{
    int64_t left = budget(f) - n, steps = n > 1 ? (n * depth + left - 1) / left + n : 0;
    return f->decode_tokens + 1 + steps;
}

static void tick(void *arg)
{
    struct sweep *s = arg;
    struct octavo_engine_stats now;
    octavo_engine_get_stats(s->b->engine, &now);
    double prompt = (double)(now.prompt_tokens - s->before.prompt_tokens) / s->prefill_tokens;
    double decode = (double)(now.generation_tokens - s->before.generation_tokens) / s->decode_tokens;
    double seconds = s->done + s->prefill_seconds * MIN(prompt, 1) + s->decode_seconds * MIN(decode, 1);
    bench_progress_update(&s->progress, s->what, ((double)s->kv_dtype + seconds / s->all) / (double)s->num_kv_dtypes);
}

static double peak_macs(const struct sweep *s, const struct machine_peak *peak)
{
    return s->integer ? peak->int8_macs : peak->f32_macs;
}

/* What n streams of a depth take an ideal machine, the two parts. */
static void ideal_seconds(struct sweep *s, int64_t n, int64_t depth)
{
    const struct bench_cost *c = &s->b->cost;
    double streams = (double)n, tokens = (double)s->flags->decode_tokens;
    s->prefill_tokens = streams * (double)depth;
    s->decode_tokens = streams * tokens;
    s->prefill_seconds = streams * bench_cost_prefill_macs(c, depth) / peak_macs(s, &s->peak);
    s->decode_seconds = tokens * (c->weight_bytes + streams * bench_cost_kv_bytes(c, depth)) / s->peak.read_bytes;
}

/* Decode speed of the streams of a run together, while all of them decode: from the first token of the one that began
 * last on, for decode_tokens of its steps. Without a limit. */
static struct rep decode_speed(const struct sweep *s, const struct bench_run *run, int64_t depth)
{
    const struct bench_cost *c = &s->b->cost;
    int64_t n = run->num_requests, steps = s->flags->decode_tokens, last = 0;
    for (int64_t i = 1; i < n; i++)
        if (run->requests[i].token_seconds[0] >= run->requests[last].token_seconds[0])
            last = i;
    const double *t = run->requests[last].token_seconds;
    double bytes = (double)steps * c->weight_bytes, macs = 0, tokens = (double)(n * steps);
    for (int64_t i = 0; i < n; i++) {
        int64_t before = 0; /* tokens it had when the last one began */
        while (before < atomic_load(&run->requests[i].num_tokens) && run->requests[i].token_seconds[before] <= t[0])
            before++;
        for (int64_t step = 0; step < steps; step++) {
            bytes += bench_cost_kv_bytes(c, depth + before - 1 + step);
            macs += bench_cost_decode_macs(c, depth + before - 1 + step);
        }
    }
    return (struct rep){.rate = tokens / (t[steps] - t[0]), .macs = macs / tokens, .bytes = bytes / tokens};
}

/* Multiply-adds and reads go on at the same time. */
static void rep_set_limit(const struct sweep *s, struct rep *r, const struct machine_peak *peak)
{
    r->peak = *peak;
    r->limit = 1 / MAX(r->macs / peak_macs(s, peak), r->bytes / peak->read_bytes);
}

static int compare_shares(const void *a, const void *b)
{
    const struct rep *x = a, *y = b;
    double p = x->rate / x->limit, q = y->rate / y->limit;
    return (p > q) - (p < q);
}

static struct figure figure_of(struct rep *reps, size_t n)
{
    double best = 0;
    for (size_t i = 0; i < n; i++)
        best = MAX(best, reps[i].rate);
    qsort(reps, n, sizeof(*reps), compare_shares);
    return (struct figure){.best = best, .middle = reps[(n - 1) / 2]};
}

/* What the machine can do now. */
static int peak_now(struct sweep *s, double seconds, struct machine_peak *ret, struct octavo_error *err)
{
    int r = bench_peak(s->b, seconds, ret, err);
    if (r == 0)
        machine_peak_max(&s->peak, ret);
    return r;
}

/* Prefill (for one stream) and decode of n streams at a depth. */
static int measure_streams(struct sweep *s, int64_t n, int64_t depth, struct figure *ret_prefill,
                           struct figure *ret_decode, struct octavo_error *err)
{
    const struct sweep_flags *f = s->flags;
    struct rep prefill[MAX_REPEAT], decode[MAX_REPEAT];
    struct machine_peak before, after;
    int64_t runs = 0;
    int r = peak_now(s, BESIDE_SECONDS, &before, err);
    double start = bench_now();
    ideal_seconds(s, n, depth);
    snprintf(s->what, sizeof(s->what), "%s, depth %" PRId64, s->kv_dtypes[s->kv_dtype], depth);
    for (; runs < f->repeat && r == 0; runs++) {
        struct bench_run run;
        struct bench_load load = {.num_requests = n,
                                  .input_len = depth,
                                  .output_len = output_len(f, n, depth),
                                  .steady_tokens = f->decode_tokens,
                                  .seed = (uint64_t)(f->engine.seed + runs),
                                  .tick = tick,
                                  .tick_arg = s};
        octavo_engine_get_stats(s->b->engine, &s->before);
        r = bench_run(&run, s->b, &load, err);
        struct octavo_engine_stats stats;
        octavo_engine_get_stats(s->b->engine, &stats);
        if (r == 0 && stats.num_preemptions > s->before.num_preemptions)
            r = error_set_param(err, OCTAVO_ENOMEM, "kv-cache-memory-bytes",
                                "the KV cache does not hold %" PRId64 " streams of %" PRId64
                                " tokens; raise --kv-cache-memory-bytes or leave it out",
                                n, depth);
        if (r == 0) {
            prefill[runs] = (struct rep){.rate = (double)depth / bench_first_token_seconds(&run.requests[0]),
                                         .macs = bench_cost_prefill_macs(&s->b->cost, depth) / (double)depth};
            decode[runs] = decode_speed(s, &run, depth);
        }
        bench_run_release(&run);
        bool enough = bench_now() - start > ENOUGH_SECONDS;
        if (r == 0 && (r = peak_now(s, BESIDE_SECONDS, &after, err)) == 0) {
            rep_set_limit(s, &decode[runs], &after); /* a prompt ago is long ago */
            machine_peak_max(&before, &after);
            rep_set_limit(s, &prefill[runs], &before);
            before = after;
        }
        s->done += s->prefill_seconds + s->decode_seconds;
        if (r == 0 && enough) {
            s->all -= (double)(f->repeat - 1 - runs) * (s->prefill_seconds + s->decode_seconds);
            runs++;
            break;
        }
    }
    if (r == 0) {
        if (ret_prefill)
            *ret_prefill = figure_of(prefill, (size_t)runs);
        *ret_decode = figure_of(decode, (size_t)runs);
    }
    return r;
}

static int measure_depth(struct sweep *s, int64_t depth, struct point *ret, struct octavo_error *err)
{
    int r = 0;
    *ret = (struct point){.kv_dtype = s->kv_dtypes[s->kv_dtype], .depth = depth};
    if (s->flags->batch_size > 1)
        r = measure_streams(s, s->flags->batch_size, depth, NULL, &ret->batch, err);
    return r ? r : measure_streams(s, 1, depth, &ret->prefill, &ret->decode, err);
}

/* What stands above all figures; the engines differ in their caches only. */
static void describe(struct sweep *s)
{
    const struct octavo_engine_info *info = octavo_engine_info(s->b->engine);
    const char *slash = strrchr(info->model, '/'), *name = slash && slash[1] ? slash + 1 : info->model;
    if (s->described)
        return;
    s->described = bench_describe(s->b);
    snprintf(s->title, sizeof(s->title), "%s, %.2f GB of %s weights", name, s->b->cost.weight_bytes / 1e9,
             s->integer ? "INT8" : "float");
    s->num_threads = info->num_threads;
    s->isa = info->isa;
}

/* All depths with the engine that is open. The deepest and widest first: a page of the cache takes long when it is
 * touched for the first time, and the first repetition there touches nearly all of them. */
static int measure_depths(struct sweep *s, struct octavo_error *err)
{
    const struct bench_load touch_weights = {
        .num_requests = 1, .input_len = MIN(16, s->depths[s->num_depths - 1]), .output_len = 2};
    struct bench_run warmup;
    int r = bench_run(&warmup, s->b, &touch_weights, err);
    bench_run_release(&warmup);
    s->done = s->all = 0;
    for (size_t i = 0; i < s->num_depths; i++) {
        ideal_seconds(s, 1, s->depths[i]);
        s->all += (double)s->flags->repeat * (s->prefill_seconds + s->decode_seconds);
        ideal_seconds(s, s->flags->batch_size, s->depths[i]);
        if (s->flags->batch_size > 1)
            s->all += (double)s->flags->repeat * (s->prefill_seconds + s->decode_seconds);
    }
    for (size_t i = s->num_depths; i-- > 0 && r == 0;)
        r = measure_depth(s, s->depths[i], &s->points[s->num_points + i], err);
    if (r == 0)
        s->num_points += s->num_depths;
    return r;
}

static int measure_kv_dtype(struct sweep *s, struct octavo_error *err)
{
    const struct sweep_flags *f = s->flags;
    int64_t deepest = s->depths[s->num_depths - 1];
    const struct bench_need need = {.num_seqs = f->batch_size,
                                    .len = deepest + output_len(f, f->batch_size, deepest),
                                    .all_in_cache = true,
                                    .flags = f->batch_size > 1 ? "--depths, --decode-tokens and what --batch-size "
                                                                 "streams answer until all have begun"
                                                               : "--depths and --decode-tokens",
                                    .kv_dtype = s->kv_dtypes[s->kv_dtype]};
    struct bench b;
    int r = bench_open(&b, &f->engine, &need, err);
    if (r < 0)
        return r;
    s->b = &b;
    s->integer = b.cost.integer;
    describe(s);
    struct machine_peak first;
    if ((r = peak_now(s, FIRST_SECONDS, &first, err)) == 0)
        r = measure_depths(s, err);
    bench_progress_end(&s->progress);
    s->b = NULL;
    bench_close(&b);
    return r;
}

/* ---- results ---- */

static void print_figure(const struct figure *f, int digits)
{
    const struct rep *m = &f->middle;
    printf("  %9.*f %9.*f %5.1f%%", digits, f->best, digits, m->rate, 100 * m->rate / m->limit);
}

static void print_table(const struct sweep *s)
{
    bool batch = s->flags->batch_size > 1;
    char head[32];
    printf("%s\n", s->title);
    bench_print_peak(stdout, s->num_threads, s->isa, &s->peak);
    snprintf(head, sizeof(head), "decode, %" PRId64 " streams", s->flags->batch_size);
    printf("\n%-9s %7s  %-26s  %-32s  %s\n", "", "", "prefill", "decode, one stream", batch ? head : "");
    printf("%-9s %7s", "KV cache", "depth");
    for (int i = 0; i < 2 + batch; i++)
        printf("  %9s %9s %6s%s", "best", "middle", "share", i ? "  GB/s" : "");
    putchar('\n');
    for (size_t i = 0; i < s->num_points; i++) {
        const struct point *p = &s->points[i];
        printf("%-9s %7" PRId64, p->kv_dtype, p->depth);
        print_figure(&p->prefill, 1);
        print_figure(&p->decode, 2);
        printf(" %5.1f", p->decode.middle.peak.read_bytes / 1e9);
        if (batch) {
            print_figure(&p->batch, 2);
            printf(" %5.1f", p->batch.middle.peak.read_bytes / 1e9);
        }
        putchar('\n');
    }
    printf("\nbest, middle: tokens per second. share: of the %s multiply-adds that the machine could do just then; in "
           "decode\nof its reads (GB/s), where that is the nearer limit\n",
           s->integer ? "int8" : "float32");
}

static json_t *figure_json(const struct figure *f)
{
    const struct rep *m = &f->middle;
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:o}", "tokens_per_second", f->best, "middle_tokens_per_second",
                     m->rate, "macs_per_token", m->macs, "bytes_per_token", m->bytes, "share_of_limit",
                     m->rate / m->limit, "peak", bench_peak_json(&m->peak));
}

static json_t *results_json(const struct sweep *s)
{
    json_t *root = json_incref(s->described), *points = json_array();
    for (size_t i = 0; i < s->num_points; i++) {
        const struct point *p = &s->points[i];
        json_t *o = json_pack("{s:s, s:I, s:o, s:o}", "kv_cache_dtype", p->kv_dtype, "depth", (json_int_t)p->depth,
                              "prefill", figure_json(&p->prefill), "decode", figure_json(&p->decode));
        if (s->flags->batch_size > 1)
            json_object_set_new(o, "decode_batch", figure_json(&p->batch));
        json_array_append_new(points, o);
    }
    json_object_set_new(root, "peak", bench_peak_json(&s->peak));
    json_object_update_new(root, json_pack("{s:s, s:I, s:I, s:I, s:o}", "limit_macs",
                                           s->integer ? "int8_macs_per_second" : "f32_macs_per_second", "decode_tokens",
                                           (json_int_t)s->flags->decode_tokens, "batch_size",
                                           (json_int_t)s->flags->batch_size, "repeat", (json_int_t)s->flags->repeat,
                                           "points", points));
    return root;
}

/* One panel's lines, from the figures at an offset in struct point. */
struct lines {
    struct plot_series series[MAX_KV_DTYPES];
    double x[MAX_KV_DTYPES][MAX_DEPTHS], y[MAX_KV_DTYPES][MAX_DEPTHS], limit[MAX_KV_DTYPES][MAX_DEPTHS],
        shares[MAX_KV_DTYPES][MAX_DEPTHS];
    size_t num_series;
};

static void lines_fill(struct lines *l, const struct sweep *s, size_t offset)
{
    *l = (struct lines){0};
    for (size_t i = 0; i < s->num_points; i++) {
        const struct point *p = &s->points[i];
        const struct figure *f = (const void *)((const char *)p + offset);
        size_t k = 0;
        while (k < l->num_series && strcmp(l->series[k].label, p->kv_dtype))
            k++;
        struct plot_series *to = &l->series[k];
        if (k == l->num_series)
            *to = (struct plot_series){.label = p->kv_dtype,
                                       .color = (int)k,
                                       .x = l->x[k],
                                       .y = l->y[k],
                                       .limit = l->limit[k],
                                       .shares = l->shares[k]};
        l->num_series = MAX(l->num_series, k + 1);
        l->x[k][to->num_points] = (double)p->depth;
        l->y[k][to->num_points] = f->middle.rate;
        l->limit[k][to->num_points] = f->middle.limit;
        l->shares[k][to->num_points++] = f->middle.rate / f->middle.limit;
    }
}

static void write_svg(FILE *f, const struct sweep *s)
{
    static const size_t offsets[] = {offsetof(struct point, prefill), offsetof(struct point, decode),
                                     offsetof(struct point, batch)};
    size_t n = s->flags->batch_size > 1 ? 3 : 2;
    struct lines *lines = mem_calloc(n, sizeof(*lines));
    struct plot_panel panels[3];
    char machine[160], batch[48];
    snprintf(batch, sizeof(batch), "Decode, %" PRId64 " streams together", s->flags->batch_size);
    const char *const titles[] = {"Prefill", "Decode, one stream", batch};
    for (size_t i = 0; i < n; i++) {
        lines_fill(&lines[i], s, offsets[i]);
        panels[i] = (struct plot_panel){.title = titles[i],
                                        .x_label = i ? "context depth (tokens)" : "prompt (tokens)",
                                        .y_label = "tokens per second",
                                        .series = lines[i].series,
                                        .num_series = lines[i].num_series};
    }
    snprintf(machine, sizeof(machine),
             "%d threads, %s: %.0f int8 GMAC/s, %.0f float32 GMAC/s, reads %.1f GB/s; by type of KV cache",
             s->num_threads, s->isa, s->peak.int8_macs / 1e9, s->peak.f32_macs / 1e9, s->peak.read_bytes / 1e9);
    plot_write(f, s->title, machine, panels, n);
    free(lines);
}

/* ---- the command ---- */

static int sweep_all(struct sweep *s, struct octavo_error *err)
{
    int r = 0;
    while (s->kv_dtype < s->num_kv_dtypes && r == 0) {
        r = measure_kv_dtype(s, err);
        if (r < 0 && !strcmp(err->param, "kv_cache_dtype") && !s->flags->kv_cache_dtypes) {
            /* no scales in this checkpoint, and nobody asked for int8 by name */
            s->num_kv_dtypes--;
            memmove(&s->kv_dtypes[s->kv_dtype], &s->kv_dtypes[s->kv_dtype + 1],
                    (s->num_kv_dtypes - s->kv_dtype) * sizeof(s->kv_dtypes[0]));
            r = 0;
        } else {
            s->kv_dtype++;
        }
    }
    return r;
}

static int sweep(void *values, struct octavo_error *err)
{
    struct sweep *s = mem_calloc(1, sizeof(*s));
    struct output json = {0}, svg = {0};
    int r;
    s->flags = values;
    if ((r = flags_check(s, err)) < 0 || (r = output_open(&json, "--output-json", s->flags->output_json, err)) < 0 ||
        (r = output_open(&svg, "--output-svg", s->flags->output_svg, err)) < 0)
        goto out;
    bool piped = json.f == stdout || svg.f == stdout;
    r = sweep_all(s, err);
    if (!piped && s->num_points)
        print_table(s); /* after an error or Ctrl-C, the types that were done */
    if (r == 0 && (r = bench_write_json(&json, results_json(s), err)) == 0 && svg.path) {
        FILE *f = output_begin(&svg, err);
        if (f)
            write_svg(f, s);
        r = f ? output_finish(&svg, err) : OCTAVO_EIO;
    }
out:
    output_close(&json, r != 0);
    output_close(&svg, r != 0);
    json_decref(s->described);
    free(s);
    return r;
}

int cmd_bench_sweep(int argc, char **argv)
{
    struct sweep_flags flags = {.depths = "128,1024,4096,16384", .decode_tokens = 32, .batch_size = 1, .repeat = 5};
    bench_flags_init(&flags.engine);
    return bench_command(argc, argv, "sweep", intro, &(struct option_set){specs, ARRAY_LEN(specs), &flags},
                         &flags.engine, sweep);
}
