/* The thread that accepts connections and hands them to libmicrohttpd. MHD's own listener resets connections beyond its
 * limit; this one leaves them in the kernel's queue until there is room, so that a burst waits and does not fail. */
#ifndef OCTAVO_SERVER_ACCEPTOR_H
#define OCTAVO_SERVER_ACCEPTOR_H

#include "server/connection.h"

#include <microhttpd.h>

struct acceptor {
    pthread_t thread;
    bool running;
    int listen_fd; /* owned */
    int stop_fd;   /* borrowed: readable when the server stops */
    int max_connections;
    struct MHD_Daemon *daemon;
    struct connection_table *table;
};

int acceptor_start(struct acceptor *a, struct octavo_error *err);
void acceptor_release(struct acceptor *a); /* joins (stop_fd must be readable) and closes the socket */

#endif
