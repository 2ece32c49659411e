/* Finding the model folder: see model_path.h. Main thread, at start. */
#include "cli/model_path.h"

#include "base/file.h"
#include "base/mem.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int check_named(const char *path, const char *source, char **ret_path, struct octavo_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return error_set(err, OCTAVO_EIO,
                         "%s: no such folder%s. octavo serves local folders in the Hugging Face layout (config.json, "
                         "*.safetensors, tokenizer.json); download the checkpoint first, e.g. with `hf download`",
                         path, source);
    if (!S_ISDIR(st.st_mode))
        return error_set(err, OCTAVO_EINVAL, "%s is not a folder%s: name the folder that holds config.json", path,
                         source);
    *ret_path = mem_strdup(path);
    return 0;
}

int model_path_find(const char *named, char **ret_path, struct octavo_error *err)
{
    static const char *const beside[] = {
        "../share/octavo/models/storyteller", /* installed */
        "../models/storyteller",              /* build/octavo */
        "models/storyteller",
    };
    if (named)
        return check_named(named, "", ret_path, err);
    const char *env = getenv("OCTAVO_MODEL");
    if (env && *env)
        return check_named(env, " (from OCTAVO_MODEL)", ret_path, err);

    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    char *slash = NULL;
    if (n > 0) {
        exe[n] = '\0';
        slash = strrchr(exe, '/');
    }
    for (size_t i = 0; slash && i < ARRAY_LEN(beside); i++) {
        *slash = '\0';
        char *path = path_join(exe, beside[i]);
        char *real = realpath(path, NULL);
        free(path);
        if (real && is_folder(real)) {
            *ret_path = real;
            return 0;
        }
        free(real);
    }
    return error_set(
        err, OCTAVO_EIO,
        "no model named, and the bundled one is not where it should be (../share/octavo/models/storyteller "
        "from the program): name a checkpoint folder, or set OCTAVO_MODEL");
}
