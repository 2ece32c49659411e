/* Sampling flags: see sampling_options.h. */
#include "cli/sampling_options.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define UNSET_INT INT64_MIN

void sampling_flags_init(struct sampling_flags *flags)
{
    *flags = (struct sampling_flags){.temperature = SAMPLING_UNSET,
                                     .top_p = SAMPLING_UNSET,
                                     .min_p = SAMPLING_UNSET,
                                     .repetition_penalty = SAMPLING_UNSET,
                                     .presence_penalty = SAMPLING_UNSET,
                                     .frequency_penalty = SAMPLING_UNSET,
                                     .top_k = UNSET_INT,
                                     .max_tokens = UNSET_INT,
                                     .min_tokens = UNSET_INT};
}

#define AT(field) .offset = offsetof(struct sampling_flags, field)

static const struct option_spec specs[] = {
    {"n,max-tokens", OPTION_INT, AT(max_tokens), .group = "Sampling", .metavar = "N", .lo = 1, .hi = 1ll << 31,
     .help = "Stop after N tokens. Default: the checkpoint's, else what the context leaves."},
    {"min-tokens", OPTION_INT, AT(min_tokens), .metavar = "N", .lo = 0, .hi = 1ll << 31,
     .help = "Do not end before N tokens. Default: 0."},
    {"temperature", OPTION_DOUBLE, AT(temperature), .metavar = "T", .lo = 0, .hi = 100,
     .help = "0 always takes the likeliest token (plain greedy: the checkpoint's penalties are off too); higher is "
             "more varied. Default: the checkpoint's, else 1."},
    {"top-p", OPTION_DOUBLE, AT(top_p), .metavar = "P", .lo = 0, .hi = 1,
     .help = "Draw from the likeliest tokens that together have probability P. Default: the checkpoint's, else 1."},
    {"top-k", OPTION_INT, AT(top_k), .metavar = "K", .lo = -1, .hi = 1 << 30,
     .help = "Draw from the K likeliest tokens; 0 turns it off. Default: the checkpoint's, else 0."},
    {"min-p", OPTION_DOUBLE, AT(min_p), .metavar = "P", .lo = 0, .hi = 1,
     .help = "Drop tokens less than P times as likely as the likeliest. Default: the checkpoint's, else 0."},
    {"repetition-penalty", OPTION_DOUBLE, AT(repetition_penalty), .metavar = "X", .lo = 0, .hi = 100,
     .help = "Above 1 discourages tokens of prompt and answer. Default: the checkpoint's, else 1."},
    {"presence-penalty", OPTION_DOUBLE, AT(presence_penalty), .metavar = "X", .lo = -2, .hi = 2,
     .help = "Discourages tokens of the answer, once. Default: 0."},
    {"frequency-penalty", OPTION_DOUBLE, AT(frequency_penalty), .metavar = "X", .lo = -2, .hi = 2,
     .help = "Discourages tokens of the answer, each time. Default: 0."},
    {"stop", OPTION_LIST, AT(stop), .metavar = "TEXT", .help = "End at TEXT, which is not printed; may be repeated."},
    {"ignore-eos", OPTION_SWITCH, AT(ignore_eos), .help = "Go on after the model says that it is done."},
};

struct option_set sampling_flags_set(struct sampling_flags *flags)
{
    return (struct option_set){specs, ARRAY_LEN(specs), flags};
}

int sampling_flags_check(const struct sampling_flags *flags, struct octavo_error *err)
{
    for (size_t i = 0; i < flags->stop.len; i++)
        if (!flags->stop.items[i][0])
            return error_set(err, OCTAVO_EINVAL, "--stop needs a text to stop at; leave it out to stop at none");
    return 0;
}

static void set_float(float *to, double flag)
{
    if (flag != SAMPLING_UNSET)
        *to = (float)flag;
}

void sampling_flags_apply(struct sampling_flags *flags, const struct octavo_engine_info *info, bool use_defaults,
                          int64_t seed, struct octavo_sampling_params *ret, struct detokenizer_options *ret_det)
{
    octavo_sampling_params_init(ret);
    if (use_defaults && flags->temperature != 0)
        *ret = info->default_sampling;
    set_float(&ret->temperature, flags->temperature);
    set_float(&ret->top_p, flags->top_p);
    set_float(&ret->min_p, flags->min_p);
    set_float(&ret->repetition_penalty, flags->repetition_penalty);
    set_float(&ret->presence_penalty, flags->presence_penalty);
    set_float(&ret->frequency_penalty, flags->frequency_penalty);
    if (flags->top_k != UNSET_INT)
        ret->top_k = (int32_t)flags->top_k;
    if (flags->max_tokens != UNSET_INT)
        ret->max_tokens = flags->max_tokens;
    if (flags->min_tokens != UNSET_INT)
        ret->min_tokens = flags->min_tokens;
    ret->ignore_eos = flags->ignore_eos;
    ret->seeded = seed >= 0;
    ret->seed = seed;
    flags->stop_len = mem_calloc(flags->stop.len, sizeof(*flags->stop_len));
    for (size_t i = 0; i < flags->stop.len; i++)
        flags->stop_len[i] = strlen(flags->stop.items[i]);
    ret_det->num_stop = flags->stop.len;
    ret_det->stop = flags->stop.items;
    ret_det->stop_len = flags->stop_len;
}

void sampling_flags_release(struct sampling_flags *flags)
{
    option_list_release(&flags->stop);
    free(flags->stop_len);
}
