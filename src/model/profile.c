/* Step profile: see profile.h. */
#include "model/profile.h"

#include <time.h>

static const char *const names[] = {"norms, quantise", "q, k, v", "heads, cache", "attention", "o", "gate, up", "down",
                                    "lm_head",         "sample",  "wait",         "other"};

const char *profile_phase_name(enum profile_phase phase)
{
    return names[phase];
}

void profile_mark(struct profile *p, enum profile_phase phase)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    uint64_t now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    if (p->last_ns)
        p->ns[phase] += now - p->last_ns;
    p->last_ns = now;
}

void profile_begin(struct profile *p)
{
    profile_mark(p, PROFILE_OTHER);
}
