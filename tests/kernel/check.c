/* check_kernels: see check.h. One thread, but for the pools that time kernels. */
#include "check.h"

#include "base/topology.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NUM_SLOTS 24        /* areas of a case */
#define SAMPLE_SECONDS 0.02 /* shortest that is timed */
#define BENCH_SECONDS 0.25  /* for each line */
#define PEAK_SECONDS 0.5    /* for each limit, at the start, */
#define BESIDE_SECONDS 0.1  /* and beside each line */
#define MAX_FAILURES 20     /* printed */

static const char usage[] =
    "usage: check_kernels [options]\n"
    "\n"
    "Runs every kernel of every tier that this CPU has against ref, bit for bit, on shaped inputs between guard "
    "pages.\n"
    "\n"
    "  --isa NAME        one tier (ref, avx2, avx512vnni, ...), or all. Default: all; with --bench: the best\n"
    "  --test PATTERN    only kernels whose name matches (gemm*, attn_c8)\n"
    "  --seed N          of the inputs; a failure prints it. Default: 1\n"
    "  --bench[=PATTERN] time kernels in place of checking them, as shares of the limits of the machine, which are\n"
    "                    measured first\n"
    "  --csv FILE        write what --bench prints, in seconds, multiply-adds and bytes\n"
    "  --list            list kernels and tiers\n";

static const struct kernel_entry *const families[] = {entries_gemm, entries_attention, entries_rows};

static const char *const kernel_names[] = {
#define KERNEL(name, args) #name,
#include "kernel/kernels.def"
#undef KERNEL
};

/* An address range that a case's areas come from, one at a time, between two pages that fault. */
struct slot {
    char *map;
    size_t inner; /* bytes between the guards */
};

struct state {
    struct check c; /* first: the public part */
    const char *kernel;
    char shape[160];
    uint64_t seed, random;
    bool at_begin; /* areas begin behind a guard, in place of ending before one */
    struct slot slots[NUM_SLOTS];
    size_t num_used;
    int num_cases, num_failures;
};

static struct state *state_of(struct check *c)
{
    return (struct state *)c;
}

/* ---- inputs ---- */

uint32_t check_random(struct check *c)
{
    struct state *s = state_of(c);
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->random >> 32);
}

int check_pick(struct check *c, int lo, int hi)
{
    return lo + (int)(check_random(c) % (uint32_t)(hi - lo + 1));
}

/* For the handler of a fault: which case it was. */
static struct state *running;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    char text[400];
    int n = snprintf(text, sizeof(text), "FAIL %s on %s: %s; seed %llu: %s at %p, outside its buffers?\n",
                     running->kernel, cpu_isa_name(running->c.ops->isa), running->shape,
                     (unsigned long long)running->seed, sig == SIGILL ? "unknown instruction" : "fault", info->si_addr);
    if (write(STDOUT_FILENO, text, (size_t)MIN(n, (int)sizeof(text) - 1)) < 0)
        _exit(2);
    _exit(1);
}

void check_case(struct check *c, const char *shape, ...)
{
    struct state *s = state_of(c);
    va_list ap;
    va_start(ap, shape);
    vsnprintf(s->shape, sizeof(s->shape), shape, ap);
    va_end(ap);
    s->num_used = 0;
    s->num_cases++;
    uint32_t r = check_random(c) % 8; /* mixed most of the time */
    c->pattern = r < PATTERN_COUNT ? (enum pattern)r : PATTERN_MIXED;
    cpu_ahead = (enum cpu_ahead)(check_random(c) % CPU_AHEAD_COUNT); /* all ways of asking for memory, on any CPU */
}

struct area check_area(struct check *c, size_t bytes)
{
    struct state *s = state_of(c);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), need = (bytes + page - 1) / page * page;
    if (s->num_used == NUM_SLOTS) {
        fprintf(stderr, "check_kernels: %s has more than %d areas in a case\n", s->kernel, NUM_SLOTS);
        exit(2);
    }
    struct slot *slot = &s->slots[s->num_used++];
    if (slot->inner < need || !slot->map) {
        if (slot->map)
            munmap(slot->map, slot->inner + 2 * page);
        slot->inner = MAX(need * 2, page);
        slot->map = mmap(NULL, slot->inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slot->map == MAP_FAILED || mprotect(slot->map + page, slot->inner, PROT_READ | PROT_WRITE) < 0) {
            fprintf(stderr, "check_kernels: cannot map %zu bytes: %s\n", slot->inner, strerror(errno));
            exit(2);
        }
    }
    char *p = slot->map + page + (s->at_begin ? 0 : slot->inner - bytes);
    memset(p, 0xa5, bytes);
    return (struct area){p, bytes};
}

