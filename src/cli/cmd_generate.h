/* octavo generate: one prompt in, its continuation out. */
#ifndef OCTAVO_CLI_CMD_GENERATE_H
#define OCTAVO_CLI_CMD_GENERATE_H

int cmd_generate(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */

#endif
