/* safetensors: see safetensors.h. The header is trusted in nothing: every number is checked against the file's size
 * before a byte of data is touched. Runs on the loading thread. */
#include "ckpt/safetensors.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX_BYTES 100000000 /* the reference implementation's limit */

/* One entry of the header while it is checked. */
struct entry {
    struct tensor t;
    size_t begin, end; /* bytes, relative to the data */
};

struct parser {
    const char *path;
    const uint8_t *data;
    size_t data_bytes;
    struct entry *entries;
    size_t num_entries;
    struct octavo_error *err;
};

/* Names come from the file: clipped, so that a long one cannot push the rule out of the message. */
#define NAME_FMT "%.200s%s"
#define NAME_ARG(s) (s), strlen(s) > 200 ? "..." : ""

static int name_check(const struct parser *p, const char *name)
{
    if (!*name)
        return error_set(p->err, OCTAVO_EINVAL, "%s: a tensor's name is empty", p->path);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\": the name has a control character",
                             p->path, NAME_ARG(name));
    return 0;
}

static int metadata_check(const struct parser *p, json_t *metadata)
{
    if (!json_is_object(metadata))
        return error_set(p->err, OCTAVO_EINVAL, "%s: __metadata__ must be an object of strings", p->path);
    const char *key;
    json_t *value;
    json_object_foreach (metadata, key, value) {
        if (!json_is_string(value))
            return error_set(p->err, OCTAVO_EINVAL,
                             "%s: __metadata__ may hold only strings, but \"" NAME_FMT "\" is not one", p->path,
                             NAME_ARG(key));
    }
    return 0;
}

static int shape_parse(const struct parser *p, const char *name, const json_t *shape, struct tensor *t,
                       size_t *ret_count)
{
    size_t n = json_array_size(shape), count = 1;
    if (!json_is_array(shape))
        return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\": shape must be a list of integers",
                         p->path, NAME_ARG(name));
    if (n > TENSOR_MAX_DIMS)
        return error_set(p->err, OCTAVO_EINVAL,
                         "%s: tensor \"" NAME_FMT "\" has %zu dimensions, but at most %d are read", p->path,
                         NAME_ARG(name), n, TENSOR_MAX_DIMS);
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return error_set(p->err, OCTAVO_EINVAL,
                             "%s: tensor \"" NAME_FMT "\": shape must be a list of integers of at least 0", p->path,
                             NAME_ARG(name));
        t->shape[i] = json_integer_value(d);
        if (!size_mul_ok(count, (size_t)t->shape[i], &count))
            return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\": the number of its elements overflows",
                             p->path, NAME_ARG(name));
    }
    t->num_dims = (int)n;
    *ret_count = count;
    return 0;
}

static int offsets_parse(const struct parser *p, const char *name, const json_t *offsets, struct entry *e)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < 0)
        return error_set(p->err, OCTAVO_EINVAL,
                         "%s: tensor \"" NAME_FMT "\": data_offsets must be two integers of at least 0", p->path,
                         NAME_ARG(name));
    e->begin = (size_t)json_integer_value(begin);
    e->end = (size_t)json_integer_value(end);
    if (e->end < e->begin)
        return error_set(p->err, OCTAVO_EINVAL,
                         "%s: tensor \"" NAME_FMT "\": data_offsets end (%zu) before they begin (%zu)", p->path,
                         NAME_ARG(name), e->end, e->begin);
    return 0;
}

