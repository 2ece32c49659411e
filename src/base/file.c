/* Whole files: see file.h. */
#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK, so that a FIFO put in a checkpoint's folder cannot hang the loader. */
static int open_regular(const char *path, size_t *ret_size, struct octavo_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, OCTAVO_EIO, "cannot open %s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, OCTAVO_EIO, "%s is not a regular file", path);
    }
    *ret_size = (size_t)st.st_size;
    return fd;
}

int file_map_open(const char *path, struct file_map *ret_map, struct octavo_error *err)
{
    size_t size;
    int fd = open_regular(path, &size, err);
    if (fd < 0)
        return fd;
    void *p = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int saved = errno;
    close(fd);
    if (p == MAP_FAILED)
        return error_set(err, OCTAVO_EIO, "cannot map %s: %s", path, strerror(saved));
    ret_map->data = p;
    ret_map->size = size;
    return 0;
}

void file_map_close(struct file_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct file_map){0};
}

int file_read(const char *path, size_t max_bytes, struct buf *out, struct octavo_error *err)
{
    size_t size;
    int fd = open_regular(path, &size, err);
    if (fd < 0)
        return fd;
    int r = 0;
    if (size > max_bytes) {
        r = error_set(err, OCTAVO_EINVAL, "%s is %zu bytes, more than the limit of %zu", path, size, max_bytes);
        goto out;
    }
    buf_reserve(out, size);
    for (size_t left = size; left > 0;) {
        ssize_t n = read(fd, out->data + out->len, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r = error_set(err, OCTAVO_EIO, "cannot read %s: %s", path, strerror(errno));
            goto out;
        }
        if (n == 0)
            break;
        out->len += (size_t)n;
        left -= (size_t)n;
    }
    out->data[out->len] = 0;
out:
    close(fd);
    return r;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return mem_printf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}
