/* Checkpoints: see checkpoint.h. Opened on the loading thread; immutable afterwards. */
#include "ckpt/checkpoint.h"

#include "base/mem.h"
#include "ckpt/arch.h"
#include "ckpt/dummy.h"
#include "ckpt/kv_scales.h"
#include "ckpt/linear.h"
#include "ckpt/modelslim.h"
#include "ckpt/quant.h"
#include "ckpt/source.h"
#include "ckpt/values.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct checkpoint {
    char *dir;
    struct model_config config;
    struct generation_config generation;
    uint64_t seed;
    struct shards shards;         /* empty for a dummy */
    struct tensor *dummies;       /* (num_used) for a dummy, else NULL */
    enum arch_role *roles;        /* (num_used), beside dummies */
    char *dummy_names;            /* arena: a name of each, NUL-terminated */
    const struct tensor **used;   /* (num_used), in the architecture's order */
    const struct tensor **unused; /* (num_unused), in the files' order */
    size_t num_used, num_unused;
    struct strmap by_name; /* index in used */
    struct quant quant;
    struct linear_entry *linears; /* (num_linears), in the architecture's order */
    size_t num_linears;
    struct strmap modules; /* index in linears */
    struct kv_scales *kv;  /* (num_hidden_layers), NULLs where the cache is float; NULL for a dummy */
};

/* ---- checks ---- */

static int tensor_check(const struct arch_tensor *want, const struct tensor *t, struct octavo_error *err)
{
    char found[200], expected[200];
    shape_format(expected, want->num_dims, want->shape);
    shape_format(found, t->num_dims, t->shape);
    if (!dtype_is_float(t->dtype))
        return error_set(
            err, OCTAVO_EUNSUPPORTED, "tensor %s in %s is %s, but must be BF16, F16 or F32%s", t->name, t->file,
            dtype_name(t->dtype),
            want->role == ARCH_EMBEDDING ? ": quantised embeddings are not supported"
            : t->dtype == DTYPE_I8
                ? ": nothing says how it is quantised (quant_model_description.json or quantization_config)"
                : "");
    if (t->num_dims != want->num_dims || memcmp(t->shape, want->shape, sizeof(*t->shape) * (size_t)t->num_dims))
        return error_set(err, OCTAVO_EINVAL, "tensor %s in %s has the shape %s, but config.json asks for %s", t->name,
                         t->file, found, expected);
    return 0;
}

static int missing_error(const struct checkpoint *c, const struct arch_tensor *want, size_t num_missing,
                         struct octavo_error *err)
{
    char expected[200], more[64] = "";
    shape_format(expected, want->num_dims, want->shape);
    if (num_missing > 1)
        snprintf(more, sizeof(more), " (and %zu more are missing)", num_missing - 1);
    return error_set(err, OCTAVO_EINVAL, "%s: tensor %s of shape %s is missing%s: %s", c->dir, want->name, expected,
                     more, want->reason);
}

/* q_norm without k_norm, or the other way round, would be applied to one side only. */
static int norm_pairs_check(const struct checkpoint *c, struct octavo_error *err)
{
    for (int l = 0; l < c->config.num_hidden_layers; l++) {
        char q[64], k[64];
        snprintf(q, sizeof(q), "model.layers.%d.self_attn.q_norm.weight", l);
        snprintf(k, sizeof(k), "model.layers.%d.self_attn.k_norm.weight", l);
        if (!checkpoint_find(c, q) != !checkpoint_find(c, k))
            return error_set(err, OCTAVO_EINVAL, "%s: one of %s and %s is missing", c->dir, q, k);
    }
    return 0;
}

/* ---- opening ---- */

static int alloc_used(struct checkpoint *c, size_t n, struct octavo_error *err)
{
    c->used = mem_try_calloc(n, sizeof(struct tensor *));
    return c->used ? 0 : error_set(err, OCTAVO_ENOMEM, "%s: no memory for %zu tensors", c->dir, n);
}

static void add_used(struct checkpoint *c, const struct tensor *t)
{
    strmap_add(&c->by_name, t->name, strlen(t->name), (int32_t)c->num_used, NULL);
    c->used[c->num_used++] = t;
}

/* "a.b.weight" -> "a.b" */
static const char *module_of(const char *name, char out[160])
{
    const char *dot = strrchr(name, '.');
    snprintf(out, 160, "%.*s", dot ? (int)(dot - name) : 0, name);
    return out;
}

static struct linear_entry *linear_find(const struct checkpoint *c, const char *module)
{
    int32_t i = strmap_get(&c->modules, module, strlen(module), -1);
    return i < 0 ? NULL : &c->linears[i];
}

