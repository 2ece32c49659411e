/* The table of open connections and the watchdog over it. A connection always has at most one deadline: to send its
 * next request, to send the rest of it, or to take what it asked for; past it, the socket is shut down, which ends
 * MHD's thread for it. MHD's own timeouts only know the last byte, so a client that drips would live for ever. */
#ifndef OCTAVO_SERVER_CONNECTION_H
#define OCTAVO_SERVER_CONNECTION_H

#include "base/err.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection {
    struct connection *prev, *next;
    int fd;                      /* MHD's; open as long as this struct is in the table */
    _Atomic int64_t deadline_us; /* monotonic; 0: none */
};

struct connection_table {
    pthread_mutex_t lock;
    pthread_t watchdog;
    int stop_fd; /* borrowed: readable when the server stops */
    bool running;
    struct connection *first;
    atomic_int count;
};

int connection_table_init(struct connection_table *t, int stop_fd, struct octavo_error *err);
void connection_table_release(struct connection_table *t); /* joins the watchdog, which stop_fd must have woken */
struct connection *connection_add(struct connection_table *t, int fd);
int connection_table_count(struct connection_table *t);
void connection_remove(struct connection_table *t, struct connection *c); /* frees c */
/* seconds from now; 0: no deadline */
void connection_set_deadline(struct connection *c, int64_t seconds);

int64_t now_us(void); /* monotonic */

#endif
