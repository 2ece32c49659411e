/* The safetensors files of a folder, private to ckpt/. */
#ifndef OCTAVO_CKPT_SHARDS_H
#define OCTAVO_CKPT_SHARDS_H

#include "base/strmap.h"
#include "ckpt/safetensors.h"

/* Zero-initialise; shards_release frees. */
struct shards {
    struct safetensors_file *files; /* (num_files) */
    size_t num_files;
    const struct tensor **tensors; /* (num_tensors), file by file; the names are unique */
    size_t num_tensors;
    struct strmap by_name; /* index in tensors */
};

/* Opens model.safetensors.index.json's shards, else model.safetensors, else every *.safetensors of the folder.
 * quant_suffix is not NULL for a ModelSlim folder ("" or "_w8a8": the end of its description's name): its own files
 * (quant_model_weight*) come first, so that a float checkpoint in the same folder is left alone. Subfolders are never
 * read. */
int shards_open(const char *dir, const char *quant_suffix, struct shards *ret, struct octavo_error *err);
void shards_release(struct shards *s);

#endif
