/* octavo inspect: what a checkpoint holds, and whether octavo would serve it. */
#ifndef OCTAVO_CLI_CMD_INSPECT_H
#define OCTAVO_CLI_CMD_INSPECT_H

int cmd_inspect(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */

#endif
