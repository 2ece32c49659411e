/* Checkpoint folders, whole or not at all: see writer.h. */
#include "quantize/writer.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/strmap.h"
#include "quantize/folder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX "quant_model_weights.safetensors.index.json"
#define DESCRIPTION "quant_model_description.json"
#define COPY_BYTES (1 << 20)

struct out_tensor {
    char *name, *type;
    enum dtype dtype;
    int num_dims;
    int64_t shape[TENSOR_MAX_DIMS];
    size_t bytes, at; /* at: in its file */
    _Atomic size_t written;
    int part;
};

struct part {
    char *path;
    int fd;
    size_t bytes; /* of the file */
};

struct writer {
    struct folder folder;
    struct out_tensor *tensors;
    int num_tensors, cap_tensors;
    struct strmap names;
    struct part *parts;
    int num_parts;
    size_t total;
};

int writer_open(const char *dst, bool overwrite, struct writer **ret_writer, struct octavo_error *err)
{
    struct writer *w = mem_calloc(1, sizeof(*w));
    int r = folder_open(&w->folder, dst, overwrite, err);
    if (r < 0)
        writer_free(w);
    else
        *ret_writer = w;
    return r;
}

void writer_free(struct writer *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->num_parts; i++) {
        if (w->parts[i].fd >= 0)
            close(w->parts[i].fd);
        free(w->parts[i].path);
    }
    for (int i = 0; i < w->num_tensors; i++) {
        free(w->tensors[i].name);
        free(w->tensors[i].type);
    }
    free(w->parts);
    free(w->tensors);
    strmap_release(&w->names);
    folder_close(&w->folder);
    free(w);
}

size_t writer_bytes(const struct writer *w)
{
    return w->total;
}

const char *writer_dir(const struct writer *w)
{
    return w->folder.partial;
}

int writer_add(struct writer *w, const char *name, enum dtype dtype, int num_dims, const int64_t *shape,
               const char *type)
{
    if (w->num_tensors == w->cap_tensors) {
        w->cap_tensors = MAX(64, w->cap_tensors * 2);
        w->tensors = mem_realloc(w->tensors, (size_t)w->cap_tensors * sizeof(*w->tensors));
    }
    bool fresh = strmap_add(&w->names, name, strlen(name), w->num_tensors, NULL);
    assert(fresh && !w->parts);
    (void)fresh;
    struct out_tensor *t = &w->tensors[w->num_tensors];
    *t = (struct out_tensor){.name = mem_strdup(name), .type = mem_strdup(type), .dtype = dtype, .num_dims = num_dims};
    size_t n = (size_t)dtype_bits(dtype) / 8;
    for (int i = 0; i < num_dims; i++) {
        t->shape[i] = shape[i];
        n *= (size_t)shape[i]; /* shapes of a checkpoint that was opened: no overflow */
    }
    t->bytes = n;
    return w->num_tensors++;
}

/* ---- layout ---- */

static int io_error(const struct writer *w, const char *path, struct octavo_error *err)
{
    int e = errno;
    const char *hint = e == ENOSPC || e == EDQUOT ? "; free some space, or write to another disk" : "";
    return error_set(err, OCTAVO_EIO, "cannot write %s: %s%s (the weights take %zu MiB); nothing was left behind", path,
                     strerror(e), hint, w->total >> 20);
}

