/* octavo quantize: see cmd_quantize.c. */
#ifndef OCTAVO_CLI_CMD_QUANTIZE_H
#define OCTAVO_CLI_CMD_QUANTIZE_H

int cmd_quantize(int argc, char **argv);

#endif