static float random_float(struct check *c)
{
    uint32_t r = check_random(c);
    float ordinary = ((float)(r % 20001) - 10000.0f) / 3000.0f;
    switch (c->pattern) {
    case PATTERN_ZERO:
        return 0.0f;
    case PATTERN_EXTREME:
        return r & 1 ? 1000.0f : -1000.0f;
    case PATTERN_HOT:
        return r >> 16 & 127 ? ordinary : ordinary * 1e4f; /* finite in float16 too */
    default:
        break;
    }
    switch (r >> 16 & 15) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return (float)((int)(r % 2001) - 1000);
    case 3:
        return 1e-30f;
    default:
        return ordinary;
    }
}

struct area check_floats(struct check *c, size_t n)
{
    struct area a = check_area(c, n * 4);
    for (size_t i = 0; i < n; i++)
        ((float *)a.p)[i] = random_float(c);
    return a;
}

struct area check_uniform(struct check *c, size_t n)
{
    struct area a = check_area(c, n * 4);
    for (size_t i = 0; i < n; i++)
        ((float *)a.p)[i] = (float)((int)(check_random(c) % 20001) - 10000) / 10000;
    return a;
}

static struct area bytes_of(struct check *c, size_t n, uint8_t zero, uint8_t low, uint8_t high)
{
    struct area a = check_area(c, n);
    uint8_t *p = a.p, end = check_random(c) & 1 ? high : low;
    for (size_t i = 0; i < n; i++) {
        uint32_t r = check_random(c);
        p[i] = c->pattern == PATTERN_ZERO      ? zero
               : c->pattern == PATTERN_EXTREME ? (r % 64 ? end : low)
               : c->pattern == PATTERN_HOT     ? (r >> 16 & 127 ? (uint8_t)(zero + r % 5 - 2) : high)
                                               : (uint8_t)r;
    }
    return a;
}

struct area check_u8(struct check *c, size_t n)
{
    return bytes_of(c, n, 128, 0, 255);
}

struct area check_i8(struct check *c, size_t n)
{
    return bytes_of(c, n, 0, 0x80, 0x7f);
}

struct area check_i32(struct check *c, size_t n)
{
    struct area a = check_area(c, n * 4);
    for (size_t i = 0; i < n; i++)
        ((int32_t *)a.p)[i] = (int32_t)(check_random(c) % 2001) - 1000;
    return a;
}

struct area check_weights(struct check *c, size_t n, int elem_bytes)
{
    if (elem_bytes == 4)
        return check_floats(c, n);
    struct area a = check_area(c, n * 2);
    for (size_t i = 0; i < n; i++) {
        uint16_t bits = (uint16_t)check_random(c) & 0xbfff; /* below 2: finite in both types, subnormals among them */
        ((uint16_t *)a.p)[i] = c->pattern == PATTERN_ZERO ? 0 : bits;
    }
    return a;
}

/* ---- comparing ---- */

static bool fail_begin(struct state *s)
{
    if (s->num_failures++ >= MAX_FAILURES)
        return false;
    printf("FAIL %s on %s: %s; seed %llu: ", s->kernel, cpu_isa_name(s->c.ops->isa), s->shape,
           (unsigned long long)s->seed);
    return true;
}

static void differ(struct check *c, const char *what, const struct area *want, const struct area *got, size_t row,
                   size_t elem)
{
    struct state *s = state_of(c);
    size_t n = want->bytes / elem, first = n, count = 0;
    const uint8_t *w = want->p, *g = got->p;
    for (size_t i = 0; i < n; i++)
        if (memcmp(w + i * elem, g + i * elem, elem)) {
            count++;
            first = MIN(first, i);
        }
    if (!count || !fail_begin(s))
        return;
    if (row)
        printf("%s[%zu][%zu]", what, first / row, first % row);
    else
        printf("%s[%zu]", what, first);
    if (elem == 4) {
        float x, y;
        memcpy(&x, g + first * 4, 4);
        memcpy(&y, w + first * 4, 4);
        printf(" is %a (%g), ref %a (%g)", (double)x, (double)x, (double)y, (double)y);
    } else {
        printf(" is %d, ref %d", g[first], w[first]);
    }
    printf("; %zu of %zu differ\n", count, n);
}

