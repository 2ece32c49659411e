/* Weight files of a folder: see shards.h. Runs on the loading thread. */
#include "ckpt/shards.h"

#include "base/json.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
#define INDEX_MAX_BYTES (100 << 20)
#define MAX_FILES 4096

struct names {
    char **names;
    size_t num, cap;
};

static void names_add(struct names *l, const char *name)
{
    if (l->num == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->names = mem_realloc(l->names, l->cap * sizeof(*l->names));
    }
    l->names[l->num++] = mem_strdup(name);
}

static void names_release(struct names *l)
{
    for (size_t i = 0; i < l->num; i++)
        free(l->names[i]);
    free(l->names);
    *l = (struct names){0};
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

/* ---- files ---- */

/* Opens dir/name as the next file and adds its tensors. files has room. */
static int add_file(struct shards *s, const char *dir, const char *name, struct octavo_error *err)
{
    char *path = path_join(dir, name);
    struct safetensors_file *f = &s->files[s->num_files];
    int r = safetensors_open(path, f, err);
    free(path);
    if (r < 0)
        return r;
    s->num_files++;
    if (!f->num_tensors)
        return 0;
    size_t n;
    const struct tensor **grown = NULL;
    if (size_add_ok(s->num_tensors, f->num_tensors, &n) && n <= INT32_MAX)
        grown = mem_try_array(n, sizeof(*grown));
    if (!grown)
        return error_set(err, OCTAVO_ENOMEM, "%s: no memory for its %zu tensors", f->path, f->num_tensors);
    if (s->num_tensors)
        memcpy(grown, s->tensors, s->num_tensors * sizeof(*grown));
    free(s->tensors);
    s->tensors = grown;
    for (size_t i = 0; i < f->num_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        int32_t old;
        if (!strmap_add(&s->by_name, t->name, strlen(t->name), (int32_t)s->num_tensors, &old))
            return error_set(err, OCTAVO_EINVAL,
                             "tensor \"%.200s\" is in two files: %s and %s; remove the one that does not belong",
                             t->name, s->tensors[old]->file, t->file);
        s->tensors[s->num_tensors++] = t;
    }
    return 0;
}

static int add_files(struct shards *s, const char *dir, const struct names *names, struct octavo_error *err)
{
    if (names->num > MAX_FILES)
        return error_set(err, OCTAVO_EINVAL, "%s: %zu safetensors files are more than the %d supported", dir,
                         names->num, MAX_FILES);
    s->files = mem_calloc(names->num, sizeof(*s->files));
    int r = 0;
    for (size_t i = 0; i < names->num && r == 0; i++)
        r = add_file(s, dir, names->names[i], err);
    return r;
}

/* ---- index ---- */

/* A shard is a plain file of the folder: an index from elsewhere must not reach out of it. */
static int file_name_check(const char *index, const char *name, struct octavo_error *err)
{
    bool bad = !*name || *name == '.' || strchr(name, '/') || strchr(name, '\\') || strstr(name, "..");
    for (const char *c = name; *c && !bad; c++)
        bad = (unsigned char)*c < 0x20 || *c == 0x7f;
    if (bad)
        return error_set(
            err, OCTAVO_EINVAL,
            "%s: \"%.200s\" is not the name of a file in this folder (no '/', '\\', \"..\" or leading dot)", index,
            name);
    return 0;
}

/* The distinct files of the map, sorted. */
static int index_files(const char *dir, const char *index, json_t *map, struct names *ret, struct octavo_error *err)
{
    struct strmap seen = {0};
    const char *tensor;
    json_t *file;
    int r = 0;
    json_object_foreach (map, tensor, file) {
        const char *name = json_string_value(file);
        if (!name) {
            r = error_set(err, OCTAVO_EINVAL,
                          "%s: weight_map must map tensors to file names, but \"%.200s\" maps to something else", index,
                          tensor);
            break;
        }
        if (strmap_add(&seen, name, strlen(name), 0, NULL)) {
            if ((r = file_name_check(index, name, err)) < 0)
                break;
            char *path = path_join(dir, name);
            int missing = access(path, F_OK);
            free(path);
            if (missing) {
                r = error_set(err, OCTAVO_EIO,
                              "%s names the shard %.200s (for tensor \"%.200s\"), but it is not in the folder: "
                              "finish the download",
                              index, name, tensor);
                break;
            }
            names_add(ret, name);
        }
    }
    strmap_release(&seen);
    if (r == 0)
        qsort(ret->names, ret->num, sizeof(*ret->names), compare_names);
    return r;
}

/* Every tensor must be where the index says. */
static int index_check(const char *dir, const char *index, json_t *map, const struct shards *s,
                       struct octavo_error *err)
{
    size_t prefix = strlen(dir) + !ends_with(dir, "/"); /* of every path, as path_join makes it */
    const char *tensor;
    json_t *file;
    json_object_foreach (map, tensor, file) {
        int32_t i = strmap_get(&s->by_name, tensor, strlen(tensor), -1);
        if (i < 0 || strcmp(s->tensors[i]->file + prefix, json_string_value(file)))
            return error_set(err, OCTAVO_EINVAL,
                             "%s says that tensor \"%.200s\" is in %.200s, but that file does not hold it", index,
                             tensor, json_string_value(file));
    }
    return 0;
}

static int open_index(struct shards *s, const char *dir, const char *index, struct octavo_error *err)
{
    json_t *root = NULL;
    struct names names = {0};
    int r = json_parse_file(index, INDEX_MAX_BYTES, JSON_PARSE_REJECT_DUPLICATES, &root, err);
    if (r < 0)
        return r;
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        r = error_set(err, OCTAVO_EINVAL, "%s: weight_map is missing or not an object", index);
        goto out;
    }
    if (!json_object_size(map)) {
        r = error_set(err, OCTAVO_EINVAL, "%s: weight_map is empty", index);
        goto out;
    }
    if ((r = index_files(dir, index, map, &names, err)) < 0 || (r = add_files(s, dir, &names, err)) < 0)
        goto out;
    r = index_check(dir, index, map, s, err);
out:
    names_release(&names);
    json_decref(root);
    return r;
}

