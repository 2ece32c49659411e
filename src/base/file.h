/* Whole files: mapped read-only, or read with a limit. Errors name the path. */
#ifndef OCTAVO_BASE_FILE_H
#define OCTAVO_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A read-only mapping; data is NULL when the file is empty. */
struct file_map {
    const uint8_t *data;
    size_t size; /* bytes */
};

int file_map_open(const char *path, struct file_map *ret_map, struct octavo_error *err);
void file_map_close(struct file_map *map); /* also fine on a zeroed struct */
/* Appends the file to *out; more than max_bytes is an error. Only regular files are read. */
int file_read(const char *path, size_t max_bytes, struct buf *out, struct octavo_error *err);
bool file_exists(const char *path);
char *path_join(const char *dir, const char *name); /* caller frees */

#endif