void check_same_f32(struct check *c, const char *what, const struct area *want, const struct area *got, size_t row)
{
    if (memcmp(want->p, got->p, want->bytes))
        differ(c, what, want, got, row, 4);
}

void check_same_bytes(struct check *c, const char *what, const struct area *want, const struct area *got, size_t row)
{
    if (memcmp(want->p, got->p, want->bytes))
        differ(c, what, want, got, row, 1);
}

void check_true(struct check *c, bool ok, const char *what)
{
    if (!ok && fail_begin(state_of(c)))
        printf("%s\n", what);
}

/* ---- timing ---- */

struct timing {
    struct bench b; /* first: the public part */
    const char *kernel;
    struct pool *pools[2]; /* of one worker, and of all */
    FILE *csv;
};

struct timed_run {
    bench_fn *fn;
    void *arg;
    int begin, end; /* iterations */
};

static void run_worker(void *arg, int worker, int num_workers)
{
    const struct timed_run *run = arg;
    for (int i = run->begin; i < run->end; i++)
        run->fn(run->arg, i, worker, num_workers);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of a call, the best of those timed. */
static double best_seconds(struct pool *pool, bench_fn *fn, void *arg)
{
    struct timed_run run = {fn, arg, 0, 1};
    double best = INFINITY, stop = now() + BENCH_SECONDS;
    for (int calls = 1; best == INFINITY || now() < stop;) {
        run.end = run.begin + calls;
        double start = now();
        pool_run(pool, run_worker, &run);
        double took = now() - start;
        run.begin = run.end % (1 << 20);
        if (took >= SAMPLE_SECONDS)
            best = fmin(best, took / calls);
        else
            calls = (int)fmin(ceil(calls * fmin(fmax(SAMPLE_SECONDS / took * 1.2, 1.2), 10)), 1 << 20);
    }
    return best;
}

/* The limits now: those of a shared machine change while it runs. */
static struct machine_peak peak_now(struct pool *pool, enum cpu_isa isa, double seconds)
{
    struct machine_peak peak;
    struct octavo_error err;
    if (machine_peak_measure(pool, isa, seconds, &peak, &err) < 0) {
        fprintf(stderr, "check_kernels: %s\n", err.msg);
        exit(2);
    }
    return peak;
}

void bench_time(struct bench *b, const struct bench_cost *cost, bench_fn *fn, void *arg, const char *shape, ...)
{
    struct timing *t = (struct timing *)b;
    char text[96];
    va_list ap;
    va_start(ap, shape);
    vsnprintf(text, sizeof(text), shape, ap);
    va_end(ap);
    for (int i = 0; i < 1 + (b->max_workers > 1); i++) {
        double seconds = best_seconds(t->pools[i], fn, arg);
        struct machine_peak peak = peak_now(t->pools[i], b->ops->isa, BESIDE_SECONDS);
        double peak_macs = cost->integer ? peak.int8_macs : peak.f32_macs;
        double compute = cost->macs / peak_macs, memory = cost->bytes / peak.read_bytes, limit = fmax(compute, memory);
        const char *bound = compute < memory ? "memory" : cost->integer ? "int8" : "float32";
        int workers = pool_num_workers(t->pools[i]);
        printf("%-18s %-10s %-30s %3d %11.1f %8.1f %8.2f %6.1f%% of %s, %.1f %s\n", t->kernel,
               cpu_isa_name(b->ops->isa), text, workers, seconds * 1e6, cost->macs / seconds / 1e9,
               cost->bytes / seconds / 1e9, 100 * limit / seconds, bound,
               (compute < memory ? peak.read_bytes : peak_macs) / 1e9, compute < memory ? "GB/s" : "GMAC/s");
        fflush(stdout);
        if (t->csv)
            fprintf(t->csv, "%s,%s,\"%s\",%d,%.9g,%.9g,%.9g,%.9g,%s\n", t->kernel, cpu_isa_name(b->ops->isa), text,
                    workers, seconds, cost->macs, cost->bytes, limit / seconds, bound);
    }
}

int bench_copies(size_t bytes)
{
    size_t far_larger = MAX((size_t)512 << 20, 4 * topology_l3_bytes()); /* as what peaks are measured with */
    return (int)((far_larger + bytes - 1) / bytes);
}

void *bench_memory(size_t bytes)
{
    bytes = (bytes + 3) / 4 * 4;
    uint32_t *p = mem_available() > bytes ? mem_map(bytes) : NULL;
    if (!p) {
        fprintf(stderr, "check_kernels: --bench needs %zu MiB more memory\n", bytes >> 20);
        exit(2);
    }
    uint32_t x = 1;
    for (size_t i = 0; i < bytes / 4; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = x ^ x >> 16;
    }
    return p;
}

float *bench_floats(size_t n)
{
    float *p = bench_memory(n * sizeof(*p));
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &p[i], 4);
        p[i] = (float)(int32_t)bits * 0x1p-31f;
    }
    return p;
}

