/* Continues a text with liboctavo: the whole library in one small program.
 *
 *     cc generate.c -o generate $(pkg-config --cflags --libs octavo)
 *     ./generate MODEL_DIR "Once upon a time" [MAX_TOKENS]
 *
 * Prints the continuation as it comes, greedily, then why it ended. */
#include <octavo/octavo.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const finish_reasons[] = {
    [OCTAVO_FINISH_NONE] = "",       [OCTAVO_FINISH_STOP] = "stop",   [OCTAVO_FINISH_LENGTH] = "length",
    [OCTAVO_FINISH_ABORT] = "abort", [OCTAVO_FINISH_ERROR] = "error",
};

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL_DIR PROMPT [MAX_TOKENS]\n", argv[0]);
        return 2;
    }
    int ret = 1;
    struct octavo_error err = {0};
    struct octavo_tokenizer *tok = NULL;
    struct octavo_detokenizer *text = NULL;
    struct octavo_engine *engine = NULL;
    struct octavo_request *request = NULL;
    struct octavo_request_params params = {0};
    int32_t *prompt = NULL;

    /* A tokenizer and an engine are opened once and serve any number of requests, from any thread. */
    struct octavo_engine_options options;
    octavo_engine_options_init(&options);
    options.model = argv[1];
    if (octavo_tokenizer_open(argv[1], &tok, &err) < 0)
        goto out;
    options.tokenizer_vocab_size = octavo_tokenizer_vocab_size(tok);
    if (octavo_engine_open(&options, &engine, &err) < 0)
        goto out;

    /* A request: token ids and how to sample. */
    if (octavo_tokenize(tok, argv[2], strlen(argv[2]), true, &prompt, &params.num_prompt_tokens, &err) < 0)
        goto out;
    params.prompt_token_ids = prompt;
    octavo_sampling_params_init(&params.sampling);
    params.sampling.temperature = 0;
    params.sampling.max_tokens = argc > 3 ? strtol(argv[3], NULL, 10) : 64;
    if (octavo_submit(engine, &params, &request, &err) < 0)
        goto out;

    /* Events come one token at a time; the last one says why it was the last. */
    struct octavo_event event = {0};
    const char *piece;
    size_t len;
    text = octavo_detokenizer_new(tok);
    while (octavo_request_next(request, &event, -1) == 1) {
        if (event.type != OCTAVO_EVENT_TOKEN || event.finish_reason == OCTAVO_FINISH_STOP)
            continue;
        octavo_detokenizer_push(text, event.token_id, &piece, &len);
        fwrite(piece, 1, len, stdout);
        fflush(stdout);
    }
    octavo_detokenizer_finish(text, &piece, &len);
    fwrite(piece, 1, len, stdout);
    printf("\n[%s]\n", finish_reasons[event.finish_reason]);
    ret = event.finish_reason == OCTAVO_FINISH_ERROR;
out:
    if (ret)
        fprintf(stderr, "generate: %s\n", err.msg);
    octavo_request_free(request);
    octavo_engine_close(engine);
    octavo_detokenizer_free(text);
    octavo_tokenizer_close(tok);
    octavo_free(prompt);
    return ret;
}
