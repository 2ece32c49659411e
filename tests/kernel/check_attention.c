/* Attention and the caches it reads against ref: float caches and C8. A cache is written token by token by the tier's
 * own kernel, and compared, before it is read: the whole path. */
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void attn_fn(const struct attn_args *);
typedef void write_fn(void *, void *, int, const float *, const float *, int);

enum cache_kind { CACHE_BF16, CACHE_F16, CACHE_F32, CACHE_C8 };

struct cache_type {
    size_t elem; /* bytes */
    attn_fn *attend;
    write_fn *write; /* NULL: kv_write_c8 */
};

static struct cache_type type_of(const struct kernel_ops *ops, enum cache_kind kind)
{
    switch (kind) {
    case CACHE_BF16:
        return (struct cache_type){2, ops->attn_bf16, ops->kv_write_bf16};
    case CACHE_F16:
        return (struct cache_type){2, ops->attn_f16, ops->kv_write_f16};
    case CACHE_F32:
        return (struct cache_type){4, ops->attn_f32, ops->kv_write_f32};
    default:
        return (struct cache_type){1, ops->attn_c8, NULL};
    }
}

/* One KV head's part of a cache, among others': two heads in runs of blocks, ours the second, so that the last V ends
 * where the memory does. */
struct layout {
    int block_size, num_blocks, run_blocks, d;
    size_t half_bytes, run_stride, bytes; /* of K or V in a tile; of a run */
    int32_t table[80];                    /* 2,000 keys in blocks of 32, and a run */
};

static struct layout layout_of(struct check *c, enum cache_kind kind, int d, int num_keys)
{
    struct layout l = {.block_size = check_pick(c, 0, 1) ? 32 : 64, .d = d};
    size_t elem = type_of(c->ref, kind).elem;
    l.run_blocks = check_pick(c, 1, 9);
    l.num_blocks = (num_keys / l.block_size + l.run_blocks) / l.run_blocks * l.run_blocks;
    l.half_bytes = ATTN_TILE * elem * (size_t)(kind == CACHE_C8 ? c8_padded_dim(d) : d);
    l.run_stride = 2 * 2 * (size_t)(l.run_blocks * l.block_size / ATTN_TILE) * l.half_bytes;
    l.bytes = (size_t)(l.num_blocks / l.run_blocks) * l.run_stride;
    bool in_order = check_pick(c, 0, 1); /* else the first is the last in memory, the others in any order */
    for (int i = 0; i < l.num_blocks; i++)
        l.table[i] = in_order ? i : l.num_blocks - 1 - i;
    for (int i = l.num_blocks - 1; i > 1 && !in_order; i--) {
        int j = check_pick(c, 1, i);
        int32_t t = l.table[i];
        l.table[i] = l.table[j];
        l.table[j] = t;
    }
    return l;
}

/* Where K of the second head begins in the first run. */
static uint8_t *head_of(const struct layout *l, const struct area *cache)
{
    return (uint8_t *)cache->p + l->run_stride / 2;
}

/* K of the tile that holds a position. V follows it. */
static uint8_t *tile_of(const struct layout *l, const struct area *cache, int position)
{
    int block = l->table[position / l->block_size];
    int tile = (block % l->run_blocks * l->block_size + position % l->block_size) / ATTN_TILE;
    return head_of(l, cache) + (size_t)(block / l->run_blocks) * l->run_stride + (size_t)tile * 2 * l->half_bytes;
}

/* Scales from the range of the values; symmetric or not. */
static void scale_channels(const float *x, int num_keys, int d, bool asym, float *scale, float *inv, float *offset)
{
    for (int i = 0; i < d; i++) {
        float lo = 0, hi = 0;
        for (int t = 0; t < num_keys; t++) {
            lo = fminf(lo, x[t * d + i]);
            hi = fmaxf(hi, x[t * d + i]);
        }
        scale[i] = fmaxf(asym ? (hi - lo) / 255 : fmaxf(-lo, hi) / 127, 1e-6f);
        inv[i] = 1.0f / scale[i];
        offset[i] = asym ? rintf(-lo / scale[i]) - 128 : 0;
    }
}

static struct c8_scales scales_of(struct check *c, const struct area *k, const struct area *v, int num_keys, int d,
                                  bool asym)
{
    float *s[6];
    for (int i = 0; i < 6; i++)
        s[i] = check_area(c, (size_t)d * 4).p;
    scale_channels(k->p, num_keys, d, asym, s[0], s[1], s[2]);
    scale_channels(v->p, num_keys, d, asym, s[3], s[4], s[5]);
    return (struct c8_scales){s[0], s[1], s[2], s[3], s[4], s[5]};
}

