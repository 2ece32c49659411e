/* Accepting: see acceptor.h. */
#include "server/acceptor.h"

#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RETRY_MS 10 /* until there may be room again */

static void accept_one(struct acceptor *a)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    int on = 1;
    int fd = accept4(a->listen_fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            log_warning("cannot accept connections: %s", strerror(errno));
            struct pollfd stop = {.fd = a->stop_fd, .events = POLLIN};
            poll(&stop, 1, 100);
        }
        return;
    }
    /* an event must leave when it is written, and dead peers must show; both fail harmlessly on Unix sockets */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (MHD_add_connection(a->daemon, fd, (struct sockaddr *)&address, len) != MHD_YES)
        log_warning("connection refused: no thread or memory for it"); /* MHD closed it */
}

static void *accept_all(void *arg)
{
    struct acceptor *a = arg;
    struct pollfd fds[] = {{.fd = a->stop_fd, .events = POLLIN}, {.fd = a->listen_fd, .events = POLLIN}};
    for (;;) {
        bool full = connection_table_count(a->table) >= a->max_connections;
        int n = poll(fds, full ? 1 : 2, full ? RETRY_MS : -1);
        if (n < 0 && errno != EINTR)
            log_error("poll: %s", strerror(errno));
        if (n > 0 && fds[0].revents)
            return NULL;
        if (n > 0 && !full)
            accept_one(a);
    }
}

int acceptor_start(struct acceptor *a, struct octavo_error *err)
{
    int e = pthread_create(&a->thread, NULL, accept_all, a);
    if (e)
        return error_set(err, OCTAVO_ENOMEM, "cannot start the accepting thread: %s", strerror(e));
    a->running = true;
    return 0;
}

void acceptor_release(struct acceptor *a)
{
    if (a->running)
        pthread_join(a->thread, NULL);
    if (a->listen_fd >= 0)
        close(a->listen_fd);
    a->running = false;
    a->listen_fd = -1;
}
