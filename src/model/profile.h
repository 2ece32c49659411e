/* Where the time of steps goes, as worker 0 sees it. Each phase ends in a mark, which gives it the time since the last;
 * waiting for other workers is a phase of its own. Written and read on the engine thread. */
#ifndef OCTAVO_MODEL_PROFILE_H
#define OCTAVO_MODEL_PROFILE_H

#include <stdint.h>

enum profile_phase {
    PROFILE_ROWS, /* norms, activation quantisation, embedding */
    PROFILE_QKV,
    PROFILE_HEADS, /* norms and rotation of heads, writing the cache */
    PROFILE_ATTENTION,
    PROFILE_O,
    PROFILE_GATE_UP,
    PROFILE_DOWN,
    PROFILE_LM_HEAD,
    PROFILE_SAMPLE,
    PROFILE_WAIT,  /* at barriers */
    PROFILE_OTHER, /* scheduling, and whatever the engine thread does between passes */
    PROFILE_PHASE_COUNT,
};

struct profile {
    uint64_t last_ns; /* of the last mark */
    uint64_t ns[PROFILE_PHASE_COUNT];
    double macs[PROFILE_PHASE_COUNT], bytes[PROFILE_PHASE_COUNT]; /* multiply-adds; weights and cache read */
};

const char *profile_phase_name(enum profile_phase phase);
/* What passed since the last mark is other. */
void profile_begin(struct profile *p);
void profile_mark(struct profile *p, enum profile_phase phase);

#endif
