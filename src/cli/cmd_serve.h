/* octavo serve. */
#ifndef OCTAVO_CLI_CMD_SERVE_H
#define OCTAVO_CLI_CMD_SERVE_H

int cmd_serve(int argc, char **argv);

#endif
