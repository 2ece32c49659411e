/* One generating HTTP request from parsed to answered: everything that must live until its last byte is sent. Owned by
 * the connection's thread; a stream's job is freed by libmicrohttpd when the response ends, however it ends. */
#ifndef OCTAVO_SERVER_JOB_H
#define OCTAVO_SERVER_JOB_H

#include "server/answer.h"
#include "server/exchange.h"

struct job {
    struct exchange *ex;
    const struct server_model *model;
    struct api_request request;
    struct prompt *prompts; /* (num_prompts) */
    size_t num_prompts;
    struct generation generation;
    struct answer_head head;
    size_t bytes; /* of a whole answer so far */
    struct octavo_error err;

    /* streams */
    struct buf out; /* events not yet handed to the connection */
    size_t out_at;
    bool ended;          /* nothing comes after out */
    uint64_t last_steps; /* of the engine, at the last ping */
};

/* Aborts what still runs, here or in job_free. Unfinished and without an error means that the client left: a wait saw
 * it, or a send of libmicrohttpd's, which ends the connection without asking. j->ex may be gone already. */
void job_stop(struct job *j);
void job_free(struct job *j);
/* Answers j's exchange with a stream; takes j over. */
enum MHD_Result job_stream(struct job *j);

#endif
