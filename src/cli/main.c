/* octavo: finds the subcommand and hands over. Main thread. */
#include "cli/cmd_bench.h"
#include "cli/cmd_chat.h"
#include "cli/cmd_eval.h"
#include "cli/cmd_generate.h"
#include "cli/cmd_inspect.h"
#include "cli/cmd_quantize.h"
#include "cli/cmd_serve.h"
#include "cli/cmd_tokenize.h"
#include "cli/options.h"

#include "base/mem.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static int cmd_version(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", cmd_serve, "serve a model over HTTP to OpenAI clients"},
    {"generate", cmd_generate, "continue a text, or answer one message"},
    {"chat", cmd_chat, "talk with a model at the terminal"},
    {"eval", cmd_eval, "measure a model's perplexity on a text, and how far it is from another"},
    {"bench", cmd_bench, "measure speed: latency, throughput, and a sweep over context depths"},
    {"quantize", cmd_quantize, "make a W8A8C8 checkpoint from a float one"},
    {"inspect", cmd_inspect, "check a checkpoint as serving would, and show what is in it"},
    {"tokenize", cmd_tokenize, "show how a text is cut into tokens"},
    {"version", cmd_version, "print the version"},
};

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("octavo %s\n", octavo_version());
    return 0;
}

static void print_help(FILE *f)
{
    fputs("usage: octavo COMMAND [MODEL] [flags]\n\nAn LLM serving engine. MODEL is the folder of a Hugging Face "
          "checkpoint; without one the bundled model is used.\n\n",
          f);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n`octavo COMMAND --help` teaches a command.\n", f);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    const char *names[ARRAY_LEN(commands)], *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(word, "--version"))
        word = "version";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        names[i] = commands[i].name;
        if (!strcmp(word, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    }
    const char *close = closest_word(word, names, ARRAY_LEN(names));
    fprintf(stderr, "octavo: there is no command '%s'%s%s%s; `octavo --help` lists them\n", word,
            close ? "; did you mean " : "", close ? close : "", close ? "?" : "");
    return 2;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a reader that leaves is an error of a write, not the end of the program */
    int r = run(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && r == 0) {
        fputs("octavo: cannot write to standard output\n", stderr);
        r = 1;
    }
    return r;
}