/* ---- no index ---- */

static int list_folder(const char *dir, struct names *ret, const char **ret_other, struct octavo_error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return error_set(err, OCTAVO_EIO, "cannot read the folder %s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        if (ends_with(e->d_name, ".safetensors"))
            names_add(ret, e->d_name);
        else if (ends_with(e->d_name, ".bin") || ends_with(e->d_name, ".pth") || ends_with(e->d_name, ".pt"))
            *ret_other = "; the PyTorch weights there must be converted to safetensors first";
        else if (ends_with(e->d_name, ".gguf"))
            *ret_other = "; GGUF files are not read, use the safetensors checkpoint";
    }
    closedir(d);
    if (ret->num)
        qsort(ret->names, ret->num, sizeof(*ret->names), compare_names);
    return 0;
}

static int open_all(struct shards *s, const char *dir, struct octavo_error *err)
{
    struct names names = {0};
    const char *other = "";
    int r = list_folder(dir, &names, &other, err);
    if (r == 0 && !names.num)
        r = error_set(err, OCTAVO_EIO, "%s holds no weights: looked for %s, %s and *.safetensors%s", dir, INDEX_NAME,
                      SINGLE_NAME, other);
    if (r == 0)
        r = add_files(s, dir, &names, err);
    names_release(&names);
    return r;
}

static int open_float(struct shards *s, const char *dir, struct octavo_error *err)
{
    char *index = path_join(dir, INDEX_NAME), *single = path_join(dir, SINGLE_NAME);
    char *only[] = {(char[]){SINGLE_NAME}};
    int r;
    if (access(index, F_OK) == 0)
        r = open_index(s, dir, index, err);
    else if (access(single, F_OK) == 0)
        r = add_files(s, dir, &(struct names){only, 1, 1}, err);
    else
        r = open_all(s, dir, err);
    free(index);
    free(single);
    return r;
}

/* ---- ModelSlim ---- */

#define QUANT_STEM "quant_model_weight"

/* "-00001-of-00002.safetensors" at the end. */
static bool is_shard(const char *name)
{
    size_t n = strlen(name);
    const char *at = n >= 27 ? name + n - 27 : NULL;
    return at && *at == '-' && strspn(at + 1, "0123456789") == 5 && !strncmp(at + 6, "-of-", 4);
}

