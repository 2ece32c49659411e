/* A file that a command writes its results to. It is opened before any work, so that a bad path costs no time, and what
 * it held stays until there is something to write. Main thread. */
#ifndef OCTAVO_CLI_OUTPUT_H
#define OCTAVO_CLI_OUTPUT_H

#include "base/err.h"

#include <stdbool.h>
#include <stdio.h>

struct output {
    const char *flag, *path; /* borrowed; path NULL: nobody asked for it, and every call does nothing */
    FILE *f;
    bool created; /* by us: taken away again when nothing comes of it */
};

/* flag ("--json") is for messages; path may be NULL, and "-" is standard output. */
int output_open(struct output *o, const char *flag, const char *path, struct octavo_error *err);
/* Before the first write: empties the file. Returns where to write, or NULL with an error. */
FILE *output_begin(struct output *o, struct octavo_error *err);
/* After the last write. */
int output_finish(struct output *o, struct octavo_error *err);
/* Closes; failed: the file goes away if it was not there before. Fine on a zeroed struct. */
void output_close(struct output *o, bool failed);

#endif
