/* Result files: see output.h. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const struct output *o, struct octavo_error *err)
{
    return error_set(err, OCTAVO_EIO, "cannot write %s %s: %s", o->flag, o->path, strerror(errno));
}

int output_open(struct output *o, const char *flag, const char *path, struct octavo_error *err)
{
    *o = (struct output){.flag = flag, .path = path};
    if (!path)
        return 0;
    if (!strcmp(path, "-")) {
        o->f = stdout;
        return 0;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    o->created = fd >= 0;
    if (fd < 0 && errno == EEXIST)
        fd = open(path, O_WRONLY | O_CLOEXEC);
    o->f = fd < 0 ? NULL : fdopen(fd, "w");
    return o->f ? 0 : fail(o, err);
}

FILE *output_begin(struct output *o, struct octavo_error *err)
{
    struct stat st;
    if (o->f != stdout && fstat(fileno(o->f), &st) == 0 && S_ISREG(st.st_mode) && ftruncate(fileno(o->f), 0) < 0) {
        fail(o, err);
        return NULL;
    }
    return o->f;
}

int output_finish(struct output *o, struct octavo_error *err)
{
    return fflush(o->f) || ferror(o->f) ? fail(o, err) : 0;
}

void output_close(struct output *o, bool failed)
{
    if (o->f && o->f != stdout)
        fclose(o->f);
    if (failed && o->created)
        unlink(o->path);
    *o = (struct output){0};
}
