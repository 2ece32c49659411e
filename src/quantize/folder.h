/* A folder that appears whole: made beside its destination under a name of its own, renamed at the end. Called by
 * writer.c on one thread. */
#ifndef OCTAVO_QUANTIZE_FOLDER_H
#define OCTAVO_QUANTIZE_FOLDER_H

#include "base/err.h"

#include <stdbool.h>

struct folder {
    char *dst, *parent, *base; /* parent/base is dst */
    char *partial;             /* parent/.base.partial-PID; NULL once committed */
    int lock_fd;               /* flock on partial: tells a living writer from a killed one */
    bool open, overwrite;
};

/* Removes what killed runs left for this destination, and makes the partial folder. Zeroes *f first; folder_close is
 * fine after an error. */
int folder_open(struct folder *f, const char *dst, bool overwrite, struct octavo_error *err);
/* Makes the folder that name ("sub/file") lies in. */
int folder_make_parent(const struct folder *f, const char *name, struct octavo_error *err);
int folder_commit(struct folder *f, struct octavo_error *err);
/* Removes what was not committed. */
void folder_close(struct folder *f);

#endif
