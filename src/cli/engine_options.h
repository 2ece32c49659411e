/* The flags that say which model to load and how, shared by serve, generate and chat; named as `vllm serve` names
 * them. */
#ifndef OCTAVO_CLI_ENGINE_OPTIONS_H
#define OCTAVO_CLI_ENGINE_OPTIONS_H

#include "cli/options.h"

struct engine_flags {
    const char *model;     /* --model; the positional argument overrides it */
    const char *tokenizer; /* folder, or NULL: the model's */
    const char *load_format, *kv_cache_dtype, *isa;
    const char *quantization; /* or NULL */
    const char *generation_config;
    const char *chat_template;
    const char *log_level;
    bool skip_tokenizer_init, enable_prefix_caching, profile;
    int64_t seed, max_model_len, max_num_seqs, max_num_batched_tokens, block_size, kv_cache_memory_bytes, threads,
        max_logprobs;
};

void engine_flags_init(struct engine_flags *flags); /* the defaults */
/* The table, to be put in front of a command's own. */
struct option_set engine_flags_set(struct engine_flags *flags);
/* Fills opts from flags; model is the folder from model_path_find. Also sets the log level. */
int engine_flags_apply(const struct engine_flags *flags, const char *model, struct octavo_engine_options *opts,
                       struct octavo_error *err);

/* A progress line for octavo_engine_options.progress: a bar on a terminal, plain lines otherwise. Zero-initialise. */
struct load_progress {
    char phase[64];
    int last_percent;
    bool tty, open;
};
void load_progress_update(void *progress, const char *phase, uint64_t done, uint64_t total);
void load_progress_end(struct load_progress *p);
/* "4.0 GiB" */
const char *format_bytes(char out[32], double bytes);

#endif
