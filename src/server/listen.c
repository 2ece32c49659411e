/* Listening: see listen.h. */
#include "server/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

bool address_format(const struct sockaddr *address, char *out, size_t cap)
{
    char host[64], port[8];
    socklen_t len = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if ((address->sa_family != AF_INET && address->sa_family != AF_INET6) ||
        getnameinfo(address, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
        return false;
    snprintf(out, cap, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return true;
}

static int bind_one(const struct addrinfo *a, bool dual)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, off = 0;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual ? &off : &on, sizeof(on));
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

int listen_tcp(const char *host, int port, int *ret_fd, int *ret_port, struct octavo_error *err)
{
    bool any = !host || !*host;
    char service[12];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *all = NULL;
    snprintf(service, sizeof(service), "%d", port);
    int e = getaddrinfo(any ? NULL : host, service, &hints, &all);
    if (e)
        return error_set_param(err, OCTAVO_EIO, "host", "cannot listen on %s: %s", any ? "all interfaces" : host,
                               gai_strerror(e));
    int fd = -1;
    /* one IPv6 socket can take both families, so try it first when all interfaces are meant */
    for (int pass = any ? 0 : 1; pass < 2 && fd < 0; pass++)
        for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next)
            if (pass == 1 || a->ai_family == AF_INET6)
                fd = bind_one(a, any);
    freeaddrinfo(all);
    if (fd < 0)
        return error_set_param(err, OCTAVO_EIO, "port", "cannot listen on %s port %d: %s%s",
                               any ? "all interfaces" : host, port, strerror(errno),
                               errno == EADDRINUSE ? "; another server runs there, choose another --port" : "");
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    if (getsockname(fd, (struct sockaddr *)&bound, &len) == 0)
        *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                      : ((struct sockaddr_in *)&bound)->sin_port);
    *ret_fd = fd;
    return 0;
}

int listen_unix(const char *path, int *ret_fd, struct octavo_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set_param(err, OCTAVO_EINVAL, "uds", "%s is too long for a Unix socket (at most %zu bytes)", path,
                               sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, OCTAVO_EIO, "socket: %s", strerror(errno));
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode) || connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
            close(fd);
            return error_set_param(err, OCTAVO_EIO, "uds", "%s is in use", path);
        }
        unlink(path);
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, BACKLOG)) {
        int e = errno;
        close(fd);
        return error_set_param(err, OCTAVO_EIO, "uds", "cannot listen on %s: %s", path, strerror(e));
    }
    *ret_fd = fd;
    return 0;
}