static int alloc_linears(struct checkpoint *c, struct octavo_error *err)
{
    size_t n = 0;
    struct arch_tensor want;
    for (size_t i = 0; i < arch_num_tensors(&c->config); i++) {
        arch_tensor_at(&c->config, i, &want);
        n += want.role == ARCH_LINEAR;
    }
    c->linears = mem_try_calloc(n, sizeof(*c->linears));
    return c->linears ? 0 : error_set(err, OCTAVO_ENOMEM, "%s: no memory for %zu linears", c->dir, n);
}

static struct linear_entry *add_linear(struct checkpoint *c, const char *module)
{
    strmap_add(&c->modules, module, strlen(module), (int32_t)c->num_linears, NULL);
    return &c->linears[c->num_linears++];
}

/* ---- from files ---- */

static int open_float(struct tensor_source *src, const struct arch_tensor *want, const struct tensor *t,
                      struct octavo_error *err)
{
    int r = tensor_check(want, t, err);
    if (r == 0)
        source_use(src, t);
    return r;
}

/* Sets *ret_missing when no form of the weight is there. */
static int open_linear(struct checkpoint *c, struct tensor_source *src, const struct arch_tensor *want,
                       bool *ret_missing, struct octavo_error *err)
{
    char module[160];
    module_of(want->name, module);
    const struct tensor *t = source_find(src, module, "weight");
    *ret_missing = !t && !(c->quant.format != QUANT_NONE && source_find(src, module, "weight_packed"));
    if (*ret_missing)
        return 0;
    struct linear_entry *l = add_linear(c, module);
    int r = quant_linear(src, &c->quant, module, (int)want->shape[0], (int)want->shape[1], l, err);
    if (r < 0 || l->spec.quantised)
        return r;
    *ret_missing = !t;
    l->spec.weight = t;
    return t ? open_float(src, want, t, err) : 0;
}

/* A folded linear has its bias within, and a copy of it in the file is not added again. */
static int open_bias(struct checkpoint *c, struct tensor_source *src, const struct arch_tensor *want, bool *ret_missing,
                     struct octavo_error *err)
{
    char module[160];
    struct linear_entry *l = linear_find(c, module_of(want->name, module));
    const struct tensor *t = source_find(src, want->name, NULL);
    bool folded = l && l->spec.folded;
    *ret_missing = !t && !folded;
    if (folded)
        source_know(src, t);
    if (!t || folded)
        return 0;
    if (l)
        l->spec.bias = t;
    return open_float(src, want, t, err);
}

static int open_other(struct checkpoint *c, struct tensor_source *src, const struct arch_tensor *want,
                      bool *ret_missing, struct octavo_error *err)
{
    char module[160];
    const struct tensor *t = source_find(src, want->name, NULL);
    const struct tensor *packed = source_find(src, module_of(want->name, module), "weight_packed");
    *ret_missing = !t;
    if (!t && packed && want->role == ARCH_EMBEDDING)
        return error_set(err, OCTAVO_EUNSUPPORTED, "tensor %s in %s: quantised embeddings are not supported",
                         packed->name, packed->file);
    int r = t ? open_float(src, want, t, err) : 0;
    if (r == 0 && want->role == ARCH_NORM && c->quant.format != QUANT_NONE)
        r = modelslim_norm(src, module, err);
    return r;
}

static int open_tensors(struct checkpoint *c, struct tensor_source *src, struct octavo_error *err)
{
    size_t num_missing = 0;
    struct arch_tensor want, first_missing;
    for (size_t i = 0; i < arch_num_tensors(&c->config); i++) {
        bool missing;
        arch_tensor_at(&c->config, i, &want);
        int r = want.role == ARCH_LINEAR ? open_linear(c, src, &want, &missing, err)
                : want.role == ARCH_BIAS ? open_bias(c, src, &want, &missing, err)
                                         : open_other(c, src, &want, &missing, err);
        if (r < 0)
            return r;
        if (missing && want.required && num_missing++ == 0)
            first_missing = want;
    }
    return num_missing ? missing_error(c, &first_missing, num_missing, err) : 0;
}

/* A tensor of a quantised linear that its kind does not have may change what it computes. Cache scales that nothing
 * turns on do not. */
static int leftover_check(const struct checkpoint *c, const struct tensor *t, struct octavo_error *err)
{
    char module[256];
    if (strstr(t->name, ".kv_cache_") || strlen(t->name) >= sizeof(module))
        return 0;
    snprintf(module, sizeof(module), "%s", t->name);
    for (char *dot; (dot = strrchr(module, '.'));) {
        *dot = 0;
        const struct linear_entry *l = linear_find(c, module);
        if (l && l->spec.quantised)
            return error_set(err, OCTAVO_EUNSUPPORTED,
                             "tensor %s in %s: a linear of kind %s has no such tensor, and leaving it out may be wrong",
                             t->name, t->file, l->spec.kind);
    }
    return 0;
}

