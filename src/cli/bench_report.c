/* Figures of benchmarks, for people and for programs: see bench.h. */
#include "base/mem.h"
#include "cli/bench.h"

#include <math.h>
#include <stdlib.h>

static const int percentiles[] = {10, 25, 50, 75, 90, 99};

double bench_mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_sort(double *x, size_t n)
{
    qsort(x, n, sizeof(*x), compare);
}

double bench_percentile(const double *sorted, size_t n, double p)
{
    double at = p / 100 * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

json_t *bench_distribution(double *x, size_t n)
{
    json_t *percent = json_object();
    bench_sort(x, n);
    for (size_t i = 0; i < ARRAY_LEN(percentiles); i++) {
        char key[8];
        snprintf(key, sizeof(key), "%d", percentiles[i]);
        json_object_set_new(percent, key, json_real(bench_percentile(x, n, percentiles[i])));
    }
    return json_pack("{s:f, s:o}", "mean", bench_mean(x, n), "percentiles", percent);
}

json_t *bench_describe(const struct bench *b)
{
    const struct octavo_engine_info *i = octavo_engine_info(b->engine);
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:i, s:I, s:I, s:f, s:f, s:f}", "octavo", octavo_version(),
                     "model", i->model, "architecture", i->architecture, "isa", i->isa, "num_threads", i->num_threads,
                     "max_model_len", (json_int_t)i->max_model_len, "max_num_seqs", i->max_num_seqs,
                     "max_num_batched_tokens", i->max_num_batched_tokens, "num_parameters",
                     (json_int_t)i->num_parameters, "weights_bytes", (json_int_t)i->weights_bytes, "load_seconds",
                     i->load_seconds, "open_seconds", i->open_seconds, "pack_seconds", i->pack_seconds);
}

json_t *bench_peak_json(const struct machine_peak *peak)
{
    return json_pack("{s:f, s:f, s:f}", "int8_macs_per_second", peak->int8_macs, "f32_macs_per_second", peak->f32_macs,
                     "read_bytes_per_second", peak->read_bytes);
}

int bench_write_json(struct output *out, json_t *root, struct octavo_error *err)
{
    FILE *f = out->path ? output_begin(out, err) : NULL;
    if (f) {
        json_dumpf(root, f, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        fputc('\n', f);
    }
    json_decref(root);
    return !out->path ? 0 : f ? output_finish(out, err) : OCTAVO_EIO;
}

void bench_print_peak(FILE *f, int num_threads, const char *isa, const struct machine_peak *peak)
{
    fprintf(f, "machine: %d thread%s, %s: %.0f int8 GMAC/s, %.0f float32 GMAC/s, reads %.1f GB/s\n", num_threads,
            num_threads > 1 ? "s" : "", isa, peak->int8_macs / 1e9, peak->f32_macs / 1e9, peak->read_bytes / 1e9);
}
