/* `octavo bench`: speed, measured through the engine. One function for each of its commands. */
#ifndef OCTAVO_CLI_CMD_BENCH_H
#define OCTAVO_CLI_CMD_BENCH_H

int cmd_bench(int argc, char **argv);
int cmd_bench_latency(int argc, char **argv);
int cmd_bench_throughput(int argc, char **argv);
int cmd_bench_sweep(int argc, char **argv);

#endif