/* Lists what was used, in that order, and what was not, in the files' order. */
static int tensors_list(struct checkpoint *c, struct tensor_source *src, struct octavo_error *err)
{
    c->used = src->used;
    c->num_used = src->num_used;
    src->used = NULL;
    for (size_t i = 0; i < c->num_used; i++)
        strmap_add(&c->by_name, c->used[i]->name, strlen(c->used[i]->name), (int32_t)i, NULL);
    c->unused = mem_try_calloc(MAX(c->shards.num_tensors, (size_t)1), sizeof(struct tensor *));
    if (!c->unused)
        return error_set(err, OCTAVO_ENOMEM, "%s: no memory for %zu tensors", c->dir, c->shards.num_tensors);
    int r = 0;
    for (size_t i = 0; i < c->shards.num_tensors && r == 0; i++) {
        if (source_mark(src, i) != MARK_UNUSED)
            continue;
        c->unused[c->num_unused++] = c->shards.tensors[i];
        r = leftover_check(c, c->shards.tensors[i], err);
    }
    return r < 0 ? r : norm_pairs_check(c, err);
}

static int open_files(struct checkpoint *c, struct octavo_error *err)
{
    struct tensor_source src = {0};
    int r = quant_load(c->dir, &c->quant, err);
    if (r < 0 || (r = shards_open(c->dir, c->quant.suffix, &c->shards, err)) < 0 ||
        (r = source_init(&src, c->dir, &c->config, &c->shards, err)) < 0 || (r = alloc_linears(c, err)) < 0 ||
        (r = quant_refuse(&src, &c->quant, err)) < 0 || (r = open_tensors(c, &src, err)) < 0)
        goto out;
    c->kv = mem_calloc((size_t)c->config.num_hidden_layers, sizeof(*c->kv));
    if ((r = kv_scales_load(&src, &c->quant, c->kv, err)) == 0)
        r = tensors_list(c, &src, err);
out:
    source_release(&src);
    return r;
}

/* ---- dummies ---- */

/* The linears of a dummy. Their weights are float: this is where another kind would be given to them. */
static void dummy_linears(struct checkpoint *c)
{
    char name[160];
    for (size_t i = 0; i < c->num_used; i++) {
        const struct tensor *t = c->used[i];
        if (c->roles[i] == ARCH_LINEAR) {
            struct linear_entry *l = add_linear(c, module_of(t->name, name));
            linear_entry_init(l, "FLOAT", (int)t->shape[0], (int)t->shape[1]);
            l->spec.weight = t;
        } else if (c->roles[i] == ARCH_BIAS) {
            linear_find(c, module_of(t->name, name))->spec.bias = t;
        }
    }
}

/* What a file of config's dtype would hold: every required tensor, no optional one. */
static int open_dummy(struct checkpoint *c, struct octavo_error *err)
{
    size_t n = arch_num_tensors(&c->config);
    int r = alloc_used(c, n, err);
    if (r < 0 || (r = alloc_linears(c, err)) < 0)
        return r;
    struct arch_tensor want;
    c->dummies = mem_calloc(n, sizeof(*c->dummies));
    c->roles = mem_calloc(n, sizeof(*c->roles));
    c->dummy_names = mem_calloc(n, sizeof(want.name));
    for (size_t i = 0; i < n; i++) {
        arch_tensor_at(&c->config, i, &want);
        if (!want.required)
            continue;
        struct tensor *t = &c->dummies[c->num_used];
        char *name = c->dummy_names + c->num_used * sizeof(want.name);
        memcpy(name, want.name, sizeof(want.name));
        *t =
            (struct tensor){.name = name, .dtype = c->config.dtype, .num_dims = want.num_dims, .file = "dummy weights"};
        t->bytes = (size_t)dtype_bits(t->dtype) / 8;
        for (int d = 0; d < want.num_dims; d++) { /* config.c bounds every dimension: at most 2^44 elements */
            t->shape[d] = want.shape[d];
            t->bytes *= (size_t)want.shape[d];
        }
        c->roles[c->num_used] = want.role;
        add_used(c, t);
    }
    dummy_linears(c);
    return 0;
}

int checkpoint_open(const char *dir, enum load_format format, uint64_t seed, struct checkpoint **ret_ckpt,
                    struct octavo_error *err)
{
    struct checkpoint *c = mem_calloc(1, sizeof(*c));
    c->dir = mem_strdup(dir);
    c->seed = seed;
    int r = model_config_load(dir, &c->config, &c->generation, err);
    if (r == 0)
        r = format == LOAD_DUMMY ? open_dummy(c, err) : open_files(c, err);
    if (r == 0)
        *ret_ckpt = c;
    else
        checkpoint_free(c);
    return r;
}

