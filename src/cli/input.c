/* Input of commands: see input.h. */
#include "cli/input.h"

#include "base/file.h"

#include <stdio.h>

int input_read(const char *text, const char *file, struct buf *out, struct octavo_error *err)
{
    if (text && file)
        return error_set(err, OCTAVO_EINVAL, "give the text or --file, not both");
    if (text) {
        buf_puts(out, text);
        return 0;
    }
    if (file)
        return file_read(file, INPUT_MAX_BYTES, out, err);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), stdin)) > 0;) {
        if (out->len + n > INPUT_MAX_BYTES)
            return error_set(err, OCTAVO_EINVAL, "standard input is longer than %zu bytes", INPUT_MAX_BYTES);
        buf_append(out, chunk, n);
    }
    return 0;
}
