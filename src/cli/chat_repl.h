/* The conversation of `octavo chat`: reads lines, keeps the messages, streams the answers. Main thread. */
#ifndef OCTAVO_CLI_CHAT_REPL_H
#define OCTAVO_CLI_CHAT_REPL_H

#include "cli/session.h"

struct chat_options {
    const char *system; /* first message, or NULL */
    struct octavo_sampling_params sampling;
    struct detokenizer_options det;
    bool stats; /* print speed after each answer */
};

/* Runs until the end of input or /exit. 0, or an error that no further line could mend. */
int chat_repl(struct session *s, const struct chat_options *opts, struct octavo_error *err);

#endif
