/* Which checkpoint a command means: the one named, or the bundled storyteller. */
#ifndef OCTAVO_CLI_MODEL_PATH_H
#define OCTAVO_CLI_MODEL_PATH_H

#include "base/err.h"

/* named: what the user gave, or NULL. Then $OCTAVO_MODEL, then the bundled model beside the executable (installed, or
 * run from a build folder). *ret_path is the caller's to free. A folder that does not exist is an error that says what
 * was looked for. */
int model_path_find(const char *named, char **ret_path, struct octavo_error *err);

#endif
