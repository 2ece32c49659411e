/* Files that go along: see source_files.h. */
#include "quantize/source_files.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_MAX_BYTES ((size_t)16 << 20)
#define TEMPLATES "additional_chat_templates"

static bool ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && !strcmp(name + n - s, suffix);
}

static bool wanted(const char *name)
{
    static const char *const suffixes[] = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"};
    if (name[0] == '.' || !strcmp(name, "config.json") || ends(name, "index.json") ||
        !strncmp(name, "quant_model", strlen("quant_model")))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++)
        if (ends(name, suffixes[i]))
            return true;
    return !strncmp(name, "LICENSE", strlen("LICENSE")) || !strncmp(name, "NOTICE", strlen("NOTICE"));
}

static int config_put(const char *src, struct writer *w, struct octavo_error *err)
{
    struct buf text = {0};
    json_t *root = NULL;
    char *path = path_join(src, "config.json");
    int r = file_read(path, CONFIG_MAX_BYTES, &text, err);
    if (r == 0)
        r = json_parse_text(buf_str(&text), text.len, path, 0, &root, err);
    if (r == 0) {
        json_t *inner = json_object_get(root, "text_config");
        bool stale = json_object_del(root, "quantization_config") == 0;
        stale |= inner && json_object_del(inner, "quantization_config") == 0;
        char *dump = stale ? json_dumps(root, JSON_INDENT(2)) : NULL;
        r = dump ? writer_text(w, "config.json", dump, strlen(dump), err)
                 : writer_text(w, "config.json", buf_str(&text), text.len, err); /* byte for byte */
        free(dump);
    }
    json_decref(root);
    buf_release(&text);
    free(path);
    return r;
}

static int folder_copy(const char *src, const char *sub, struct writer *w, struct octavo_error *err)
{
    char *path = sub ? path_join(src, sub) : mem_strdup(src);
    struct dirent **found = NULL;
    int n = scandir(path, &found, NULL, alphasort), r = 0;
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *from = path_join(path, found[i]->d_name);
        char *name = sub ? path_join(sub, found[i]->d_name) : mem_strdup(found[i]->d_name);
        /* stat, not lstat: download caches are full of links to the files themselves */
        if (r == 0 && wanted(found[i]->d_name) && stat(from, &st) == 0 && S_ISREG(st.st_mode))
            r = writer_copy(w, name, from, err);
        free(from);
        free(name);
        free(found[i]);
    }
    free(found);
    free(path);
    return r;
}

int source_files_copy(const char *src, struct writer *w, struct octavo_error *err)
{
    int r = config_put(src, w, err);
    if (r == 0)
        r = folder_copy(src, NULL, w, err);
    return r < 0 ? r : folder_copy(src, TEMPLATES, w, err);
}

int source_outside(const char *src, const char *dst, struct octavo_error *err)
{
    char *a = realpath(src, NULL), *b = realpath(dst, NULL);
    size_t len = b ? strlen(b) : 0;
    bool within = a && b && !strncmp(a, b, len) && (a[len] == '/' || a[len] == '\0' || len == 1);
    free(a);
    free(b);
    return within ? error_set_param(err, OCTAVO_EINVAL, "output",
                                    "-o %.200s is where the source lies; name another "
                                    "folder",
                                    dst)
                  : 0;
}
