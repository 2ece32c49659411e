/* Memory. Small things that cannot sensibly fail use mem_alloc and friends, which end the process with a message when
 * the system is out of memory; anything whose size comes from a file, a flag or a client uses mem_try_*, which
 * returns NULL on overflow or refusal so that the caller can report it. */
#ifndef OCTAVO_BASE_MEM_H
#define OCTAVO_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t bytes);            /* uninitialised, never NULL */
void *mem_calloc(size_t n, size_t elem);  /* zeroed, never NULL */
void *mem_realloc(void *p, size_t bytes); /* never NULL */
char *mem_strdup(const char *s);          /* never NULL; s must not be NULL */
char *mem_strndup(const char *s, size_t len);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void *mem_try_array(size_t n, size_t elem); /* uninitialised; NULL on overflow or refusal */
void *mem_try_calloc(size_t n, size_t elem);
/* 64-byte aligned and zeroed, from mmap, huge pages advised; NULL when refused. Free with mem_unmap. */
void *mem_map(size_t bytes);
void mem_unmap(void *p, size_t bytes);
/* Bytes this process may still take without swapping or meeting its cgroup's limit; an estimate of this moment. */
uint64_t mem_available(void);

static inline bool size_mul_ok(size_t a, size_t b, size_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}
static inline bool size_add_ok(size_t a, size_t b, size_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