/* K and V of tokens [0, num_keys); separately: K and V in calls of their own, as workers may have them. */
static void fill_cache(const struct kernel_ops *ops, const struct cache_type *type, const struct layout *l,
                       const struct area *cache, const struct area *k, const struct area *v, int num_keys,
                       const struct c8_scales *scales, bool separately)
{
    for (int t = 0; t < num_keys; t++) {
        uint8_t *k_tile = tile_of(l, cache, t), *v_tile = k_tile + l->half_bytes;
        const float *kt = (const float *)k->p + (size_t)t * (size_t)l->d;
        const float *vt = (const float *)v->p + (size_t)t * (size_t)l->d;
        for (int half = 0; half < 1 + separately; half++) {
            const float *kx = separately && half ? NULL : kt, *vx = separately && !half ? NULL : vt;
            if (type->write)
                type->write(k_tile, v_tile, t % ATTN_TILE, kx, vx, l->d);
            else
                ops->kv_write_c8(k_tile, v_tile, t % ATTN_TILE, kx, vx, l->d, scales);
        }
    }
}

static const int dims[] = {2, 6, 32, 40, 48, 64, 80, 96, 128, 200, 256};
static const int groups[] = {1, 2, 3, 4, 5, 7, 8, 16};

/* ---- writing ---- */

static void check_write(struct check *c, enum cache_kind kind)
{
    struct cache_type ref = type_of(c->ref, kind), type = type_of(c->ops, kind);
    for (size_t i = 0; i < ARRAY_LEN(dims); i++)
        for (int separately = 0; separately < 2; separately++) {
            int d = dims[i], num_keys = check_pick(c, 1, 80);
            check_case(c, "d=%d keys=%d%s", d, num_keys, separately ? " K and V apart" : "");
            struct layout l = layout_of(c, kind, d, num_keys);
            struct area k = check_floats(c, (size_t)(num_keys * d)), v = check_floats(c, (size_t)(num_keys * d));
            struct area want = check_area(c, l.bytes), got = check_area(c, l.bytes);
            struct c8_scales scales = scales_of(c, &k, &v, num_keys, d, check_pick(c, 0, 1));
            fill_cache(c->ref, &ref, &l, &want, &k, &v, num_keys, &scales, false);
            fill_cache(c->ops, &type, &l, &got, &k, &v, num_keys, &scales, separately);
            check_same_bytes(c, "cache", &want, &got, l.half_bytes);
        }
}

/* ---- attending ---- */

/* What a case asks for beside its type. */
struct attention_case {
    int d, group, num_keys, tokens, window;
    bool asym;    /* C8 with offsets */
    bool wild;    /* values of the case's pattern, in place of what a model has */
    bool sink;    /* the first key takes nearly everything, and its value is small */
    float q_size; /* from flat probabilities to peaked ones */
};

