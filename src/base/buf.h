/* A growing byte string, always followed by a NUL that is not counted. Zero-initialise to start: struct buf b = {0}.
 * Owned by whoever declared it; buf_release frees the contents. */
#ifndef OCTAVO_BASE_BUF_H
#define OCTAVO_BASE_BUF_H

#include <stddef.h>

struct buf {
    char *data; /* NULL while empty */
    size_t len, cap;
};

void buf_reserve(struct buf *b, size_t extra); /* room for extra more bytes and the NUL */
void buf_append(struct buf *b, const void *p, size_t len);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_consume(struct buf *b, size_t len); /* drops len bytes from the front */
void buf_clear(struct buf *b);               /* empty, keeps its memory */
void buf_release(struct buf *b);
char *buf_steal(struct buf *b, size_t *ret_len); /* caller frees; never NULL; b is empty afterwards */
static inline const char *buf_str(const struct buf *b)
{
    return b->data ? b->data : "";
}

#endif
