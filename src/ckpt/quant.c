/* Quantised checkpoints: see quant.h. Called while a config is loaded, on the loading thread. */
#include "ckpt/quant.h"

#include "base/file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static bool is_description(const char *name)
{
    static const char stem[] = "quant_model_description";
    size_t n = strlen(name);
    return !strncmp(name, stem, sizeof(stem) - 1) && n >= 5 && !strcmp(name + n - 5, ".json");
}

/* quant_model_description.json, or quant_model_description_<type>.json from older tools. */
static int find_description(const char *dir, struct octavo_error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return 0; /* whoever reads the folder next says why */
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));)
        if (is_description(e->d_name))
            r = error_set(
                err, OCTAVO_EUNSUPPORTED,
                "quantised checkpoints are not supported yet: %s holds ModelSlim's %s; use the float checkpoint it was "
                "made from",
                dir, e->d_name);
    closedir(d);
    return r;
}

int quant_detect(const char *dir, const json_t *config, const char *what, struct octavo_error *err)
{
    int r = dir ? find_description(dir, err) : 0;
    const json_t *q = json_object_get(config, "quantization_config");
    if (r < 0 || !q || json_is_null(q))
        return r;
    const json_t *method = json_object_get(q, "quant_method");
    return error_set_param(
        err, OCTAVO_EUNSUPPORTED, "quantization_config",
        "quantised checkpoints are not supported yet: %s has a quantization_config (quant_method %.60s); use "
        "the float checkpoint it was made from",
        what, json_is_string(method) ? json_string_value(method) : "not given");
}