static void attend(struct check *c, enum cache_kind kind, const struct attention_case *a)
{
    struct cache_type ref = type_of(c->ref, kind), type = type_of(c->ops, kind);
    check_case(c, "d=%d group=%d keys=%d tokens=%d window=%d%s%s%s q=%g", a->d, a->group, a->num_keys, a->tokens,
               a->window, a->asym ? " asymmetric" : "", a->wild ? " wild" : "", a->sink ? " sink" : "",
               (double)a->q_size);
    struct layout l = layout_of(c, kind, a->d, a->num_keys);
    size_t width = (size_t)(a->group * a->d), ldq = width + 5, ldout = width + 3;
    struct area (*make)(struct check *, size_t) = a->wild ? check_floats : check_uniform;
    struct area q = make(c, (size_t)(a->tokens - 1) * ldq + width);
    struct area k = make(c, (size_t)(a->num_keys * a->d)), v = make(c, (size_t)(a->num_keys * a->d));
    float *qp = q.p, *kp = k.p, *vp = v.p;
    for (size_t i = 0; i < q.bytes / 4; i++)
        qp[i] *= a->q_size;
    for (int i = 0; i < a->num_keys * a->d && !a->wild; i++) {
        kp[i] = kp[i] * (i % a->d % 7 == 3 ? 8 : 1) + (a->asym ? 0.7f : 0); /* some channels are hotter, as in real K */
        vp[i] += a->asym ? 0.4f : 0;
    }
    for (int i = 0; i < a->d && a->sink; i++) {
        kp[i] = 9 * qp[i] / sqrtf((float)a->d) / a->q_size;
        vp[i] *= 0.01f;
    }
    struct c8_scales scales = scales_of(c, &k, &v, a->num_keys, a->d, a->asym);
    struct area want_cache = check_area(c, l.bytes), got_cache = check_area(c, l.bytes);
    /* NaN in a float cache: what was not written must not be read, or not count */
    memset(want_cache.p, 0xff, l.bytes);
    memset(got_cache.p, 0xff, l.bytes);
    fill_cache(c->ref, &ref, &l, &want_cache, &k, &v, a->num_keys, &scales, false);
    fill_cache(c->ops, &type, &l, &got_cache, &k, &v, a->num_keys, &scales, false);
    check_same_bytes(c, "cache", &want_cache, &got_cache, l.half_bytes);
    struct area table = check_area(c, (size_t)((a->num_keys + l.block_size - 1) / l.block_size) * 4); /* no more */
    memcpy(table.p, l.table, table.bytes);
    size_t out_bytes = ((size_t)(a->tokens - 1) * ldout + width) * 4;
    struct area want = check_area(c, out_bytes), got = check_area(c, out_bytes);
    struct attn_args args = {.out = want.p,
                             .ldout = ldout,
                             .q = q.p,
                             .ldq = ldq,
                             .tokens = a->tokens,
                             .group = a->group,
                             .d = a->d,
                             .scale = 1.0f / sqrtf((float)a->d),
                             .position = a->num_keys - a->tokens,
                             .window = a->window,
                             .block_table = table.p,
                             .block_size = l.block_size,
                             .k = head_of(&l, &want_cache),
                             .v = head_of(&l, &want_cache) + l.half_bytes,
                             .run_blocks = l.run_blocks,
                             .tile_stride = 2 * l.half_bytes,
                             .run_stride = l.run_stride,
                             .c8 = &scales};
    ref.attend(&args);
    args.out = got.p;
    args.k = head_of(&l, &got_cache);
    args.v = args.k + l.half_bytes;
    struct attn_args next = args; /* only asked for */
    next.position = check_pick(c, 0, (int)args.position);
    args.next = check_pick(c, 0, 1) ? &next : NULL;
    type.attend(&args);
    check_same_f32(c, "out", &want, &got, ldout);
    for (int t = 0; t < a->tokens; t++)
        for (size_t i = 0; i < width; i++)
            if (!isfinite(((float *)want.p)[(size_t)t * ldout + i])) {
                check_true(c, false, "ref's output is not finite");
                return;
            }
}

static void check_attention(struct check *c, enum cache_kind kind)
{
    for (size_t di = 0; di < ARRAY_LEN(dims); di++)
        for (int i = 0; i < 10; i++) {
            struct attention_case a = {
                .d = dims[di], .group = groups[check_pick(c, 0, ARRAY_LEN(groups) - 1)], .asym = check_pick(c, 0, 1)};
            a.num_keys = i % 3 == 0 ? check_pick(c, 1, 40) : i % 3 == 1 ? check_pick(c, 41, 400) : 32 * (i + 1);
            a.tokens = check_pick(c, 1, MIN(a.num_keys, ATTN_MAX_ROWS / a.group));
            a.window = i % 4 == 3 ? check_pick(c, 1, a.num_keys) : 0;
            static const float q_sizes[] = {0.1f, 6, 2, 1, 0.02f};
            a.q_size = q_sizes[i % 5];
            a.wild = i == 4 || i == 7;
            a.sink = i == 8;
            attend(c, kind, &a);
        }
    /* a flat row with a long tail; many keys that matter; a whole chunk behind a long context */
    attend(c, kind, &(struct attention_case){.d = 64, .group = 1, .num_keys = 2000, .tokens = 1, .q_size = 0.1f});
    attend(c, kind, &(struct attention_case){.d = 128, .group = 4, .num_keys = 1500, .tokens = 3, .q_size = 1});
    attend(
        c, kind,
        &(struct attention_case){.d = 128, .group = 2, .num_keys = 1000, .tokens = c->ops->attn_rows / 2, .q_size = 1});
}

/* ---- timing: shapes of Qwen3-0.6B's layers, and with other numbers of query heads to a KV head ---- */

