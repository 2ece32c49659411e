/* octavo tokenize: text to token ids, and back. */
#ifndef OCTAVO_CLI_CMD_TOKENIZE_H
#define OCTAVO_CLI_CMD_TOKENIZE_H

int cmd_tokenize(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */

#endif
