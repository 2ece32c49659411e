/* Weights made up on the spot, private to ckpt/. */
#ifndef OCTAVO_CKPT_DUMMY_H
#define OCTAVO_CKPT_DUMMY_H

#include "ckpt/arch.h"

/* Fills count elements of dtype (BF16, F16, F32) with what role asks for. Element i depends on seed, name and i only.
 * Any number of threads. */
void dummy_fill(void *out, size_t count, enum dtype dtype, enum arch_role role, const char *name, uint64_t seed);

#endif
