/* What one HTTP request asks of the engine: prompts times n engine requests, one eventfd that all of them signal, and
 * for each the choice that grows from its events. Streaming and not are the same here: the fragments of a choice pile
 * up until somebody writes and clears them. Owned by the thread of the HTTP request. */
#ifndef OCTAVO_SERVER_GENERATION_H
#define OCTAVO_SERVER_GENERATION_H

#include "server/api_request.h"
#include "server/logprobs.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

struct prompt {
    struct token_ids ids;
    char *text; /* as given, or decoded from ids when echo wants it; owned */
    size_t text_len;
};

struct choice {
    int index;
    const struct prompt *prompt;
    bool first_of_prompt; /* counts the prompt's tokens */
    struct octavo_request *request;
    struct detokenizer *detokenizer; /* NULL without a tokenizer */
    struct detokenizer *early;       /* without stop strings: for the first min_tokens tokens, then NULL */
    struct buf early_tail;           /* bytes of a character that early has not finished */

    /* fragments since the last choice_clear */
    struct buf text;
    struct token_ids token_ids;
    struct logprob_lists logprobs;
    struct buf prompt_logprobs; /* elements of the list; never cleared */

    int64_t num_tokens; /* output */
    int32_t num_cached_tokens;
    bool started, finished; /* started: a chunk of it was sent */
    enum octavo_finish_reason finish_reason;
    int32_t stop_token_id;   /* stop_reason, or -1 */
    const char *stop_string; /* stop_reason, or NULL; points into the request */
    size_t stop_string_len;
};

struct generation {
    const struct api_request *request;
    struct logprob_style style;
    const struct tokenizer *tok;
    struct choice *choices; /* (num_choices) */
    size_t num_choices, num_finished;
    size_t next; /* choice to look at first: fair among them */
    bool more;   /* events may be left although the eventfd was read */
    int event_fd;
};

/* Submits everything, or nothing: an error leaves no request behind. request and prompts must outlive g. */
int generation_start(struct generation *g, struct octavo_engine *engine, const struct tokenizer *tok,
                     const struct api_request *request, const struct prompt *prompts, struct octavo_error *err);
void generation_release(struct generation *g); /* aborts what still runs; fine on a zeroed struct */

/* Called after each output token, and when a choice finishes without one. Returns false to pause the pump. */
typedef bool generation_emit_fn(void *arg, struct choice *c);
/* Takes the events that are there. 1: some choice is not finished yet; 0: all are; negative: err is filled. */
int generation_pump(struct generation *g, generation_emit_fn *emit, void *arg, struct octavo_error *err);

enum generation_wake { WAKE_EVENTS, WAKE_TIMEOUT, WAKE_CLIENT_GONE, WAKE_STOP };
enum generation_wake generation_wait(struct generation *g, int client_fd, int stop_fd, int timeout_ms);

/* Bytes that all fragments hold. */
size_t choice_bytes(const struct choice *c);
void choice_clear(struct choice *c);

struct token_counts {
    int64_t prompt, completion, cached;
};
struct token_counts generation_count(const struct generation *g);

#endif
