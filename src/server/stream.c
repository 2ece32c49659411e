/* Server-sent events of one job: see job.h. MHD pulls: it calls the reader whenever the connection can take more, so a
 * slow client slows only itself, and the events it has not taken wait in its own requests. */
#include "server/job.h"

#include "base/mem.h"

#include <string.h>

/* Proxies and clients cut a stream that is silent for long (a minute is common): say something before. */
#define PING_MS 15000
/* Do not build more chunks than this ahead of the client. */
#define MAX_AHEAD_BYTES (64 << 10)

static bool emit_chunk(void *arg, struct choice *c)
{
    struct job *j = arg;
    buf_puts(&j->out, "data: ");
    write_chunk(&j->out, &j->head, &j->generation, c);
    buf_puts(&j->out, "\n\n");
    return j->out.len < MAX_AHEAD_BYTES;
}

static void end_with_error(struct job *j)
{
    buf_puts(&j->out, "data: {\"error\":");
    write_error_object(&j->out, http_status_of(j->err.code), &j->err);
    buf_puts(&j->out, "}\n\ndata: [DONE]\n\n");
    j->ended = true;
}

static void end_well(struct job *j)
{
    if (j->request.include_usage) {
        buf_puts(&j->out, "data: ");
        write_usage_chunk(&j->out, &j->head, &j->generation);
        buf_puts(&j->out, "\n\n");
    }
    buf_puts(&j->out, "data: [DONE]\n\n");
    j->ended = true;
}

/* A ping tells that the engine works. When it makes no step, silence is the truth, and the client may give up. */
static void ping(struct job *j)
{
    struct octavo_engine_stats stats;
    octavo_engine_get_stats(j->model->engine, &stats);
    if (stats.steps != j->last_steps)
        buf_puts(&j->out, ": ping\n\n");
    j->last_steps = stats.steps;
}

/* Fills j->out with at least something, or fails because the client is gone. */
static int next_events(struct job *j)
{
    while (j->out.len == 0) {
        switch (generation_wait(&j->generation, exchange_socket(j->ex), j->ex->server->stop_fd, PING_MS)) {
        case WAKE_CLIENT_GONE:
            j->ex->failed = true;
            return -1;
        case WAKE_STOP:
            error_set(&j->err, OCTAVO_EBUSY, "the server is shutting down and stopped the request");
            end_with_error(j);
            break;
        case WAKE_TIMEOUT:
            ping(j);
            break;
        case WAKE_EVENTS: {
            int r = generation_pump(&j->generation, emit_chunk, j, &j->err);
            if (r == 0)
                end_well(j);
            else if (r < 0)
                end_with_error(j);
            break;
        }
        }
    }
    return 0;
}

static ssize_t read_events(void *arg, uint64_t pos, char *buf, size_t max)
{
    struct job *j = arg;
    (void)pos;
    connection_set_deadline(j->ex->connection, 0);
    if (j->out_at == j->out.len) {
        buf_clear(&j->out);
        j->out_at = 0;
        if (j->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (next_events(j) < 0) {
            /* now, not when MHD gets round to it: others wait for its place */
            job_stop(j);
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
    size_t n = MIN(max, j->out.len - j->out_at);
    memcpy(buf, j->out.data + j->out_at, n);
    j->out_at += n;
    /* from here on it is the client's turn */
    connection_set_deadline(j->ex->connection, j->ex->server->opts.stall_seconds);
    return (ssize_t)n;
}

static void release_stream(void *arg)
{
    job_free(arg);
}

enum MHD_Result job_stream(struct job *j)
{
    return exchange_reply_stream(j->ex, read_events, j, release_stream);
}