enum { GROUP = 2, KV_HEADS = 8, DIM = 128, BLOCK = 32 };

struct attention_bench {
    uint8_t *cache; /* (layers, KV_HEADS, depth / ATTN_TILE, K and V) */
    size_t half_bytes, head_bytes, layer_bytes;
    int layers;
    struct cache_type type;
    const struct kernel_ops *ops;
    struct c8_scales scales;
    int32_t *table;    /* (depth / BLOCK) */
    float *q, *out;    /* (tokens, width) */
    size_t width;      /* of q's heads, or of K and V */
    int depth, tokens; /* the last `tokens` of depth positions */
    int group;         /* query heads to a KV head */
};

/* K of a head of a layer, its first tile. All its blocks lie together, as in a run. */
static uint8_t *k_of(const struct attention_bench *a, int layer, int kv_head)
{
    return a->cache + (size_t)layer * a->layer_bytes + (size_t)kv_head * a->head_bytes;
}

static struct attn_args args_of(const struct attention_bench *a, int layer, int kv_head, int first, int tokens)
{
    size_t at = (size_t)first * a->width + (size_t)(kv_head * a->group * DIM);
    return (struct attn_args){.out = a->out + at,
                              .ldout = a->width,
                              .q = a->q + at,
                              .ldq = a->width,
                              .tokens = tokens,
                              .group = a->group,
                              .d = DIM,
                              .scale = 0.0883883f,
                              .position = a->depth - a->tokens + first,
                              .block_table = a->table,
                              .block_size = BLOCK,
                              .k = k_of(a, layer, kv_head),
                              .v = k_of(a, layer, kv_head) + a->half_bytes,
                              .run_blocks = a->depth / BLOCK,
                              .tile_stride = 2 * a->half_bytes,
                              .c8 = &a->scales};
}

/* One layer: heads, chunk by chunk. */
static void attention_run(void *arg, int iteration, int worker, int num_workers)
{
    const struct attention_bench *a = arg;
    int chunk = MIN(a->ops->attn_rows / a->group, a->tokens), chunks = (a->tokens + chunk - 1) / chunk;
    int begin, end;
    pool_slice(KV_HEADS * chunks, chunks, worker, num_workers, &begin, &end);
    struct attn_args args, next;
    for (int i = begin; i < end; i++) {
        int first = i % chunks * chunk, then = (i + 1) % chunks * chunk, layer = iteration % a->layers;
        args = args_of(a, layer, i / chunks, first, MIN(chunk, a->tokens - first));
        next = args_of(a, layer, (i + 1) / chunks % KV_HEADS, then, MIN(chunk, a->tokens - then));
        args.next = &next;
        a->type.attend(&args);
    }
}

static void write_run(void *arg, int iteration, int worker, int num_workers)
{
    const struct attention_bench *a = arg;
    int layer = iteration % a->layers, begin, end;
    pool_slice(a->depth, BLOCK, worker, num_workers, &begin, &end);
    for (int t = begin; t < end; t++)
        for (int h = 0; h < KV_HEADS; h++) {
            uint8_t *k = k_of(a, layer, h) + (size_t)(t / ATTN_TILE) * 2 * a->half_bytes, *v = k + a->half_bytes;
            const float *x = a->q + (size_t)(t % a->tokens) * a->width + h * DIM;
            if (a->type.write)
                a->type.write(k, v, t % ATTN_TILE, x, x + KV_HEADS * DIM, DIM);
            else
                a->ops->kv_write_c8(k, v, t % ATTN_TILE, x, x + KV_HEADS * DIM, DIM, &a->scales);
        }
}

static void attention_bench_open(struct attention_bench *a, const struct kernel_ops *ops, enum cache_kind kind,
                                 int depth, int tokens, int group, bool scattered)
{
    static float scale[DIM], inv[DIM], offset[DIM];
    *a = (struct attention_bench){
        .type = type_of(ops, kind), .ops = ops, .depth = depth, .tokens = tokens, .group = group};
    a->width = (size_t)MAX(group, 2) * KV_HEADS * DIM;
    for (int i = 0; i < DIM; i++) {
        scale[i] = 0.01f;
        inv[i] = 100;
    }
    a->scales = (struct c8_scales){scale, inv, offset, scale, inv, offset};
    a->half_bytes = (size_t)ATTN_TILE * DIM * a->type.elem;
    a->head_bytes = (size_t)(depth / ATTN_TILE) * 2 * a->half_bytes;
    a->layer_bytes = KV_HEADS * a->head_bytes;
    a->layers = bench_copies(a->layer_bytes);
    a->cache = bench_memory((size_t)a->layers * a->layer_bytes);
    a->table = mem_calloc((size_t)(depth / BLOCK), sizeof(*a->table));
    int blocks = depth / BLOCK, step = scattered ? blocks * 3 / 8 | 1 : 1; /* a power of two of blocks, and odd: all */
    for (int i = 0; i < blocks; i++)
        a->table[i] = i * step % blocks;
    a->q = bench_floats((size_t)tokens * a->width);
    a->out = bench_floats((size_t)tokens * a->width);
    for (int i = 0; i < a->layers; i++) /* ordinary numbers */
        write_run(a, i, 0, 1);
}