static int write_at(const struct writer *w, int fd, const char *path, const void *data, size_t bytes, size_t at,
                    struct octavo_error *err)
{
    const char *p = data;
    while (bytes) {
        ssize_t n = pwrite(fd, p, bytes, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_error(w, path, err);
        p += n;
        at += (size_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Tensors keep the order they were announced in; a part begins where the one before would grow too large. */
static int parts_count(struct writer *w, size_t part_bytes)
{
    size_t in_part = 0;
    int part = 0;
    for (int i = 0; i < w->num_tensors; i++) {
        struct out_tensor *t = &w->tensors[i];
        if (in_part && (t->bytes > part_bytes || in_part > part_bytes - t->bytes)) {
            part++;
            in_part = 0;
        }
        in_part += t->bytes;
        w->total += t->bytes;
        t->part = part;
    }
    return part + 1;
}

/* Puts the tensors of a part into the header and places them: wide elements first, so that all are aligned. */
static void part_header(struct writer *w, int part, struct buf *out)
{
    size_t at = 0;
    buf_puts(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int bits = 64; bits >= 8; bits /= 2)
        for (int i = 0; i < w->num_tensors; i++) {
            struct out_tensor *t = &w->tensors[i];
            if (t->part != part || dtype_bits(t->dtype) != bits)
                continue;
            buf_putc(out, ',');
            json_write_string(out, t->name, strlen(t->name));
            buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
            for (int d = 0; d < t->num_dims; d++)
                buf_printf(out, "%s%lld", d ? "," : "", (long long)t->shape[d]);
            buf_printf(out, "],\"data_offsets\":[%zu,%zu]}", at, at + t->bytes);
            t->at = at;
            at += t->bytes;
        }
    buf_putc(out, '}');
    while (out->len % 8)
        buf_putc(out, ' ');
    for (int i = 0; i < w->num_tensors; i++)
        if (w->tensors[i].part == part)
            w->tensors[i].at += 8 + out->len;
    w->parts[part].bytes = 8 + out->len + at;
}

static int part_create(struct writer *w, int part, struct octavo_error *err)
{
    struct part *p = &w->parts[part];
    struct buf header = {0};
    uint8_t len[8];
    char name[80];
    part_header(w, part, &header);
    for (int i = 0; i < 8; i++)
        len[i] = (uint8_t)((uint64_t)header.len >> (8 * i));
    snprintf(name, sizeof(name), "quant_model_weights-%05d-of-%05d.safetensors", part + 1, w->num_parts);
    p->path = path_join(w->folder.partial, name);
    p->fd = open(p->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    int r = p->fd < 0 ? io_error(w, p->path, err) : 0;
    /* A disk that is too small says so before the work is done; where space cannot be reserved, writing tells. */
    if (r == 0 && fallocate(p->fd, 0, 0, (off_t)p->bytes) < 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || ftruncate(p->fd, (off_t)p->bytes) < 0))
        r = io_error(w, p->path, err);
    if (r == 0)
        r = write_at(w, p->fd, p->path, len, sizeof(len), 0, err);
    if (r == 0)
        r = write_at(w, p->fd, p->path, header.data, header.len, sizeof(len), err);
    buf_release(&header);
    return r;
}

int writer_begin(struct writer *w, size_t part_bytes, struct octavo_error *err)
{
    assert(!w->parts && w->num_tensors);
    w->num_parts = parts_count(w, part_bytes);
    w->parts = mem_calloc((size_t)w->num_parts, sizeof(*w->parts));
    for (int i = 0; i < w->num_parts; i++)
        w->parts[i].fd = -1;
    int r = 0;
    for (int i = 0; i < w->num_parts && r == 0; i++)
        r = part_create(w, i, err);
    return r;
}

int writer_put(struct writer *w, int tensor, size_t at, const void *data, size_t bytes, struct octavo_error *err)
{
    struct out_tensor *t = &w->tensors[tensor];
    assert(at <= t->bytes && bytes <= t->bytes - at);
    int r = write_at(w, w->parts[t->part].fd, w->parts[t->part].path, data, bytes, t->at + at, err);
    if (r == 0)
        atomic_fetch_add(&t->written, bytes);
    return r;
}

/* ---- further files ---- */

static int file_create(struct writer *w, const char *name, char **ret_path, struct octavo_error *err)
{
    int r = folder_make_parent(&w->folder, name, err);
    if (r < 0)
        return r;
    *ret_path = path_join(w->folder.partial, name);
    int fd = open(*ret_path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) {
        r = io_error(w, *ret_path, err);
        free(*ret_path);
        return r;
    }
    return fd;
}

static int file_finish(const struct writer *w, int fd, char *path, int r, struct octavo_error *err)
{
    if (r == 0 && fsync(fd) < 0)
        r = io_error(w, path, err);
    close(fd);
    free(path);
    return r;
}

int writer_text(struct writer *w, const char *name, const char *text, size_t len, struct octavo_error *err)
{
    char *path;
    int fd = file_create(w, name, &path, err);
    return fd < 0 ? fd : file_finish(w, fd, path, write_at(w, fd, path, text, len, 0, err), err);
}

int writer_copy(struct writer *w, const char *name, const char *from, struct octavo_error *err)
{
    char *path;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return error_set(err, OCTAVO_EIO, "cannot open %s: %s", from, strerror(errno));
    int fd = file_create(w, name, &path, err);
    if (fd < 0) {
        close(in);
        return fd;
    }
    char *bytes = mem_alloc(COPY_BYTES);
    size_t at = 0;
    int r = 0;
    for (ssize_t n; r == 0 && (n = read(in, bytes, COPY_BYTES)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r = error_set(err, OCTAVO_EIO, "cannot read %s: %s", from, strerror(errno));
            break;
        }
        r = write_at(w, fd, path, bytes, (size_t)n, at, err);
        at += (size_t)n;
    }
    free(bytes);
    close(in);
    return file_finish(w, fd, path, r, err);
}

/* ---- the end ---- */

static int json_put(struct writer *w, const char *name, const json_t *root, struct octavo_error *err)
{
    char *text = json_dumps(root, JSON_INDENT(2));
    if (!text)
        return error_set(err, OCTAVO_EINTERNAL, "cannot write %s as JSON", name);
    int r = writer_text(w, name, text, strlen(text), err);
    free(text);
    return r;
}

static int description_put(struct writer *w, const json_t *head, struct octavo_error *err)
{
    json_t *root = json_copy((json_t *)(uintptr_t)head);
    for (int i = 0; i < w->num_tensors; i++)
        json_object_set_new(root, w->tensors[i].name, json_string(w->tensors[i].type));
    int r = json_put(w, DESCRIPTION, root, err);
    json_decref(root);
    return r;
}

static int index_put(struct writer *w, struct octavo_error *err)
{
    json_t *map = json_object();
    for (int i = 0; i < w->num_tensors; i++)
        json_object_set_new(map, w->tensors[i].name, json_string(strrchr(w->parts[w->tensors[i].part].path, '/') + 1));
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)w->total, "weight_map", map);
    int r = json_put(w, INDEX, root, err);
    json_decref(root);
    return r;
}

int writer_commit(struct writer *w, const json_t *head, struct octavo_error *err)
{
    int r = 0;
    for (int i = 0; i < w->num_tensors; i++)
        if (w->tensors[i].written != w->tensors[i].bytes)
            return error_set(err, OCTAVO_EINTERNAL, "%s was not written whole (%zu of %zu bytes)", w->tensors[i].name,
                             (size_t)w->tensors[i].written, w->tensors[i].bytes);
    for (int i = 0; i < w->num_parts && r == 0; i++)
        if (fsync(w->parts[i].fd) < 0)
            r = io_error(w, w->parts[i].path, err);
    if (r == 0)
        r = description_put(w, head, err);
    if (r == 0)
        r = index_put(w, err);
    return r < 0 ? r : folder_commit(&w->folder, err);
}
