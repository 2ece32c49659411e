/* A small quantised checkpoint, made on the spot from edits to a float one, for tests of ckpt/.
 *
 * The model is a Llama of two layers: hidden 8, two heads of 4, two KV heads, feed-forward 8, vocabulary 16, so that
 * every linear is (8, 8) but for lm_head (16, 8). Edits are separated by ';': +NAME DTYPE SHAPE VALUE   adds or
 * replaces a tensor, every element VALUE ("+q.weight I8 8x8 3") -NAME                     takes one out
 *     @KEY JSON                 sets a key of quant_model_description.json ("@kv_cache_type 'C8'")
 *     #JSON                     sets quantization_config
 * Names may begin with q. k. v. o. (layer 0's projections), A. (its self_attn.) or L. (the layer). ' stands for ". */
#ifndef TEST_QUANT_FOLDER_H
#define TEST_QUANT_FOLDER_H

#include "base/buf.h"
#include "base/json.h"
#include "ckpt/checkpoint.h"

struct item {
    char name[128], dtype[8];
    int num_dims;
    long long shape[4];
    struct buf data;
};

struct folder {
    char dir[64];
    struct item items[256];
    size_t num_items;
    json_t *description, *config;
    const char *weights; /* the file's name */
};

void folder_init(struct folder *f);    /* the float model */
void folder_release(struct folder *f); /* and removes the folder */
void folder_edit(struct folder *f, const char *edits);
/* The bytes of a tensor of one of the sizes above, to fill in by hand. */
uint8_t *folder_data(struct folder *f, const char *name);
void folder_put(const struct folder *f, const char *name, const char *data, size_t len);
void folder_write(const struct folder *f); /* config.json, description and weights */
int folder_open(const struct folder *f, struct checkpoint **ret, struct octavo_error *err); /* writes, and opens */

#endif
