/* Checkpoints: see checkpoint.h. Opened on the loading thread; immutable afterwards. */
#include "ckpt/checkpoint.h"

#include "base/mem.h"
#include "ckpt/arch.h"
#include "ckpt/dummy.h"
#include "ckpt/shards.h"

#include <inttypes.h>
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
};

/* ---- checks ---- */

static void shape_format(char out[200], int num_dims, const int64_t *shape)
{
    size_t n = 0;
    out[n++] = '(';
    for (int i = 0; i < num_dims && n < 170; i++)
        n += (size_t)snprintf(out + n, 200 - n, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(out + n, 200 - n, ")");
}

static int tensor_check(const struct arch_tensor *want, const struct tensor *t, struct octavo_error *err)
{
    char found[200], expected[200];
    shape_format(expected, want->num_dims, want->shape);
    shape_format(found, t->num_dims, t->shape);
    if (t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_F32)
        return error_set(err, OCTAVO_EUNSUPPORTED, "tensor %s in %s is %s, but must be BF16, F16 or F32", t->name,
                         t->file, dtype_name(t->dtype));
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

static int open_files(struct checkpoint *c, struct octavo_error *err)
{
    size_t n = arch_num_tensors(&c->config), num_missing = 0;
    struct arch_tensor want, first_missing;
    int r = shards_open(c->dir, &c->shards, err);
    if (r < 0 || (r = alloc_used(c, n, err)) < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        arch_tensor_at(&c->config, i, &want);
        int32_t at = strmap_get(&c->shards.by_name, want.name, strlen(want.name), -1);
        if (at < 0 && want.required && num_missing++ == 0)
            first_missing = want;
        if (at < 0)
            continue;
        if ((r = tensor_check(&want, c->shards.tensors[at], err)) < 0)
            return r;
        add_used(c, c->shards.tensors[at]);
    }
    if (num_missing)
        return missing_error(c, &first_missing, num_missing, err);
    c->unused = mem_try_calloc(c->shards.num_tensors, sizeof(struct tensor *));
    if (!c->unused)
        return error_set(err, OCTAVO_ENOMEM, "%s: no memory for %zu tensors", c->dir, c->shards.num_tensors);
    for (size_t i = 0; i < c->shards.num_tensors; i++)
        if (!checkpoint_find(c, c->shards.tensors[i]->name))
            c->unused[c->num_unused++] = c->shards.tensors[i];
    return norm_pairs_check(c, err);
}

/* What a file of config's dtype would hold: every required tensor, no optional one. */
static int open_dummy(struct checkpoint *c, struct octavo_error *err)
{
    size_t n = arch_num_tensors(&c->config);
    int r = alloc_used(c, n, err);
    if (r < 0)
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
