/* The text a command works on: from a flag, a file or standard input. */
#ifndef OCTAVO_CLI_INPUT_H
#define OCTAVO_CLI_INPUT_H

#include "base/buf.h"
#include "base/err.h"

#define INPUT_MAX_BYTES ((size_t)64 << 20)

/* Appends text, or the contents of file, or all of standard input: the first that is not NULL. Both is an error. */
int input_read(const char *text, const char *file, struct buf *out, struct octavo_error *err);

#endif