/* The names in from that end so; one of the preferred names alone when it is there. */
static void names_select(const struct names *from, const char *suffix, bool shards, const char *const *preferred,
                         struct names *ret)
{
    for (size_t p = 0; p < 3; p++) {
        char *want = mem_printf("%s%s%s", QUANT_STEM, preferred[p], suffix);
        bool found = false;
        for (size_t i = 0; i < from->num; i++)
            found |= !strcmp(from->names[i], want);
        if (found && !shards)
            names_add(ret, want);
        free(want);
        if (found && !shards)
            return;
    }
    for (size_t i = 0; i < from->num; i++)
        if (ends_with(from->names[i], suffix) && is_shard(from->names[i]) == shards)
            names_add(ret, from->names[i]);
}

/* Files of the folder that ModelSlim's savers name, sorted. */
static int list_quant(const char *dir, struct names *ret, struct octavo_error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return error_set(err, OCTAVO_EIO, "cannot read the folder %s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d));)
        if (!strncmp(e->d_name, QUANT_STEM, sizeof(QUANT_STEM) - 1))
            names_add(ret, e->d_name);
    closedir(d);
    if (ret->num)
        qsort(ret->names, ret->num, sizeof(*ret->names), compare_names);
    return 0;
}

static int ambiguous(const char *dir, const struct names *n, struct octavo_error *err)
{
    return error_set(err, OCTAVO_EINVAL, "%s holds several sets of weights, %.100s and %.100s; leave one of them", dir,
                     n->names[0], n->names[1]);
}

/* A renamed index: model.safetensors.index.json that names one of the shards. */
static bool index_names(const char *index, const struct names *shards)
{
    json_t *root = NULL, *file;
    const char *tensor;
    bool found = false;
    if (json_parse_file(index, INDEX_MAX_BYTES, 0, &root, NULL) < 0)
        return true; /* opening it says what is wrong */
    json_object_foreach (json_object_get(root, "weight_map"), tensor, file) {
        const char *name = json_string_value(file);
        found |= name && !strncmp(name, QUANT_STEM, sizeof(QUANT_STEM) - 1);
        if (found)
            break;
    }
    json_decref(root);
    return found || !shards->num;
}

static int open_quant(struct shards *s, const char *dir, const char *type, struct octavo_error *err)
{
    const char *const preferred[] = {*type ? type : "s", "s", ""};
    struct names all = {0}, index = {0}, single = {0}, parts = {0};
    char *renamed = path_join(dir, INDEX_NAME), *path = NULL;
    int r = list_quant(dir, &all, err);
    if (r < 0)
        goto out;
    names_select(&all, ".safetensors.index.json", false, preferred, &index);
    names_select(&all, ".safetensors", false, preferred, &single);
    names_select(&all, ".safetensors", true, preferred, &parts);
    if (index.num > 1 || (!index.num && single.num > 1)) {
        r = ambiguous(dir, index.num > 1 ? &index : &single, err);
    } else if (index.num) {
        path = path_join(dir, index.names[0]);
        r = open_index(s, dir, path, err);
    } else if (single.num) {
        r = add_files(s, dir, &single, err);
    } else if (parts.num && !(access(renamed, F_OK) == 0 && index_names(renamed, &parts))) {
        r = add_files(s, dir, &parts, err);
    } else {
        r = open_float(s, dir, err);
    }
out:
    names_release(&all);
    names_release(&index);
    names_release(&single);
    names_release(&parts);
    free(renamed);
    free(path);
    return r;
}

int shards_open(const char *dir, const char *quant_suffix, struct shards *ret, struct octavo_error *err)
{
    struct shards s = {0};
    int r = quant_suffix ? open_quant(&s, dir, quant_suffix, err) : open_float(&s, dir, err);
    if (r == 0)
        *ret = s;
    else
        shards_release(&s);
    return r;
}

void shards_release(struct shards *s)
{
    for (size_t i = 0; i < s->num_files; i++)
        safetensors_close(&s->files[i]);
    free(s->files);
    free(s->tensors);
    strmap_release(&s->by_name);
    *s = (struct shards){0};
}