/* ---- the program ---- */

struct options {
    const char *isa, *test, *csv;
    bool bench;
    uint64_t seed;
};

static const struct kernel_entry *entry_of(const char *name)
{
    for (size_t f = 0; f < ARRAY_LEN(families); f++)
        for (const struct kernel_entry *e = families[f]; e->name; e++)
            if (!strcmp(e->name, name))
                return e;
    return NULL;
}

static bool selected(const struct options *o, const char *kernel)
{
    return !o->test || fnmatch(o->test, kernel, 0) == 0;
}

/* The tiers to look at, from the option; the number of them. */
static int tiers_of(const struct options *o, enum cpu_isa ret[CPU_ISA_COUNT])
{
    enum cpu_isa one;
    int n = 0;
    if (o->isa && strcmp(o->isa, "all")) {
        if (cpu_isa_parse(o->isa, &one) < 0 || !cpu_isa_supported(one)) {
            fprintf(stderr, "check_kernels: --isa %s: no such tier, or not on this CPU; --list shows them\n", o->isa);
            exit(2);
        }
        ret[n++] = one;
    } else if (o->bench && !o->isa) {
        ret[n++] = cpu_isa_best();
    } else { /* ref itself where there is nothing else: what it does to its buffers is checked all the same */
        for (int isa = o->bench || cpu_isa_best() == CPU_ISA_REF ? CPU_ISA_REF : CPU_ISA_REF + 1; isa < CPU_ISA_COUNT;
             isa++)
            if (cpu_isa_supported((enum cpu_isa)isa))
                ret[n++] = (enum cpu_isa)isa;
    }
    return n;
}

static uint64_t hash_name(uint64_t seed, const char *name)
{
    for (; *name; name++)
        seed = (seed ^ (unsigned char)*name) * 0x100000001b3u;
    return seed;
}

static int check_all(const struct options *o, const enum cpu_isa *tiers, int num_tiers)
{
    struct state *s = mem_calloc(1, sizeof(*s));
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND};
    int checked = 0, failed = 0;
    running = s;
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
    s->c.ref = kernel_ops_get(CPU_ISA_REF);
    s->seed = o->seed;
    printf("check_kernels: seed %llu\n", (unsigned long long)o->seed);
    for (int t = 0; t < num_tiers; t++) {
        int passed = 0, cases = 0;
        s->c.ops = kernel_ops_get(tiers[t]);
        for (size_t k = 0; k < ARRAY_LEN(kernel_names); k++) {
            if (!selected(o, kernel_names[k]))
                continue;
            const struct kernel_entry *e = entry_of(kernel_names[k]);
            s->kernel = e->name;
            s->num_failures = s->num_cases = 0;
            s->random = hash_name(o->seed, e->name); /* the same with other kernels and without */
            for (int round = 0; round < 2; round++) {
                s->at_begin = round == 1;
                e->check(&s->c);
            }
            if (s->num_failures > MAX_FAILURES)
                printf("     %s: %d failures in all\n", s->kernel, s->num_failures);
            checked++;
            cases += s->num_cases;
            failed += s->num_failures > 0;
            passed += s->num_failures == 0;
        }
        printf("%-10s %d kernels passed, %d cases\n", cpu_isa_name(tiers[t]), passed, cases);
    }
    free(s);
    if (!checked) {
        fprintf(stderr, "check_kernels: no kernel matches '%s'; --list shows them\n", o->test);
        return 2;
    }
    return failed ? 1 : 0;
}

