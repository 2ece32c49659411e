/* What flags say of a model: see choose.h. */
#include "model/choose.h"

#include "base/mem.h"
#include "kernel/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum dtype dtype;
} kv_dtypes[] = {{"bfloat16", DTYPE_BF16}, {"float16", DTYPE_F16}, {"float32", DTYPE_F32}, {"int8", DTYPE_I8}};

static const char *kv_dtype_name(enum dtype dtype)
{
    for (size_t i = 0; i < ARRAY_LEN(kv_dtypes); i++)
        if (kv_dtypes[i].dtype == dtype)
            return kv_dtypes[i].name;
    return "?";
}

int model_choose_kv_dtypes(const struct checkpoint *ckpt, const char *flag, const char *name, bool dummy,
                           enum dtype **ret, struct octavo_error *err)
{
    const struct model_config *c = checkpoint_config(ckpt);
    bool is_auto = !strcmp(name, "auto");
    size_t known = 0;
    int num_int8 = 0;
    while (!is_auto && known < ARRAY_LEN(kv_dtypes) && strcmp(name, kv_dtypes[known].name))
        known++;
    if (known == ARRAY_LEN(kv_dtypes))
        return error_set_param(err, OCTAVO_EINVAL, "kv_cache_dtype",
                               "--%s must be auto, bfloat16, float16, float32 or int8, not '%s'", flag, name);
    bool is_int8 = !is_auto && kv_dtypes[known].dtype == DTYPE_I8;
    enum dtype *dtypes = mem_alloc((size_t)c->num_hidden_layers * sizeof(*dtypes));
    for (int i = 0; i < c->num_hidden_layers; i++) {
        bool scales = checkpoint_kv_scales(ckpt, i) || (is_int8 && dummy);
        dtypes[i] = !is_auto && !is_int8 ? kv_dtypes[known].dtype : scales ? DTYPE_I8 : c->dtype;
        num_int8 += dtypes[i] == DTYPE_I8;
    }
    if (is_int8 && !num_int8) {
        free(dtypes);
        return error_set_param(err, OCTAVO_EINVAL, "kv_cache_dtype",
                               "--%s int8 needs the static scales that a C8 checkpoint brings, and %s has "
                               "none; `octavo quantize` makes them, or leave the flag out",
                               flag, checkpoint_dir(ckpt));
    }
    *ret = dtypes;
    return 0;
}

const char *model_kv_dtypes_name(const enum dtype *dtypes, int n)
{
    for (int i = 1; i < n; i++)
        if (dtypes[i] != dtypes[0])
            return "mixed (int8 where the checkpoint has scales)";
    return kv_dtype_name(dtypes[0]);
}

int model_choose_isa(const char *name, enum cpu_isa *ret, struct octavo_error *err)
{
    const char *env = getenv("OCTAVO_ISA"), *from = "--isa";
    if (!strcmp(name, "auto") && env && *env) {
        name = env;
        from = "OCTAVO_ISA";
    }
    bool known = cpu_isa_parse(name, ret) == 0;
    if (known && cpu_isa_supported(*ret))
        return 0;
    char have[128] = "auto, ref";
    for (int isa = CPU_ISA_REF + 1; isa < CPU_ISA_COUNT; isa++)
        if (cpu_isa_supported((enum cpu_isa)isa)) {
            size_t len = strlen(have);
            snprintf(have + len, sizeof(have) - len, ", %s", cpu_isa_name((enum cpu_isa)isa));
        }
    return error_set_param(err, OCTAVO_EINVAL, "isa", "%s must be %s on this CPU, not '%s'", from, have, name);
}

int model_choose_quantization(const struct checkpoint *ckpt, const char *flag, const char *name, bool *ret_w8a8,
                              struct octavo_error *err)
{
    static const struct {
        const char *name, *format;
    } known[] = {{"w8a8", "float"}, {"ascend", "ModelSlim"}, {"compressed-tensors", "compressed-tensors"}};
    *ret_w8a8 = false;
    if (!name || !strcmp(name, "none"))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(name, known[i].name))
            continue;
        if (strcmp(checkpoint_format(ckpt), known[i].format))
            return error_set_param(err, OCTAVO_EINVAL, "quantization",
                                   "--%s %s is for a %s checkpoint, but %s is %s; leave the flag out", flag, name,
                                   known[i].format, checkpoint_dir(ckpt), checkpoint_format(ckpt));
        *ret_w8a8 = i == 0;
        return 0;
    }
    return error_set_param(err, OCTAVO_EINVAL, "quantization",
                           "--%s must be none, w8a8, ascend or compressed-tensors, not '%s'", flag, name);
}
