/* What --profile prints: where the time of the engine's steps went, beside what the machine could do. Main thread. */
#ifndef OCTAVO_CLI_PROFILE_H
#define OCTAVO_CLI_PROFILE_H

#include "octavo/octavo.h"

#include <stdio.h>

/* Nothing when the engine was opened without the profile option. Measures the machine's limits, for about a second, so
 * nothing should be running. NULL is fine. */
void profile_print(struct octavo_engine *engine, FILE *out);

#endif
