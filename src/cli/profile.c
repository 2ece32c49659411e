/* The table of --profile: see profile.h. */
#include "cli/profile.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kernel/peak.h"

#define PEAK_SECONDS 0.3
#define MAX_PHASES 32

/* "  12.3%", or blank where there is nothing to compare. */
static void print_share(FILE *out, double did, double could)
{
    if (did > 0 && could > 0)
        fprintf(out, "  %12.1f%%", 100 * did / could);
    else
        fprintf(out, "  %13s", "");
}

void profile_print(struct octavo_engine *engine, FILE *out)
{
    struct octavo_profile_phase phases[MAX_PHASES];
    size_t count = engine ? octavo_engine_profile(engine, phases, MAX_PHASES) : 0;
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += phases[i].seconds;
    if (total <= 0)
        return;
    const struct octavo_engine_info *info = octavo_engine_info(engine);
    struct machine_peak peak = {0};
    struct octavo_error err;
    enum cpu_isa isa = CPU_ISA_REF;
    cpu_isa_parse(info->isa, &isa);
    struct pool *pool = pool_new(info->num_threads);
    if (!pool || machine_peak_measure(pool, isa, PEAK_SECONDS, &peak, &err) < 0)
        peak = (struct machine_peak){0}; /* then without shares */
    pool_free(pool);
    fprintf(out, "\nprofile of %.2f s in steps, %s, %d threads", total, info->isa, info->num_threads);
    if (peak.int8_macs > 0)
        fprintf(out, "; limits measured now: %.0f GMAC/s (int8), %.1f GB/s", peak.int8_macs / 1e9,
                peak.read_bytes / 1e9);
    fputc('\n', out);
    fprintf(out, "%-18s %9s %7s  %8s  %14s  %8s  %14s\n", "phase", "seconds", "share", "GMAC/s", "of int8 limit",
            "GB/s", "of read limit");
    for (size_t i = 0; i < count; i++) {
        const struct octavo_profile_phase *p = &phases[i];
        if (p->seconds <= 0)
            continue;
        fprintf(out, "%-18s %9.3f %6.1f%%", p->name, p->seconds, 100 * p->seconds / total);
        if (p->macs > 0) {
            fprintf(out, "  %8.1f", p->macs / p->seconds / 1e9);
            print_share(out, p->macs / p->seconds, peak.int8_macs);
            fprintf(out, "  %8.1f", p->bytes / p->seconds / 1e9);
            print_share(out, p->bytes / p->seconds, peak.read_bytes);
        }
        fputc('\n', out);
    }
}
