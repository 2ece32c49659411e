/* octavo chat: a conversation at the terminal. */
#ifndef OCTAVO_CLI_CMD_CHAT_H
#define OCTAVO_CLI_CMD_CHAT_H

int cmd_chat(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */

#endif
