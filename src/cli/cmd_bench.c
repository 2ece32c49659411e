/* octavo bench: finds the benchmark and hands over. Main thread. */
#include "cli/cmd_bench.h"

#include "base/mem.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} benches[] = {
    {"latency", cmd_bench_latency,
     "one batch at a time: seconds for a whole answer, its first token, each further one"},
    {"throughput", cmd_bench_throughput, "many requests at once: requests and tokens per second"},
    {"sweep", cmd_bench_sweep, "prefill and decode speed against context depth, beside the machine's limits"},
};

static void print_help(FILE *f)
{
    fputs("usage: octavo bench COMMAND [MODEL] [flags]\n\n"
          "Measures speed through the engine, with random tokens and without a tokenizer. A folder with a config.json\n"
          "is enough with --load-format dummy; bench/configs has the published dimensions of Qwen3.\n\n",
          f);
    for (size_t i = 0; i < ARRAY_LEN(benches); i++)
        fprintf(f, "  %-10s  %s\n", benches[i].name, benches[i].help);
    fputs("\n  octavo bench latency bench/configs/qwen3-0.6b --load-format dummy --quantization w8a8 "
          "--kv-cache-dtype int8\n"
          "\n`octavo bench COMMAND --help` teaches a command.\n",
          f);
}

int cmd_bench(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    const char *names[ARRAY_LEN(benches)];
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(benches); i++) {
        names[i] = benches[i].name;
        if (!strcmp(argv[1], benches[i].name))
            return benches[i].run(argc - 1, argv + 1);
    }
    const char *close = closest_word(argv[1], names, ARRAY_LEN(names));
    fprintf(stderr, "octavo bench: there is no benchmark '%s'%s%s%s; `octavo bench --help` lists them\n", argv[1],
            close ? "; did you mean " : "", close ? close : "", close ? "?" : "");
    return 2;
}
