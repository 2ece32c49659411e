/* Listening sockets and addresses as text. */
#ifndef OCTAVO_SERVER_LISTEN_H
#define OCTAVO_SERVER_LISTEN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct sockaddr;

/* host: name or address of either family, NULL or "": all interfaces of both. port 0: a free one, in *ret_port. */
int listen_tcp(const char *host, int port, int *ret_fd, int *ret_port, struct octavo_error *err);
/* A stale socket at path is replaced; one that answers, or a file of another kind, is an error. */
int listen_unix(const char *path, int *ret_fd, struct octavo_error *err);
/* "127.0.0.1:4711", "[::1]:4711"; false for a family without addresses. */
bool address_format(const struct sockaddr *address, char *out, size_t cap);

#endif