static int entry_parse(const struct parser *p, const char *name, const json_t *v, struct entry *e)
{
    if (!json_is_object(v))
        return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\" must be described by an object", p->path,
                         NAME_ARG(name));
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (!json_object_get(v, keys[i]))
            return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\" has no %s", p->path, NAME_ARG(name),
                             keys[i]);
    const json_t *dtype = json_object_get(v, "dtype");
    if (!json_is_string(dtype))
        return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\": dtype must be a string", p->path,
                         NAME_ARG(name));
    if (dtype_parse(json_string_value(dtype), &e->t.dtype) < 0)
        return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\" has the unknown dtype \"%.40s\"", p->path,
                         NAME_ARG(name), json_string_value(dtype));
    size_t count = 0, bits;
    int r = shape_parse(p, name, json_object_get(v, "shape"), &e->t, &count);
    if (r < 0 || (r = offsets_parse(p, name, json_object_get(v, "data_offsets"), e)) < 0)
        return r;
    if (!size_mul_ok(count, (size_t)dtype_bits(e->t.dtype), &bits))
        return error_set(p->err, OCTAVO_EINVAL, "%s: tensor \"" NAME_FMT "\": its size in bits overflows", p->path,
                         NAME_ARG(name));
    if (bits % 8)
        return error_set(p->err, OCTAVO_EINVAL,
                         "%s: tensor \"" NAME_FMT "\": %zu elements of %s do not fill whole bytes", p->path,
                         NAME_ARG(name), count, dtype_name(e->t.dtype));
    e->t.bytes = e->end - e->begin;
    if (e->t.bytes != bits / 8)
        return error_set(p->err, OCTAVO_EINVAL,
                         "%s: tensor \"" NAME_FMT "\": its data_offsets span %zu bytes, but shape and dtype need %zu",
                         p->path, NAME_ARG(name), e->t.bytes, bits / 8);
    return 0;
}

static int entry_compare(const void *pa, const void *pb)
{
    const struct entry *a = pa, *b = pb;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end)
        return a->end < b->end ? -1 : 1;
    return strcmp(a->t.name, b->t.name);
}

/* The entries must tile the data: no hole, no overlap, nothing before, nothing after. */
static int tiling_check(struct parser *p)
{
    qsort(p->entries, p->num_entries, sizeof(*p->entries), entry_compare);
    size_t at = 0;
    for (size_t i = 0; i < p->num_entries; i++) {
        struct entry *e = &p->entries[i];
        const char *name = e->t.name;
        if (e->begin < at)
            return error_set(p->err, OCTAVO_EINVAL,
                             "%s: tensor \"" NAME_FMT
                             "\" begins at byte %zu and overlaps \"%.200s\", which ends at %zu",
                             p->path, NAME_ARG(name), e->begin, p->entries[i - 1].t.name, at);
        if (e->begin > at)
            return error_set(p->err, OCTAVO_EINVAL,
                             "%s: tensor \"" NAME_FMT "\" begins at byte %zu and leaves a hole of %zu bytes before it",
                             p->path, NAME_ARG(name), e->begin, e->begin - at);
        if (e->end > p->data_bytes)
            return error_set(p->err, OCTAVO_EINVAL,
                             "%s: tensor \"" NAME_FMT "\" ends at byte %zu of the data, but the file has only %zu: "
                             "it is truncated, download it again",
                             p->path, NAME_ARG(name), e->end, p->data_bytes);
        e->t.data = p->data + e->begin;
        at = e->end;
    }
    if (at != p->data_bytes)
        return error_set(p->err, OCTAVO_EINVAL, "%s: %zu bytes follow the last tensor, which no tensor covers", p->path,
                         p->data_bytes - at);
    return 0;
}

static int header_check(const struct parser *p, json_t *root, size_t *ret_names_bytes)
{
    if (!json_is_object(root))
        return error_set(p->err, OCTAVO_EINVAL, "%s: the header must be a JSON object", p->path);
    const char *name;
    json_t *v;
    size_t bytes = 0;
    json_object_foreach (root, name, v) {
        bytes += strlen(name) + 1;
    }
    *ret_names_bytes = bytes;
    return 0;
}

