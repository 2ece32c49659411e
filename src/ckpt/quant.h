/* Finds out how a checkpoint is quantised, private to ckpt/. Loading thread. */
#ifndef OCTAVO_CKPT_QUANT_H
#define OCTAVO_CKPT_QUANT_H

#include "base/json.h"
#include "ckpt/linear.h"

enum quant_format { QUANT_NONE, QUANT_MODELSLIM, QUANT_COMPRESSED };

/* Zero-initialise; quant_release frees. */
struct quant {
    enum quant_format format;
    char *path;                   /* the file that says so, for messages */
    json_t *description;          /* ModelSlim */
    char *suffix;                 /* ModelSlim: "_w8a8" of quant_model_description_w8a8.json, or "" */
    bool c8;                      /* ModelSlim: layers with scales have an INT8 cache */
    struct ct_config *compressed; /* compressed-tensors */
};

/* Detection in upstream's order: a ModelSlim description in dir (may be NULL: no folder) first, then config's
 * quantization_config; other methods than compressed-tensors are refused by name. what names config's file. */
int quant_check(const char *dir, const json_t *config, const char *what, struct octavo_error *err);
/* The same, and reads what was found. */
int quant_load(const char *dir, struct quant *ret, struct octavo_error *err);
/* From texts, for fuzzing: one of description and config is NULL. */
int quant_parse(const char *description, const char *config, size_t len, struct quant *ret, struct octavo_error *err);
void quant_release(struct quant *q);

/* What changes the model's arithmetic and is not implemented, by its name: tensors, and parts of the configuration. */
int quant_refuse(const struct tensor_source *src, const struct quant *q, struct octavo_error *err);
/* Resolves module (n, k), whose weight or weight_packed is in the files. A float one leaves spec.weight NULL. */
int quant_linear(struct tensor_source *src, const struct quant *q, const char *module, int n, int k,
                 struct linear_entry *ret, struct octavo_error *err);
const char *quant_format_name(enum quant_format format);

#endif
