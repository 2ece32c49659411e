/* octavo chat: flags and opening; the conversation itself is chat_repl.c. Main thread. */
#include "cli/cmd_chat.h"

#include "base/mem.h"
#include "cli/chat_repl.h"
#include "cli/engine_options.h"
#include "cli/model_path.h"
#include "cli/sampling_options.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat_flags {
    const char *system;
    bool stats;
};

#define AT(field) .offset = offsetof(struct chat_flags, field)

static const struct option_spec specs[] = {
    {"system", OPTION_STRING, AT(system), .group = "Chat", .metavar = "TEXT", .help = "System message."},
    {"stats", OPTION_SWITCH, AT(stats), .help = "Print tokens and speed after each answer."},
};

static const char intro[] = "usage: octavo chat [MODEL] [flags]\n"
                            "\n"
                            "A conversation at the terminal. /help lists what can be typed; Ctrl-C stops an answer,\n"
                            "Ctrl-D leaves. With standard input from a pipe each line is a message.\n"
                            "\n"
                            "  octavo chat\n"
                            "  octavo chat ./Qwen3-0.6B --system \"Answer in one sentence.\" --temperature 0.7\n";

static int chat(const struct engine_flags *engine, struct sampling_flags *sampling, const struct chat_flags *flags,
                int64_t seed, struct octavo_error *err)
{
    struct session s = {0};
    struct octavo_engine_options opts;
    struct chat_options chat_opts = {.system = flags->system, .stats = flags->stats, .det.skip_special_tokens = true};
    char *model = NULL;
    int r;
    if (engine->skip_tokenizer_init)
        return error_set_param(err, OCTAVO_EINVAL, "skip-tokenizer-init",
                               "`octavo chat` works on text and needs the tokenizer: leave --skip-tokenizer-init out");
    if ((r = sampling_flags_check(sampling, err)) < 0 || (r = model_path_find(engine->model, &model, err)) < 0 ||
        (r = engine_flags_apply(engine, model, &opts, err)) < 0)
        goto out;
    if (!opts.max_num_seqs)
        opts.max_num_seqs = 1; /* one user: KV for one conversation */
    if ((r = session_open(&s, &opts, engine->tokenizer ? engine->tokenizer : model, engine->chat_template, err)) < 0)
        goto out;
    const struct octavo_engine_info *info = octavo_engine_info(s.engine);
    sampling_flags_apply(sampling, info, !strcmp(engine->generation_config, "auto"), seed, &chat_opts.sampling,
                         &chat_opts.det);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        printf("%s, %.1fM parameters, context of %lld tokens, %s on %d threads. /help for help.\n", info->model,
               (double)info->num_parameters / 1e6, (long long)info->max_model_len, info->isa, info->num_threads);
    r = chat_repl(&s, &chat_opts, err);
out:
    session_close(&s);
    free(model);
    return r;
}

int cmd_chat(int argc, char **argv)
{
    struct engine_flags engine;
    struct sampling_flags sampling;
    struct chat_flags flags = {0};
    struct option_list words = {0};
    struct octavo_error err = {0};
    setlocale(LC_CTYPE, ""); /* so that line editing knows the width of what is typed; numbers stay in C */
    engine_flags_init(&engine);
    engine.log_level = "warning";
    engine.seed = -1;
    sampling_flags_init(&sampling);
    const struct option_set sets[] = {
        {specs, ARRAY_LEN(specs), &flags}, sampling_flags_set(&sampling), engine_flags_set(&engine)};
    int r = options_parse(sets, ARRAY_LEN(sets), argc, argv, &words, 1, &err);
    if (r == 1) {
        fputs(intro, stdout);
        options_print_help(stdout, sets, ARRAY_LEN(sets));
        r = 0;
    } else if (r == 0) {
        if (words.len)
            engine.model = words.items[0];
        int64_t seed = engine.seed;
        engine.seed = MAX(seed, 0);
        r = chat(&engine, &sampling, &flags, seed, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo chat: %s\n", err.msg);
    option_list_release(&words);
    sampling_flags_release(&sampling);
    return r < 0 ? 1 : 0;
}
