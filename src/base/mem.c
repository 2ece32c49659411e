/* Memory: see mem.h. Called by everyone, on any thread. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

static _Noreturn void out_of_memory(size_t bytes)
{
    fprintf(stderr, "octavo: out of memory (%zu bytes refused)\n", bytes);
    abort();
}

void *mem_alloc(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p)
        out_of_memory(bytes);
    return p;
}

void *mem_calloc(size_t n, size_t elem)
{
    void *p = calloc(n ? n : 1, elem ? elem : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *mem_realloc(void *p, size_t bytes)
{
    void *q = realloc(p, bytes ? bytes : 1);
    if (!q)
        out_of_memory(bytes);
    return q;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t len)
{
    char *p = mem_alloc(len + 1);
    memcpy(p, s, len);
    p[len] = 0;
    return p;
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *p = NULL;
    if (vasprintf(&p, fmt, ap) < 0)
        out_of_memory(0);
    va_end(ap);
    return p;
}

void *mem_try_array(size_t n, size_t elem)
{
    size_t bytes;
    return size_mul_ok(n, elem, &bytes) ? malloc(bytes ? bytes : 1) : NULL;
}

void *mem_try_calloc(size_t n, size_t elem)
{
    return calloc(n ? n : 1, elem ? elem : 1);
}

void *mem_map(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), spare = bytes >= HUGE_PAGE ? HUGE_PAGE - page : 0, all;
    if (!size_add_ok(bytes ? bytes : 1, spare, &all))
        return NULL;
    uint8_t *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (spare) { /* what begins with a huge page has none in small ones but behind its last whole one */
        size_t before = -(uintptr_t)p % HUGE_PAGE, used = (bytes + page - 1) / page * page;
        if (before)
            munmap(p, before);
        if (used + before < all)
            munmap(p + before + used, all - before - used);
        p += before;
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void mem_unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes ? bytes : 1);
}

/* The first number in a file such as "MemAvailable: 123 kB" (after key) or "max"; UINT64_MAX when there is none. */
static uint64_t read_number(const char *path, const char *key)
{
    uint64_t value = UINT64_MAX;
    FILE *f = fopen(path, "re");
    if (!f)
        return value;
    char line[256];
    size_t n = strlen(key);
    while (fgets(line, sizeof(line), f)) {
        unsigned long long v;
        if (!strncmp(line, key, n) && sscanf(line + n, "%llu", &v) == 1) {
            value = v;
            break;
        }
    }
    fclose(f);
    return value;
}

uint64_t mem_available(void)
{
    uint64_t kib = read_number("/proc/meminfo", "MemAvailable:");
    uint64_t bytes = kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    uint64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    if (limit != UINT64_MAX && used != UINT64_MAX)
        bytes = MIN(bytes, limit > used ? limit - used : 0);
    return bytes;
}