void checkpoint_free(struct checkpoint *c)
{
    if (!c)
        return;
    for (int i = 0; c->kv && i < c->config.num_hidden_layers; i++)
        kv_scales_release(&c->kv[i]);
    free(c->kv);
    free(c->linears);
    strmap_release(&c->modules);
    quant_release(&c->quant);
    shards_release(&c->shards);
    strmap_release(&c->by_name);
    free(c->dummies);
    free(c->roles);
    free(c->dummy_names);
    free(c->used);
    free(c->unused);
    free(c->dir);
    free(c);
}

/* ---- looking in ---- */

const char *checkpoint_dir(const struct checkpoint *c)
{
    return c->dir;
}

const struct model_config *checkpoint_config(const struct checkpoint *c)
{
    return &c->config;
}

const struct generation_config *checkpoint_generation_config(const struct checkpoint *c)
{
    return &c->generation;
}

size_t checkpoint_num_tensors(const struct checkpoint *c)
{
    return c->num_used;
}

const struct tensor *checkpoint_tensor(const struct checkpoint *c, size_t i)
{
    return c->used[i];
}

const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    int32_t i = strmap_get(&c->by_name, name, strlen(name), -1);
    return i < 0 ? NULL : c->used[i];
}

size_t checkpoint_num_unused(const struct checkpoint *c)
{
    return c->num_unused;
}

const struct tensor *checkpoint_unused(const struct checkpoint *c, size_t i)
{
    return c->unused[i];
}

/* ---- bytes ---- */

/* Advice for the whole pages within the tensor; those at its edges hold a neighbour's bytes too. */
static void advise(const struct tensor *t, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)t->data, end = begin + t->bytes;
    begin = (begin + page - 1) & ~(page - 1);
    end &= ~(page - 1);
    if (begin < end)
        madvise((void *)begin, end - begin, advice);
}

const uint8_t *checkpoint_tensor_pin(const struct checkpoint *c, const struct tensor *t)
{
    if (!c->dummies) {
        advise(t, MADV_WILLNEED);
        return t->data;
    }
    size_t elem = (size_t)dtype_bits(t->dtype) / 8;
    uint8_t *data = mem_try_array(t->bytes, 1);
    if (data)
        dummy_fill(data, t->bytes / elem, t->dtype, c->roles[t - c->dummies], t->name, c->seed);
    return data;
}

void checkpoint_tensor_unpin(const struct checkpoint *c, const struct tensor *t, const uint8_t *data)
{
    if (c->dummies)
        free((void *)(uintptr_t)data);
    else if (data)
        advise(t, MADV_DONTNEED);
}

void checkpoint_linear_done(const struct checkpoint *c, const struct linear_spec *spec)
{
    if (!c->dummies && spec->weight)
        advise(spec->weight, MADV_DONTNEED);
}

/* ---- linears and caches ---- */

const char *checkpoint_format(const struct checkpoint *c)
{
    return quant_format_name(c->quant.format);
}

void checkpoint_linear(const struct checkpoint *c, const char *module, struct linear_spec *ret)
{
    const struct linear_entry *l = linear_find(c, module);
    if (l) {
        *ret = l->spec;
        return;
    }
    assert(!strcmp(module, "lm_head")); /* every other linear is required */
    struct linear_entry tied;
    linear_entry_init(&tied, "FLOAT", c->config.vocab_size, c->config.hidden_size);
    *ret = tied.spec;
    ret->weight = checkpoint_find(c, "model.embed_tokens.weight");
}

static const struct linear_entry *entry_of(const struct checkpoint *c, const struct linear_spec *spec)
{
    char module[160];
    assert(spec->quantised);
    return linear_find(c, module_of(spec->weight->name, module));
}

int checkpoint_linear_rows(const struct checkpoint *c, const struct linear_spec *spec, int row, int rows, int8_t *q)
{
    linear_rows(entry_of(c, spec), row, rows, q);
    return 0;
}

void checkpoint_linear_scales(const struct checkpoint *c, const struct linear_spec *spec, float *scale, float *zero)
{
    linear_scales(entry_of(c, spec), scale, zero);
}

void checkpoint_linear_folded(const struct checkpoint *c, const struct linear_spec *spec, int32_t *quant_bias,
                              float *deq_scale)
{
    linear_folded(entry_of(c, spec), quant_bias, deq_scale);
}

const struct kv_scales *checkpoint_kv_scales(const struct checkpoint *c, int layer)
{
    return c->kv && c->kv[layer].k_scale ? &c->kv[layer] : NULL;
}

const struct tensor *checkpoint_norm_bias(const struct checkpoint *c, const char *module)
{
    char name[160];
    snprintf(name, sizeof(name), "%s.bias", module);
    return checkpoint_find(c, name);
}
