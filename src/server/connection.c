/* Connections and their watchdog: see connection.h. */
#include "server/connection.h"

#include "base/log.h"
#include "base/mem.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define WATCH_INTERVAL_MS 500

int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void *watch(void *arg)
{
    struct connection_table *t = arg;
    struct pollfd stop = {.fd = t->stop_fd, .events = POLLIN};
    while (poll(&stop, 1, WATCH_INTERVAL_MS) <= 0) {
        int64_t now = now_us();
        pthread_mutex_lock(&t->lock);
        for (struct connection *c = t->first; c; c = c->next) {
            int64_t deadline = atomic_load(&c->deadline_us);
            if (deadline && now > deadline) {
                log_debug("closing connection %d: its client was too slow", c->fd);
                atomic_store(&c->deadline_us, 0);
                shutdown(c->fd, SHUT_RDWR);
            }
        }
        pthread_mutex_unlock(&t->lock);
    }
    return NULL;
}

int connection_table_init(struct connection_table *t, int stop_fd, struct octavo_error *err)
{
    *t = (struct connection_table){.stop_fd = stop_fd};
    pthread_mutex_init(&t->lock, NULL);
    int e = pthread_create(&t->watchdog, NULL, watch, t);
    if (e)
        return error_set(err, OCTAVO_ENOMEM, "cannot start the connection watchdog: %s", strerror(e));
    t->running = true;
    return 0;
}

void connection_table_release(struct connection_table *t)
{
    if (t->running)
        pthread_join(t->watchdog, NULL);
    pthread_mutex_destroy(&t->lock);
}

struct connection *connection_add(struct connection_table *t, int fd)
{
    struct connection *c = mem_calloc(1, sizeof(*c));
    c->fd = fd;
    pthread_mutex_lock(&t->lock);
    c->next = t->first;
    if (c->next)
        c->next->prev = c;
    t->first = c;
    atomic_fetch_add(&t->count, 1);
    pthread_mutex_unlock(&t->lock);
    return c;
}

void connection_remove(struct connection_table *t, struct connection *c)
{
    pthread_mutex_lock(&t->lock);
    if (c->prev)
        c->prev->next = c->next;
    else
        t->first = c->next;
    if (c->next)
        c->next->prev = c->prev;
    atomic_fetch_sub(&t->count, 1);
    pthread_mutex_unlock(&t->lock);
    free(c);
}

int connection_table_count(struct connection_table *t)
{
    return atomic_load(&t->count);
}

void connection_set_deadline(struct connection *c, int64_t seconds)
{
    atomic_store(&c->deadline_us, seconds ? now_us() + seconds * 1000000 : 0);
}
