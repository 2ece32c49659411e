/* compressed-tensors checkpoints (quantization_config of config.json): which group a module belongs to, and where its
 * numbers lie; private to ckpt/. Loading thread. */
#ifndef OCTAVO_CKPT_COMPRESSED_H
#define OCTAVO_CKPT_COMPRESSED_H

#include "base/json.h"
#include "ckpt/linear.h"

enum ct_strategy {
    CT_TENSOR,
    CT_CHANNEL,
    CT_GROUP,
    CT_BLOCK,
    CT_TOKEN,
    CT_TENSOR_GROUP,
    CT_ATTN_HEAD,
};

/* The arguments of one quantiser; absent when present is false. Integers only: others are refused while parsing. */
struct ct_args {
    bool present;
    int num_bits;
    bool symmetric, dynamic;
    bool has_strategy;
    enum ct_strategy strategy;
    int group_size;
};

/* Of a group; where neither it nor the whole names one (or the whole is mixed-precision), the tensors tell. */
enum ct_format { CT_FORMAT_NONE, CT_DENSE, CT_INT, CT_PACKED };

struct ct_group {
    char *name;
    struct ct_patterns *targets;
    enum ct_format format;
    struct ct_args weights, input;
    bool output; /* output_activations are asked for */
};

struct ct_config {
    struct ct_group *groups; /* (num_groups) */
    size_t num_groups;
    struct ct_patterns *ignore;
    struct ct_args kv_cache; /* kv_cache_scheme */
};

/* Parses the quantization_config object; what names the file. What is not implemented is refused by name. */
int ct_config_parse(const json_t *config, const char *what, struct ct_config **ret, struct octavo_error *err);
void ct_config_free(struct ct_config *c);
/* The group of a module of class class_name ("Linear"), or NULL: its name first, then a pattern, then its class. */
int ct_config_match(const struct ct_config *c, const char *module, const char *class_name, const struct ct_group **ret,
                    struct octavo_error *err);
int ct_config_ignores(const struct ct_config *c, const char *module, const char *class_name, bool *ret,
                      struct octavo_error *err);

/* Resolves module (n, k), some tensors of which are in the files. A float one leaves spec.weight NULL. */
int ct_linear(struct tensor_source *src, const struct ct_config *c, const char *module, int n, int k,
              struct linear_entry *ret, struct octavo_error *err);

/* Groups for attention modules as such quantise queries too: refused. */
int ct_attention_check(const struct tensor_source *src, const struct ct_config *c, struct octavo_error *err);
/* "Qwen3Attention": the class of the model's self_attn. */
const char *ct_attention_class(enum model_family family);

/* ---- lists of names ---- */

/* "re:" patterns are regular expressions anchored at the start of the name, as Python's re.match. */
int ct_patterns_parse(const json_t *list, const char *what, const char *key, struct ct_patterns **ret,
                      struct octavo_error *err);
void ct_patterns_free(struct ct_patterns *p);
enum ct_rank { CT_RANK_NONE, CT_RANK_CLASS, CT_RANK_PATTERN, CT_RANK_NAME };
int ct_patterns_match(const struct ct_patterns *p, const char *module, const char *class_name, enum ct_rank *ret,
                      struct octavo_error *err);

#endif
