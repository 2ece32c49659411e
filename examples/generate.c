/* Generates from token ids with liboctavo alone: no server, no tokenizer.
 *
 *     cc generate.c -o generate $(pkg-config --cflags --libs octavo)
 *     ./generate MODEL_DIR MAX_TOKENS ID [ID...]
 *
 * Prints each token's id as it comes, with its logprob, then why the request ended. `octavo tokenize` and the server's
 * /detokenize turn text into ids and back. */
#include <octavo/octavo.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Parses a whole number in [min, max]; says what is wrong and ends the program otherwise. */
static long parse_number(const char *what, const char *text, long min, long max)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max) {
        fprintf(stderr, "generate: %s must be a whole number from %ld to %ld, not \"%s\"\n", what, min, max, text);
        exit(2);
    }
    return value;
}

static const char *finish_reason_name(enum octavo_finish_reason reason)
{
    switch (reason) {
    case OCTAVO_FINISH_STOP:
        return "stop";
    case OCTAVO_FINISH_LENGTH:
        return "length";
    case OCTAVO_FINISH_ABORT:
        return "abort";
    default:
        return "error";
    }
}

static void show_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    (void)arg;
    if (done == total)
        fprintf(stderr, "%s: %.1f MB\n", phase, (double)total / 1e6);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL_DIR MAX_TOKENS ID [ID...]\n", argv[0]);
        return 2;
    }
    int ret = 1;
    struct octavo_error err;
    struct octavo_engine *engine = NULL;
    struct octavo_request *request = NULL;

    size_t num_prompt_tokens = (size_t)(argc - 3);
    int32_t *prompt = calloc(num_prompt_tokens, sizeof(*prompt));
    if (!prompt)
        return 1;
    for (size_t i = 0; i < num_prompt_tokens; i++)
        prompt[i] = (int32_t)parse_number("ID", argv[i + 3], 0, INT32_MAX);

    struct octavo_engine_options options;
    octavo_engine_options_init(&options);
    options.model = argv[1];
    options.progress = show_progress;
    if (octavo_engine_open(&options, &engine, &err) < 0) {
        fprintf(stderr, "generate: %s\n", err.msg);
        goto out;
    }
    const struct octavo_engine_info *info = octavo_engine_info(engine);
    fprintf(stderr, "octavo %s: %s, %lld parameters, %d threads of %s\n", octavo_version(), info->architecture,
            (long long)info->num_parameters, info->num_threads, info->isa);

    struct octavo_request_params params = {
        .prompt_token_ids = prompt,
        .num_prompt_tokens = num_prompt_tokens,
    };
    octavo_sampling_params_init(&params.sampling);
    params.sampling.temperature = 0;
    params.sampling.max_tokens = parse_number("MAX_TOKENS", argv[2], 1, INT32_MAX);
    params.sampling.logprobs = 0; /* that of the token itself */
    if (octavo_submit(engine, &params, &request, &err) < 0) {
        fprintf(stderr, "generate: %s%s%s\n", err.param, err.param[0] ? ": " : "", err.msg);
        goto out;
    }

    struct octavo_event event;
    while (octavo_request_next(request, &event, -1) > 0) {
        if (event.type == OCTAVO_EVENT_TOKEN)
            printf("%d\t%.4f\n", event.token_id, (double)event.logprob.logprob);
        if (event.finish_reason != OCTAVO_FINISH_NONE) {
            printf("finish_reason: %s\n", finish_reason_name(event.finish_reason));
            ret = event.finish_reason == OCTAVO_FINISH_ERROR;
        }
        fflush(stdout);
    }
out:
    octavo_request_free(request);
    octavo_engine_close(engine);
    free(prompt);
    return ret;
}
