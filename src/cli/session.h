/* What `generate` and `chat` share: a model opened for one user at a terminal, and one answer at a time. Main thread.
 */
#ifndef OCTAVO_CLI_SESSION_H
#define OCTAVO_CLI_SESSION_H

#include "base/err.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

#include <stdatomic.h>
#include <stdio.h>

struct session {
    struct tokenizer *tok;
    struct chat_template *template;
    struct octavo_engine *engine;
};

/* Opens the tokenizer and the template of tokenizer_dir (template_path replaces the latter; may be NULL) and the engine
 * of opts->model, with a progress bar when stderr is a terminal. */
int session_open(struct session *s, struct octavo_engine_options *opts, const char *tokenizer_dir,
                 const char *template_path, struct octavo_error *err);
void session_close(struct session *s);

struct answer {
    enum octavo_finish_reason reason;
    bool interrupted; /* by *stop_flag */
    size_t num_prompt_tokens, num_tokens;
    double first_seconds, total_seconds; /* to the first token, to the last */
};

/* Runs one prompt and writes the text to out as it comes (flushed) and, when text is not NULL, appends it there. The
 * strings of det->stop end it. A true *stop_flag (set by a signal handler; may be NULL) aborts the request. */
int session_answer(struct session *s, const struct token_ids *prompt, const struct octavo_sampling_params *sampling,
                   const struct detokenizer_options *det, const atomic_bool *stop_flag, FILE *out, struct buf *text,
                   struct answer *ret_answer, struct octavo_error *err);

#endif
