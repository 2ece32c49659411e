/* Writing a checkpoint folder in ModelSlim's V1 layout, so that it appears whole or not at all. Everything goes to
 * ".NAME.partial-PID" beside the destination; the last step is a rename. Called by quantize.c on one thread; writer_put
 * may run on several for different bytes.
 *
 * Order: open, add every tensor, begin, put all bytes, add files, commit. Whatever fails: writer_free removes what was
 * written. A process that is killed leaves its partial folder, unlocked; the next writer_open for the name removes it.
 */
#ifndef OCTAVO_QUANTIZE_WRITER_H
#define OCTAVO_QUANTIZE_WRITER_H

#include "base/err.h"
#include "base/json.h"
#include "ckpt/safetensors.h"

#include <stdbool.h>

#define WRITER_PART_BYTES ((size_t)4 << 30) /* most bytes of tensors in one file, unless one tensor is larger */

struct writer;

/* dst must not exist; with overwrite it may be a checkpoint folder, or empty, and is replaced by commit. */
int writer_open(const char *dst, bool overwrite, struct writer **ret_writer, struct octavo_error *err);
/* Removes what was not committed. */
void writer_free(struct writer *w);

/* Announces a tensor; type is its word in the description ("FLOAT", "W8A8_DYNAMIC", "C8"). Names must differ. Returns
 * its number. */
int writer_add(struct writer *w, const char *name, enum dtype dtype, int num_dims, const int64_t *shape,
               const char *type);
/* Lays the tensors out in files of at most part_bytes and reserves their space. */
int writer_begin(struct writer *w, size_t part_bytes, struct octavo_error *err);
/* Writes bytes of a tensor from at on. Each byte is to be written once. */
int writer_put(struct writer *w, int tensor, size_t at, const void *data, size_t bytes, struct octavo_error *err);
/* A further file of the folder: from text, or copied from a path. name may have one folder in front. */
int writer_text(struct writer *w, const char *name, const char *text, size_t len, struct octavo_error *err);
int writer_copy(struct writer *w, const char *name, const char *from, struct octavo_error *err);
/* Writes quant_model_description.json (head's keys, then a type for each tensor) and the index, syncs everything, and
 * puts the folder in its place. */
int writer_commit(struct writer *w, const json_t *head, struct octavo_error *err);

size_t writer_bytes(const struct writer *w);    /* of all tensors; after begin */
const char *writer_dir(const struct writer *w); /* the partial folder */

#endif
