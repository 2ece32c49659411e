/* Sessions at a terminal: see session.h. */
#include "cli/session.h"

#include "cli/engine_options.h"
#include "cli/profile.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS 50 /* how long an interrupt may go unnoticed */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int session_open(struct session *s, struct octavo_engine_options *opts, const char *tokenizer_dir,
                 const char *template_path, struct octavo_error *err)
{
    *s = (struct session){0};
    struct load_progress progress = {0};
    int r;
    if ((r = tokenizer_open(tokenizer_dir, &s->tok, err)) < 0 ||
        (r = chat_template_open(tokenizer_dir, template_path, s->tok, &s->template, err)) < 0)
        goto fail;
    opts->tokenizer_vocab_size = tokenizer_vocab_size(s->tok);
    if (isatty(STDERR_FILENO)) { /* in a pipe, only what was asked for */
        opts->progress = load_progress_update;
        opts->progress_arg = &progress;
    }
    r = octavo_engine_open(opts, &s->engine, err);
    if (progress.open)
        fputs("\r\033[K", stderr); /* the bar has done its work */
    if (r == 0)
        return 0;
fail:
    session_close(s);
    return r;
}

void session_close(struct session *s)
{
    profile_print(s->engine, stderr);
    octavo_engine_close(s->engine);
    chat_template_free(s->template);
    tokenizer_free(s->tok);
    *s = (struct session){0};
}

static void emit(struct buf *piece, FILE *out, struct buf *text)
{
    if (!piece->len)
        return;
    fwrite(piece->data, 1, piece->len, out);
    fflush(out);
    if (text)
        buf_append(text, piece->data, piece->len);
    buf_clear(piece);
}

int session_answer(struct session *s, const struct token_ids *prompt, const struct octavo_sampling_params *sampling,
                   const struct detokenizer_options *det, const atomic_bool *stop_flag, FILE *out, struct buf *text,
                   struct answer *ret_answer, struct octavo_error *err)
{
    struct octavo_request_params params = {
        .prompt_token_ids = prompt->ids, .num_prompt_tokens = prompt->len, .sampling = *sampling};
    struct octavo_request *request;
    double start = now();
    int r = octavo_submit(s->engine, &params, &request, err);
    if (r < 0)
        return r;
    struct detokenizer *d = detokenizer_new(s->tok, det);
    struct buf piece = {0};
    *ret_answer = (struct answer){.num_prompt_tokens = prompt->len};
    for (bool done = false; !done;) {
        struct octavo_event event;
        if (stop_flag && atomic_load(stop_flag)) {
            ret_answer->interrupted = true;
            octavo_request_abort(request);
        }
        if (octavo_request_next(request, &event, POLL_MS) == 0)
            continue;
        if (event.type == OCTAVO_EVENT_TOKEN) {
            if (ret_answer->num_tokens++ == 0)
                ret_answer->first_seconds = now() - start;
            /* the token that ended it is not text */
            if (event.finish_reason != OCTAVO_FINISH_STOP && detokenizer_push(d, event.token_id, &piece) >= 0) {
                ret_answer->reason = OCTAVO_FINISH_STOP;
                emit(&piece, out, text);
                goto out;
            }
        }
        ret_answer->reason = event.finish_reason;
        done = event.finish_reason != OCTAVO_FINISH_NONE;
        if (done)
            detokenizer_finish(d, &piece);
        emit(&piece, out, text);
        if (ferror(out)) { /* nobody reads any more: `octavo generate | head` */
            r = error_set(err, OCTAVO_EIO, "cannot write the answer: %s", strerror(errno));
            goto out;
        }
    }
    if (ret_answer->reason == OCTAVO_FINISH_ERROR)
        r = error_set(err, OCTAVO_EINTERNAL, "the model's output is not a number; is the checkpoint damaged?");
out:
    ret_answer->total_seconds = now() - start;
    octavo_request_free(request);
    detokenizer_free(d);
    buf_release(&piece);
    return r;
}