static void attention_bench_close(struct attention_bench *a)
{
    size_t bytes = (size_t)a->tokens * a->width * 4;
    mem_unmap(a->q, bytes);
    mem_unmap(a->out, bytes);
    free(a->table);
    mem_unmap(a->cache, (size_t)a->layers * a->layer_bytes);
}

static void bench_attention(struct bench *b, enum cache_kind kind)
{
    static const struct {
        int depth, tokens, group;
        bool scattered; /* blocks come in no order, as in a prefix cache that was full once */
    } shapes[] = {{1024, 1, GROUP},   {8192, 1, GROUP, true}, {8192, 1, GROUP}, {32768, 1, GROUP},
                  {8192, 1, 1},       {8192, 1, 4},           {8192, 1, 8},     {512, 512, GROUP},
                  {2048, 512, GROUP}, {16384, 512, GROUP},    {2048, 512, 4}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct attention_bench a;
        double depth = shapes[i].depth, tokens = shapes[i].tokens;
        double pairs = tokens * depth - tokens * (tokens - 1) / 2; /* token and key it sees */
        attention_bench_open(&a, b->ops, kind, shapes[i].depth, shapes[i].tokens, shapes[i].group, shapes[i].scattered);
        const struct bench_cost cost = {.macs = pairs * 2 * shapes[i].group * KV_HEADS * DIM,
                                        .integer = kind == CACHE_C8,
                                        .bytes = depth * 2 * KV_HEADS * DIM * (double)a.type.elem};
        bench_time(b, &cost, attention_run, &a, "%s depth %d, %d heads%s",
                   shapes[i].tokens == 1 ? "decode" : "512 tokens", shapes[i].depth, shapes[i].group * KV_HEADS,
                   shapes[i].scattered ? ", scattered" : "");
        attention_bench_close(&a);
    }
}

static void bench_write(struct bench *b, enum cache_kind kind)
{
    struct attention_bench a;
    attention_bench_open(&a, b->ops, kind, 512, 512, GROUP, false);
    bench_time(b, &(struct bench_cost){.bytes = 512.0 * 2 * KV_HEADS * DIM * (4 + (double)a.type.elem)}, write_run, &a,
               "512 tokens, %d heads of %d", KV_HEADS, DIM);
    attention_bench_close(&a);
}

#define FAMILY(name, kind)                                                                                             \
    static void check_kv_write_##name(struct check *c)                                                                 \
    {                                                                                                                  \
        check_write(c, kind);                                                                                          \
    }                                                                                                                  \
    static void check_attn_##name(struct check *c)                                                                     \
    {                                                                                                                  \
        check_attention(c, kind);                                                                                      \
    }                                                                                                                  \
    static void bench_kv_write_##name(struct bench *b)                                                                 \
    {                                                                                                                  \
        bench_write(b, kind);                                                                                          \
    }                                                                                                                  \
    static void bench_attn_##name(struct bench *b)                                                                     \
    {                                                                                                                  \
        bench_attention(b, kind);                                                                                      \
    }
FAMILY(bf16, CACHE_BF16)
FAMILY(f16, CACHE_F16)
FAMILY(f32, CACHE_F32)
FAMILY(c8, CACHE_C8)

#define ENTRY(name)                                                                                                    \
    {                                                                                                                  \
#name, check_##name, bench_##name                                                                              \
    }
const struct kernel_entry entries_attention[] = {
    ENTRY(kv_write_bf16), ENTRY(kv_write_f16), ENTRY(kv_write_f32),
    ENTRY(kv_write_c8),   ENTRY(attn_bf16),    ENTRY(attn_f16),
    ENTRY(attn_f32),      ENTRY(attn_c8),      {0},
};