static int bench_all(const struct options *o, const enum cpu_isa *tiers, int num_tiers)
{
    struct timing t = {.b.max_workers = topology_num_cores()};
    int timed = 0;
    if (o->csv && !(t.csv = fopen(o->csv, "w"))) {
        fprintf(stderr, "check_kernels: cannot write --csv %s: %s\n", o->csv, strerror(errno));
        return 2;
    }
    if (t.csv)
        fputs("kernel,isa,shape,workers,seconds,macs,bytes,share,limit\n", t.csv);
    for (int i = 0; i < num_tiers; i++) {
        for (int p = 0; p < 1 + (t.b.max_workers > 1); p++) {
            if (!t.pools[p])
                t.pools[p] = pool_new(p ? t.b.max_workers : 1);
            if (!t.pools[p]) {
                fprintf(stderr, "check_kernels: cannot start threads\n");
                return 2;
            }
            struct machine_peak peak = peak_now(t.pools[p], tiers[i], PEAK_SECONDS);
            printf("%s, %d worker%s: %.1f int8 GMAC/s, %.1f float32 GMAC/s, reads %.1f GB/s\n", cpu_isa_name(tiers[i]),
                   p ? t.b.max_workers : 1, p ? "s" : "", peak.int8_macs / 1e9, peak.f32_macs / 1e9,
                   peak.read_bytes / 1e9);
        }
        printf("%-18s %-10s %-30s %3s %11s %8s %8s %7s\n", "kernel", "tier", "shape", "wrk", "us", "GMAC/s", "GB/s",
               "share");
        t.b.ops = kernel_ops_get(tiers[i]);
        for (size_t k = 0; k < ARRAY_LEN(kernel_names); k++) {
            if (!selected(o, kernel_names[k]))
                continue;
            const struct kernel_entry *e = entry_of(kernel_names[k]);
            t.kernel = e->name;
            e->bench(&t.b);
            timed++;
        }
    }
    pool_free(t.pools[0]);
    pool_free(t.pools[1]);
    if (t.csv && (ferror(t.csv) | fclose(t.csv))) {
        fprintf(stderr, "check_kernels: cannot write --csv %s: %s\n", o->csv, strerror(errno));
        return 2;
    }
    if (!timed)
        fprintf(stderr, "check_kernels: no kernel matches '%s'; --list shows them\n", o->test);
    return timed ? 0 : 2;
}

static void list(void)
{
    for (size_t k = 0; k < ARRAY_LEN(kernel_names); k++)
        printf("%s\n", kernel_names[k]);
    printf("\ntiers:");
    for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++)
        printf(" %s%s", cpu_isa_name((enum cpu_isa)isa),
               cpu_isa_supported((enum cpu_isa)isa) ? "" : " (not on this CPU)");
    printf("\n");
}

static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"isa", required_argument, NULL, 'i'},  {"test", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'}, {"bench", optional_argument, NULL, 'b'},
        {"csv", required_argument, NULL, 'c'},  {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0}};
    char *end;
    for (int opt; (opt = getopt_long(argc, argv, "h", longs, NULL)) != -1;)
        switch (opt) {
        case 'i':
            o->isa = optarg;
            break;
        case 't':
            o->test = optarg;
            break;
        case 's':
            o->seed = strtoull(optarg, &end, 0);
            if (*end || !*optarg) {
                fprintf(stderr, "check_kernels: --seed takes a number, not '%s'\n", optarg);
                return 2;
            }
            break;
        case 'b':
            o->bench = true;
            if (!optarg && optind < argc && argv[optind][0] != '-')
                optarg = argv[optind++]; /* --bench PATTERN */
            o->test = optarg ? optarg : o->test;
            break;
        case 'c':
            o->csv = optarg;
            break;
        case 'l':
            list();
            exit(0);
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            return 2;
        }
    if (optind < argc || (o->csv && !o->bench)) {
        fprintf(stderr,
                optind < argc ? "check_kernels: unexpected argument '%s'; --help shows the options\n"
                              : "check_kernels: --csv needs --bench\n",
                argv[MIN(optind, argc - 1)]);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1};
    enum cpu_isa tiers[CPU_ISA_COUNT];
    for (size_t k = 0; k < ARRAY_LEN(kernel_names); k++)
        if (!entry_of(kernel_names[k])) {
            fprintf(stderr, "check_kernels: kernels.def has %s, but nothing here checks it\n", kernel_names[k]);
            return 1;
        }
    if (parse_options(argc, argv, &o))
        return 2;
    int n = tiers_of(&o, tiers);
    setvbuf(stdout, NULL, _IOLBF, 0);
    return o.bench ? bench_all(&o, tiers, n) : check_all(&o, tiers, n);
}
