/* octavo generate: continues a prompt, or answers it through the chat template, and prints just the text. Main thread.
 */
#include "cli/cmd_generate.h"

#include "base/mem.h"
#include "cli/engine_options.h"
#include "cli/input.h"
#include "cli/model_path.h"
#include "cli/sampling_options.h"
#include "cli/session.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct generate_flags {
    const char *prompt, *file, *system;
    bool chat, echo, stats, special;
};

#define AT(field) .offset = offsetof(struct generate_flags, field)

static const struct option_spec specs[] = {
    {"p,prompt", OPTION_STRING, AT(prompt), .group = "Prompt", .metavar = "TEXT",
     .help = "The text to continue. Without it and --file, the prompt is read from standard input."},
    {"f,file", OPTION_STRING, AT(file), .metavar = "FILE", .help = "Read the prompt from FILE."},
    {"chat", OPTION_SWITCH, AT(chat),
     .help = "Treat the prompt as a user's message and answer it through the chat template."},
    {"system", OPTION_STRING, AT(system), .metavar = "TEXT", .help = "System message; implies --chat."},
    {"echo", OPTION_SWITCH, AT(echo), .help = "Print the prompt in front of its continuation."},
    {"show-special-tokens", OPTION_SWITCH, AT(special), .help = "Print tokens such as <|im_end|> as text."},
    {"stats", OPTION_SWITCH, AT(stats), .help = "Print tokens, time to the first one and speed to standard error."},
};

static const char intro[] = "usage: octavo generate [MODEL] -p TEXT [flags]\n"
                            "\n"
                            "Continues a text and prints the continuation as it is made.\n"
                            "\n"
                            "  octavo generate -p \"Once upon a time\" --max-tokens 64 --temperature 0\n"
                            "  octavo generate ./Qwen3-0.6B --chat -p \"What is a folio?\" --max-tokens 200\n"
                            "  cat story.txt | octavo generate --stats\n";

static atomic_bool stop;

static void on_interrupt(int sig)
{
    (void)sig;
    atomic_store(&stop, true);
}

static int encode(struct session *s, const struct generate_flags *flags, const struct buf *prompt,
                  struct token_ids *ids, struct octavo_error *err)
{
    if (!flags->chat && !flags->system)
        return tokenizer_encode(s->tok, buf_str(prompt), prompt->len, TOKENIZER_ADD_SPECIAL, ids, err);
    json_t *messages = json_array(), *content = json_stringn(buf_str(prompt), prompt->len);
    if (flags->system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", flags->system));
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    struct chat_template_input in = {.messages = messages, .add_generation_prompt = true};
    struct buf text = {0};
    int r = content ? chat_template_render(s->template, &in, &text, err)
                    : error_set(err, OCTAVO_EINVAL, "the prompt is not valid UTF-8");
    if (r == 0)
        r = tokenizer_encode(s->tok, buf_str(&text), text.len, 0, ids, err);
    buf_release(&text);
    json_decref(messages);
    return r;
}

static int generate(const struct engine_flags *engine, struct sampling_flags *sampling,
                    const struct generate_flags *flags, int64_t seed, struct octavo_error *err)
{
    struct session s = {0};
    struct octavo_engine_options opts;
    struct octavo_sampling_params params;
    struct buf prompt = {0};
    struct token_ids ids = {0};
    struct answer a;
    char *model = NULL;
    int r;
    if (engine->skip_tokenizer_init)
        return error_set_param(
            err, OCTAVO_EINVAL, "skip-tokenizer-init",
            "`octavo generate` works on text and needs the tokenizer: leave --skip-tokenizer-init out");
    if ((r = sampling_flags_check(sampling, err)) < 0 || (r = model_path_find(engine->model, &model, err)) < 0 ||
        (r = engine_flags_apply(engine, model, &opts, err)) < 0 ||
        (r = input_read(flags->prompt, flags->file, &prompt, err)) < 0 ||
        (r = session_open(&s, &opts, engine->tokenizer ? engine->tokenizer : model, engine->chat_template, err)) < 0 ||
        (r = encode(&s, flags, &prompt, &ids, err)) < 0)
        goto out;
    struct detokenizer_options det = {.skip_special_tokens = !flags->special};
    sampling_flags_apply(sampling, octavo_engine_info(s.engine), !strcmp(engine->generation_config, "auto"), seed,
                         &params, &det);
    if (flags->echo)
        fwrite(buf_str(&prompt), 1, prompt.len, stdout);
    signal(SIGINT, on_interrupt);
    r = session_answer(&s, &ids, &params, &det, &stop, stdout, NULL, &a, err);
    if (r == 0) {
        putchar('\n');
        if (flags->stats)
            fprintf(stderr, "%zu tokens in, %zu out; first after %.3f s, then %.1f tokens/s\n", a.num_prompt_tokens,
                    a.num_tokens, a.first_seconds,
                    a.num_tokens > 1 ? (double)(a.num_tokens - 1) / (a.total_seconds - a.first_seconds) : 0.0);
    }
    if (r == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = error_set(err, OCTAVO_EIO, "cannot write to standard output");
out:
    session_close(&s);
    token_ids_release(&ids);
    buf_release(&prompt);
    free(model);
    return r;
}

int cmd_generate(int argc, char **argv)
{
    struct engine_flags engine;
    struct sampling_flags sampling;
    struct generate_flags flags = {0};
    struct option_list words = {0};
    struct octavo_error err = {0};
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
        r = generate(&engine, &sampling, &flags, seed, &err);
    }
    if (r < 0)
        fprintf(stderr, "octavo generate: %s\n", err.msg);
    option_list_release(&words);
    sampling_flags_release(&sampling);
    return r < 0 ? 1 : atomic_load(&stop) ? 130 : 0;
}
