/* Folders, whole or not at all: see folder.h. */
#include "quantize/folder.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    remove(path); /* what stays makes its folder stay, and the caller looks at that */
    return 0;
}

/* Links are removed, not followed. */
static int remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return access(path, F_OK) == 0 ? -1 : 0;
}

static int sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int r = fsync(fd);
    /* some file systems cannot sync a folder, and need not */
    if (r < 0 && (errno == EINVAL || errno == ENOTSUP))
        r = 0;
    close(fd);
    return r;
}

/* parent and base of dst, trailing slashes aside. */
static int split(struct folder *f, const char *dst, struct octavo_error *err)
{
    size_t len = strlen(dst);
    while (len > 1 && dst[len - 1] == '/')
        len--;
    f->dst = mem_strndup(dst, len);
    char *slash = strrchr(f->dst, '/');
    f->base = mem_strdup(slash ? slash + 1 : f->dst);
    f->parent = slash ? mem_strndup(f->dst, MAX((size_t)(slash - f->dst), (size_t)1)) : mem_strdup(".");
    if (!*f->base || !strcmp(f->base, ".") || !strcmp(f->base, ".."))
        return error_set_param(err, OCTAVO_EINVAL, "output", "-o %.200s does not name a new folder", dst);
    if (strlen(f->base) > 200)
        return error_set_param(err, OCTAVO_EINVAL, "output", "-o: the name of the folder is too long");
    struct stat st;
    if (stat(f->parent, &st) < 0)
        return error_set_param(err, OCTAVO_EIO, "output", "cannot write to %s: %s; make the folder first", f->parent,
                               strerror(errno));
    return 0;
}

/* What may be replaced: a checkpoint, or an empty folder. Anything else is somebody's folder, not ours to remove. */
static int check_replaceable(const struct folder *f, struct octavo_error *err)
{
    struct stat st;
    if (lstat(f->dst, &st) < 0)
        return errno == ENOENT
                   ? 0
                   : error_set_param(err, OCTAVO_EIO, "output", "cannot look at %s: %s", f->dst, strerror(errno));
    if (!f->overwrite)
        return error_set_param(err, OCTAVO_EINVAL, "output",
                               "%s exists already; name another folder, or replace it with --overwrite", f->dst);
    bool is_checkpoint = false, empty = true;
    DIR *dir = S_ISDIR(st.st_mode) ? opendir(f->dst) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        empty = empty && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."));
        is_checkpoint = is_checkpoint || !strcmp(e->d_name, "quant_model_description.json");
    }
    if (dir)
        closedir(dir);
    if (!dir || !(empty || is_checkpoint))
        return error_set_param(err, OCTAVO_EINVAL, "output",
                               "%s is not a quantised checkpoint (it has no quant_model_description.json), so it is "
                               "not replaced; name another folder",
                               f->dst);
    return 0;
}

/* Partial folders of this destination whose writer is gone: nobody holds their lock. */
static void remove_leftovers(const struct folder *f)
{
    char *prefix = mem_printf(".%s.partial-", f->base);
    DIR *dir = opendir(f->parent);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t len = strlen(prefix);
        if (strncmp(e->d_name, prefix, len) || strspn(e->d_name + len, "0123456789") != strlen(e->d_name + len))
            continue;
        char *path = path_join(f->parent, e->d_name);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            remove_tree(path);
        if (fd >= 0)
            close(fd);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(prefix);
}

int folder_open(struct folder *f, const char *dst, bool overwrite, struct octavo_error *err)
{
    *f = (struct folder){.lock_fd = -1, .open = true, .overwrite = overwrite};
    int r = split(f, dst, err);
    if (r < 0 || (r = check_replaceable(f, err)) < 0)
        return r;
    remove_leftovers(f);
    char *partial = mem_printf("%s/.%s.partial-%ld", f->parent, f->base, (long)getpid());
    if (mkdir(partial, 0777) < 0) {
        r = error_set_param(err, OCTAVO_EIO, "output", "cannot make a folder in %s: %s", f->parent, strerror(errno));
        free(partial);
        return r;
    }
    f->partial = partial;
    f->lock_fd = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->lock_fd < 0)
        return error_set_param(err, OCTAVO_EIO, "output", "cannot open %s: %s", partial, strerror(errno));
    flock(f->lock_fd, LOCK_EX | LOCK_NB); /* where there are no locks, a second writer at once is the user's to avoid */
    return 0;
}

int folder_make_parent(const struct folder *f, const char *name, struct octavo_error *err)
{
    const char *slash = strchr(name, '/');
    if (!slash)
        return 0;
    char *path = mem_printf("%s/%.*s", f->partial, (int)(slash - name), name);
    int r = 0;
    if (mkdir(path, 0777) < 0 && errno != EEXIST)
        r = error_set(err, OCTAVO_EIO, "cannot make the folder %s: %s", path, strerror(errno));
    free(path);
    return r;
}

/* Everything was checked at the start, and is again: hours may have passed. */
int folder_commit(struct folder *f, struct octavo_error *err)
{
    int r = check_replaceable(f, err);
    if (r < 0)
        return r;
    if (sync_folder(f->partial) < 0)
        return error_set(err, OCTAVO_EIO, "cannot write %s: %s", f->partial, strerror(errno));
    bool moved = renameat2(AT_FDCWD, f->partial, AT_FDCWD, f->dst, RENAME_NOREPLACE) == 0, old = false;
    if (!moved && errno == EEXIST) /* one step: dst is the old checkpoint or the new one at every moment */
        moved = old = renameat2(AT_FDCWD, f->partial, AT_FDCWD, f->dst, RENAME_EXCHANGE) == 0;
    if (!moved && (errno == EINVAL || errno == ENOSYS)) {
        /* A file system without those: for a moment dst is absent. */
        char *aside = mem_printf("%s/.%s.partial-0", f->parent, f->base);
        bool had = rename(f->dst, aside) == 0;
        moved = rename(f->partial, f->dst) == 0;
        int saved = errno;
        if (!moved && had)
            rename(aside, f->dst);
        else if (had)
            remove_tree(aside);
        errno = saved;
        free(aside);
    }
    if (!moved)
        return error_set(err, OCTAVO_EIO, "cannot rename %s to %s: %s", f->partial, f->dst, strerror(errno));
    if (old)
        remove_tree(f->partial);
    free(f->partial);
    f->partial = NULL;
    sync_folder(f->parent);
    return 0;
}

void folder_close(struct folder *f)
{
    if (!f->open)
        return;
    if (f->partial)
        remove_tree(f->partial);
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    free(f->partial);
    free(f->dst);
    free(f->parent);
    free(f->base);
    *f = (struct folder){.lock_fd = -1};
}
