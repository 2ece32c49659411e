/* octavo eval: how good a model is on a text, and how far from another. */
#ifndef OCTAVO_CLI_CMD_EVAL_H
#define OCTAVO_CLI_CMD_EVAL_H

int cmd_eval(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */

#endif
