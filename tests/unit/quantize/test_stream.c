/* Quantising layer by layer: stages of a model give what the whole gives, memory does not grow with the number of
 * layers, an end in the middle leaves nothing, and smoothing pays in a whole model.
 * usage: test_stream GOLDEN_MODELS */
#include "quantize/quantize.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#define TOKENS 80 /* of a test's text */

static const char *golden;
static char base[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    snprintf(base, sizeof(base), "/tmp/octavo_stream_XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static char *at(const char *name)
{
    return mem_printf("%s/%s", base, name);
}

/* ---- models ---- */

struct shape {
    int hidden, intermediate, layers, heads, head_dim;
};

/* Changes a tensor on its way into the file. */
typedef void edit_fn(const struct tensor *t, float *values, size_t n);

static void values_edit(const struct tensor *t, uint8_t *bytes, edit_fn *edit)
{
    size_t n = t->bytes / sizeof(float);
    float *values = mem_alloc(t->bytes);
    memcpy(values, bytes, t->bytes);
    edit(t, values, n);
    memcpy(bytes, values, t->bytes);
    free(values);
}

/* A folder base/name with a model of random weights; edit needs float32. */
static char *model_write(const char *name, const struct shape *s, const char *dtype, edit_fn *edit)
{
    struct octavo_error err = {0};
    struct checkpoint *ck = NULL;
    struct buf header = {0};
    char *dir = at(name), *config = path_join(dir, "config.json"), *file = path_join(dir, "model.safetensors");
    assert_int_equal(mkdir(dir, 0777), 0);
    FILE *f = fopen(config, "w");
    assert_non_null(f);
    fprintf(f,
            "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%d,"
            "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"head_dim\":%d,"
            "\"num_key_value_heads\":%d,\"vocab_size\":64,\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,"
            "\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"torch_dtype\":\"%s\"}",
            s->hidden, s->intermediate, s->layers, s->heads, s->head_dim, s->heads, dtype);
    assert_int_equal(fclose(f), 0);
    if (checkpoint_open(dir, LOAD_DUMMY, 1, &ck, &err) < 0)
        fail_msg("%s", err.msg);
    size_t offset = 0;
    for (size_t i = 0; i < checkpoint_num_tensors(ck); i++) {
        const struct tensor *t = checkpoint_tensor(ck, i);
        buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", i ? "," : "{", t->name, dtype_name(t->dtype),
                   (long long)t->shape[0]);
        if (t->num_dims == 2)
            buf_printf(&header, ",%lld", (long long)t->shape[1]);
        buf_printf(&header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + t->bytes);
        offset += t->bytes;
    }
    buf_putc(&header, '}');
    while (header.len % 8)
        buf_putc(&header, ' ');
    f = fopen(file, "w");
    assert_non_null(f);
    const uint64_t len = header.len;
    fwrite(&len, sizeof(len), 1, f);
    fwrite(header.data, 1, header.len, f);
    for (size_t i = 0; i < checkpoint_num_tensors(ck); i++) {
        const struct tensor *t = checkpoint_tensor(ck, i);
        uint8_t *data = (uint8_t *)(uintptr_t)checkpoint_tensor_pin(ck, t);
        if (edit)
            values_edit(t, data, edit);
        assert_int_equal(fwrite(data, 1, t->bytes, f), t->bytes);
        checkpoint_tensor_unpin(ck, t, data);
    }
    assert_int_equal(fclose(f), 0);
    checkpoint_free(ck);
    buf_release(&header);
    free(config);
    free(file);
    return dir;
}

/* A file of token ids, base/name. */
static char *ids_write(const char *name, int count)
{
    char *path = at(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < count; i++)
        fprintf(f, "%s%d", i ? "," : "[", i * 37 % 61);
    fputs("]", f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static struct quantize_options options(const char *src, const char *dst, const char *calib)
{
    return (struct quantize_options){.src = src,
                                     .dst = dst,
                                     .calib = calib,
                                     .weights = WEIGHTS_W8A8,
                                     .kv_c8 = true,
                                     .calib_tokens = 1 << 24,
                                     .window = 64,
                                     .threads = 2,
                                     .isa = cpu_isa_best()};
}

/* ---- running ---- */

struct context {
    struct checkpoint *ckpt;
    struct pool *pool;
    struct batch batch;
    int32_t ids[TOKENS], rows[TOKENS], blocks[TOKENS];
    int64_t positions[TOKENS], lens[TOKENS];
    const int32_t *tables[TOKENS];
};

static void context_open(struct context *x, const char *dir)
{
    struct octavo_error err = {0};
    *x = (struct context){.pool = pool_new(2)};
    if (checkpoint_open(dir, LOAD_AUTO, 0, &x->ckpt, &err) < 0)
        fail_msg("%s", err.msg);
    for (int i = 0; i < TOKENS; i++) {
        x->ids[i] = i * 29 % 53;
        x->rows[i] = x->blocks[i] = i;
        x->positions[i] = i;
        x->lens[i] = TOKENS;
        x->tables[i] = x->blocks;
    }
    x->batch = (struct batch){.num_tokens = TOKENS,
                              .token_ids = x->ids,
                              .positions = x->positions,
                              .rope_lens = x->lens,
                              .slot_mapping = x->positions,
                              .block_table = x->tables,
                              .num_logits = TOKENS,
                              .logits_rows = x->rows};
}

static void context_close(struct context *x)
{
    pool_free(x->pool);
    checkpoint_free(x->ckpt);
}

/* Runs the layers of opts over the batch, from hidden where it is a later stage; hidden (TOKENS, hidden_size) gets what
 * comes out, and logits (TOKENS, vocab_size), when not NULL, those of the whole model. */
static void stage_run(struct context *x, const struct model_options *opts, float *hidden, float *logits)
{
    struct octavo_error err = {0};
    struct model *m;
    struct kv_cache kv;
    enum dtype dtypes[CONFIG_MAX_LAYERS];
    if (model_load(x->ckpt, x->pool, opts, &m, &err) < 0)
        fail_msg("%s", err.msg);
    const struct model_config *c = &m->config;
    for (int i = 0; i < c->num_hidden_layers; i++)
        dtypes[i] = DTYPE_F32;
    assert_int_equal(
        kv_cache_init(&kv, dtypes, c->num_hidden_layers, c->num_key_value_heads, c->head_dim, ATTN_TILE, TOKENS, &err),
        0);
    struct workspace *ws = workspace_new(m, TOKENS);
    x->batch.inputs_embeds = opts->first_layer ? hidden : NULL;
    model_forward(m, ws, &kv, &x->batch, hidden);
    if (logits)
        model_logits(m, ws, hidden, TOKENS, logits, (size_t)c->vocab_size);
    workspace_free(ws);
    kv_cache_release(&kv);
    model_free(m);
}

static void stages_give_what_the_whole_gives(void **state)
{
    (void)state;
    static const char *const models[] = {"qwen3-tied", "qwen3-layer-types", "llama-linear-bias"};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        struct context x;
        char *dir = path_join(golden, models[i]);
        context_open(&x, dir);
        int layers = checkpoint_config(x.ckpt)->num_hidden_layers;
        size_t n = (size_t)TOKENS * (size_t)checkpoint_config(x.ckpt)->hidden_size;
        float *whole = mem_calloc(n, sizeof(float)), *staged = mem_calloc(n, sizeof(float));
        stage_run(&x, &(struct model_options){.isa = cpu_isa_best()}, whole, NULL);
        for (int size = 1; size < layers; size++) { /* one by one, then by two, the last of them alone */
            for (int from = 0; from < layers; from += size)
                stage_run(&x,
                          &(struct model_options){
                              .isa = cpu_isa_best(), .first_layer = from, .num_layers = MIN(size, layers - from)},
                          staged, NULL);
            assert_memory_equal(whole, staged, n * sizeof(float));
        }
        free(whole);
        free(staged);
        free(dir);
        context_close(&x);
    }
}

/* ---- memory ---- */

/* Peak resident bytes of a process that quantises src and does nothing else. */
static long peak_of(const char *src, const char *dst, const char *ids)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct octavo_error err = {0};
        struct quantize_report report;
        struct quantize_options opts = options(src, dst, ids);
        _exit(quantize(&opts, &report, &err) == 0 ? 0 : 1);
    }
    int status;
    struct rusage usage;
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    assert_int_equal(status, 0);
    return usage.ru_maxrss * 1024;
}

static void memory_does_not_grow_with_layers(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* freed memory is kept back */
#endif
    enum { FEW = 3, MANY = 24, LAYER = (4 * 512 * 512 + 3 * 512 * 768) * 2 };
    struct shape s = {512, 768, FEW, 8, 64};
    char *few = model_write("few", &s, "bfloat16", NULL);
    s.layers = MANY;
    char *many = model_write("many", &s, "bfloat16", NULL);
    char *out_few = at("out_few"), *out_many = at("out_many"), *ids = ids_write("ids.json", 128);
    long with_few = peak_of(few, out_few, ids), with_many = peak_of(many, out_many, ids);
    /* 21 more layers of 4.25 MiB each; three of them for what pages and the heap may do */
    if (with_many - with_few >= 3 * (long)LAYER)
        fail_msg("%d layers take %ld KiB, %d take %ld KiB", FEW, with_few >> 10, MANY, with_many >> 10);
    free(few), free(many), free(out_few), free(out_many), free(ids);
}

/* 65,536 tokens of 16,384 channels are 4 GiB of hidden states; the model itself is small. */
static void too_many_calibration_tokens(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* no limit on address space under a sanitizer */
#endif
    const struct shape s = {16384, 16, 1, 1, 16};
    char *src = model_write("wide", &s, "bfloat16", NULL), *dst = at("out"), *ids = ids_write("ids.json", 1 << 16);
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit limit = {(rlim_t)3 << 30, (rlim_t)3 << 30};
        struct octavo_error err = {0};
        struct quantize_report report;
        struct quantize_options opts = options(src, dst, ids);
        if (setrlimit(RLIMIT_AS, &limit) < 0)
            _exit(1);
        int r = quantize(&opts, &report, &err);
        _exit(r == OCTAVO_ENOMEM && strstr(err.msg, "need 4.00 GiB") && strstr(err.msg, "lower --calib-tokens") ? 0
                                                                                                                : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_not_equal(access(dst, F_OK), 0);
    free(src), free(dst), free(ids);
}

/* ---- progress, and an end in the middle ---- */

struct watch {
    uint64_t done, total, stop_at; /* percent */
    atomic_bool stop;
};

static void watch_see(void *arg, uint64_t done, uint64_t total)
{
    struct watch *w = arg;
    assert_true(done >= w->done && done <= total && (w->total == 0 || w->total == total));
    w->done = done;
    w->total = total;
    if (done * 100 >= total * w->stop_at)
        atomic_store(&w->stop, true);
}

static int entries(void)
{
    int n = 0;
    DIR *dir = opendir(base);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(dir);
    return n;
}

static void stops_anywhere_and_leaves_nothing(void **state)
{
    (void)state;
    const struct shape s = {64, 96, 4, 2, 32};
    char *src = model_write("model", &s, "float32", NULL), *dst = at("out"), *ids = ids_write("ids.json", 256);
    for (uint64_t percent = 0; percent <= 100; percent += 5) {
        struct octavo_error err = {0};
        struct quantize_report report;
        struct watch w = {.stop_at = percent < 100 ? percent : 101};
        struct quantize_options opts = options(src, dst, ids);
        opts.progress = watch_see;
        opts.progress_arg = &w;
        opts.stop = &w.stop;
        int r = quantize(&opts, &report, &err);
        if (percent < 100) {
            assert_int_equal(r, OCTAVO_EBUSY);
            assert_true(w.done < w.total);
            assert_int_equal(entries(), 2); /* the model and the ids */
        } else {
            assert_int_equal(r, 0);
            assert_true(w.done == w.total);
            assert_int_equal(entries(), 3);
            quantize_report_release(&report);
        }
    }
    free(src), free(dst), free(ids);
}

/* ---- smoothing ---- */

/* A few channels of both norms 64 times the others, and the columns that read them so much smaller: the same function,
 * and inputs that one scale for each token does not fit. */
static void outliers_put(const struct tensor *t, float *values, size_t n)
{
    bool norm = strstr(t->name, "layernorm.weight") != NULL;
    bool reader = strstr(t->name, "q_proj") || strstr(t->name, "k_proj") || strstr(t->name, "v_proj") ||
                  strstr(t->name, "gate_proj") || strstr(t->name, "up_proj");
    size_t columns = (size_t)t->shape[t->num_dims - 1];
    for (size_t i = 0; i < n && (norm || reader); i++)
        if (i % columns % 50 == 3)
            values[i] *= norm ? 64.0f : 1.0f / 64;
}

/* Relative L2 distance of the logits of base/name from the float ones. */
static double distance(const char *dir, const float *want)
{
    struct context x;
    double error = 0, norm = 0;
    context_open(&x, dir);
    size_t vocab = (size_t)checkpoint_config(x.ckpt)->vocab_size;
    float *hidden = mem_calloc((size_t)TOKENS * (size_t)checkpoint_config(x.ckpt)->hidden_size, sizeof(float));
    float *got = mem_calloc(TOKENS * vocab, sizeof(float));
    stage_run(&x, &(struct model_options){.isa = cpu_isa_best()}, hidden, got);
    for (size_t i = 0; i < TOKENS * vocab; i++) {
        double d = (double)got[i] - (double)want[i];
        error += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    free(hidden);
    free(got);
    context_close(&x);
    return sqrt(error / norm);
}

static void smoothing_brings_logits_closer(void **state)
{
    (void)state;
    const struct shape s = {128, 256, 3, 2, 64};
    struct octavo_error err = {0};
    struct context x;
    char *src = model_write("model", &s, "float32", outliers_put), *ids = ids_write("ids.json", 512);
    context_open(&x, src);
    size_t vocab = (size_t)checkpoint_config(x.ckpt)->vocab_size;
    float *hidden = mem_calloc((size_t)TOKENS * (size_t)s.hidden, sizeof(float));
    float *want = mem_calloc(TOKENS * vocab, sizeof(float));
    stage_run(&x, &(struct model_options){.isa = cpu_isa_best()}, hidden, want);
    context_close(&x);
    double with[2];
    for (int smooth = 0; smooth < 2; smooth++) {
        char *dst = at(smooth ? "smooth" : "plain");
        struct quantize_report report;
        struct quantize_options opts = options(src, dst, ids);
        opts.smooth = smooth;
        if (quantize(&opts, &report, &err) < 0)
            fail_msg("%s", err.msg);
        for (int i = 0; i < s.layers; i++) /* qkv and gate_up: what the norms feed */
            assert_true((report.layers[i].smoothing[0] < 0.5) == (smooth == 1) &&
                        (report.layers[i].smoothing[2] < 0.5) == (smooth == 1));
        quantize_report_release(&report);
        with[smooth] = distance(dst, want);
        free(dst);
    }
    if (!(with[1] < with[0] / 4))
        fail_msg("logits are off by %g with smoothing, %g without", with[1], with[0]);
    free(hidden), free(want), free(src), free(ids);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s GOLDEN_MODELS\n", argv[0]);
        return 2;
    }
    golden = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_give_what_the_whole_gives),
        cmocka_unit_test_setup_teardown(memory_does_not_grow_with_layers, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_calibration_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(stops_anywhere_and_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(smoothing_brings_logits_closer, setup, teardown),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