static int entries_parse(struct parser *p, json_t *root, char *names)
{
    const char *name;
    json_t *v;
    json_object_foreach (root, name, v) {
        int r = strcmp(name, "__metadata__") ? name_check(p, name) : metadata_check(p, v);
        if (r < 0)
            return r;
        if (!strcmp(name, "__metadata__"))
            continue;
        struct entry *e = &p->entries[p->num_entries];
        size_t len = strlen(name) + 1;
        memcpy(names, name, len);
        e->t.name = names;
        names += len;
        r = entry_parse(p, name, v, e);
        if (r < 0)
            return r;
        p->num_entries++;
    }
    return 0;
}

/* Finds the header's text and the data behind it. */
static int frame_check(const uint8_t *data, size_t size, const char *path, size_t *ret_header, struct octavo_error *err)
{
    if (size < 8)
        return error_set(err, OCTAVO_EINVAL,
                         "%s is not a safetensors file: %zu bytes are too few for the 8-byte header length", path,
                         size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | data[i];
    if (n > HEADER_MAX_BYTES)
        return error_set(err, OCTAVO_EINVAL,
                         "%s is not a safetensors file: its header would be %llu bytes long, more than the %d allowed",
                         path, (unsigned long long)n, HEADER_MAX_BYTES);
    if (n > size - 8)
        return error_set(err, OCTAVO_EINVAL,
                         "%s: the header should be %llu bytes long, but the file has only %zu: it is truncated", path,
                         (unsigned long long)n, size);
    *ret_header = (size_t)n;
    return 0;
}

int safetensors_parse(const uint8_t *data, size_t size, const char *path, struct safetensors_file *ret_file,
                      struct octavo_error *err)
{
    struct safetensors_file file = {0};
    struct parser p = {.path = path, .err = err};
    json_t *root = NULL;
    size_t header = 0, names_bytes = 0;
    int r = frame_check(data, size, path, &header, err);
    if (r < 0)
        goto out;
    const char *text = (const char *)data + 8;
    if (!utf8_valid(text, header)) {
        r = error_set(err, OCTAVO_EINVAL, "%s: the header is not valid UTF-8", path);
        goto out;
    }
    p.data = data + 8 + header;
    p.data_bytes = size - 8 - header;
    r = json_parse_text(text, header, "the header", JSON_PARSE_REJECT_DUPLICATES, &root, err);
    if (r < 0) {
        error_prefix(err, "%s", path);
        goto out;
    }
    if ((r = header_check(&p, root, &names_bytes)) < 0)
        goto out;
    size_t n = json_object_size(root);
    p.entries = mem_try_calloc(n, sizeof(*p.entries));
    file.names = mem_try_array(names_bytes, 1);
    if (!p.entries || !file.names) {
        r = error_set(err, OCTAVO_ENOMEM, "%s: no memory for the names of %zu tensors", path, n);
        goto out;
    }
    if ((r = entries_parse(&p, root, file.names)) < 0 || (r = tiling_check(&p)) < 0)
        goto out;
    file.tensors = mem_try_array(p.num_entries, sizeof(*file.tensors));
    if (!file.tensors) {
        r = error_set(err, OCTAVO_ENOMEM, "%s: no memory for %zu tensors", path, n);
        goto out;
    }
    file.path = mem_strdup(path);
    file.num_tensors = p.num_entries;
    for (size_t i = 0; i < p.num_entries; i++) {
        file.tensors[i] = p.entries[i].t;
        file.tensors[i].file = file.path;
    }
    *ret_file = file;
    file = (struct safetensors_file){0};
out:
    json_decref(root);
    free(p.entries);
    safetensors_close(&file);
    return r;
}

int safetensors_open(const char *path, struct safetensors_file *ret_file, struct octavo_error *err)
{
    struct file_map map = {0};
    int r = file_map_open(path, &map, err);
    if (r < 0)
        return r;
    r = safetensors_parse(map.data, map.size, path, ret_file, err);
    if (r < 0)
        file_map_close(&map);
    else
        ret_file->map = map;
    return r;
}

void safetensors_close(struct safetensors_file *file)
{
    file_map_close(&file->map);
    free(file->path);
    free(file->tensors);
    free(file->names);
    *file = (struct safetensors_file){0};
}
