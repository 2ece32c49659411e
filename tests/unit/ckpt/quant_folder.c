/* Small quantised checkpoints for tests: see quant_folder.h. */
#include "quant_folder.h"

#include "base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what, const char *which)
{
    fprintf(stderr, "quant_folder: %s: %s\n", what, which);
    abort();
}

static const char *expand(const char *name, char out[128])
{
    static const char *const short_names[][2] = {
        {"q.", "model.layers.0.self_attn.q_proj."}, {"k.", "model.layers.0.self_attn.k_proj."},
        {"v.", "model.layers.0.self_attn.v_proj."}, {"o.", "model.layers.0.self_attn.o_proj."},
        {"A.", "model.layers.0.self_attn."},        {"L.", "model.layers.0."},
    };
    for (size_t i = 0; i < sizeof(short_names) / sizeof(short_names[0]); i++) {
        if (!strncmp(name, short_names[i][0], 2)) {
            snprintf(out, 128, "%s%.90s", short_names[i][1], name + 2);
            return out;
        }
    }
    snprintf(out, 128, "%.127s", name);
    return out;
}

static struct item *find(struct folder *f, const char *name)
{
    for (size_t i = 0; i < f->num_items; i++)
        if (!strcmp(f->items[i].name, name))
            return &f->items[i];
    return NULL;
}

static size_t dtype_bytes(const char *dtype)
{
    enum dtype d;
    if (dtype_parse(dtype, &d) < 0)
        die("dtype", dtype);
    return (size_t)dtype_bits(d) / 8;
}

/* One element: floats by their rounding towards zero, integers as they are. */
static void append(struct buf *out, const char *dtype, const char *value)
{
    float v = strtof(value, NULL);
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    if (!strcmp(dtype, "F32")) {
        buf_append(out, &bits, 4);
    } else if (!strcmp(dtype, "BF16")) {
        buf_append(out, (uint16_t[]){(uint16_t)(bits >> 16)}, 2);
    } else if (!strcmp(dtype, "F16")) { /* normal numbers and 0 only */
        uint32_t half = v == 0 ? 0 : (bits >> 16 & 0x8000) | ((((bits & 0x7fffffff) >> 13) - (112 << 10)) & 0x7fff);
        buf_append(out, (uint16_t[]){(uint16_t)half}, 2);
    } else {
        int64_t integer = strtoll(value, NULL, 0);
        buf_append(out, &integer, dtype_bytes(dtype));
    }
}

static void item_put(struct folder *f, const char *name, const char *dtype, const char *shape, const char *value)
{
    struct item *it = find(f, name);
    if (!it && f->num_items == sizeof(f->items) / sizeof(f->items[0]))
        die("too many tensors", name);
    if (!it)
        it = &f->items[f->num_items++];
    buf_release(&it->data);
    *it = (struct item){0};
    snprintf(it->name, sizeof(it->name), "%s", name);
    snprintf(it->dtype, sizeof(it->dtype), "%s", dtype);
    long long count = 1;
    for (char *end; *shape && strcmp(shape, "0d"); shape = *end ? end + 1 : end) {
        it->shape[it->num_dims] = strtoll(shape, &end, 10);
        count *= it->shape[it->num_dims++];
    }
    for (long long i = 0; i < count; i++)
        append(&it->data, dtype, value);
}

static void item_drop(struct folder *f, const char *name)
{
    struct item *it = find(f, name);
    if (!it)
        die("no such tensor", name);
    buf_release(&it->data);
    *it = f->items[--f->num_items];
    f->items[f->num_items] = (struct item){0};
}

static json_t *json_of(const char *text)
{
    char copy[2048];
    json_error_t e;
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    json_t *v = json_loads(copy, JSON_DECODE_ANY, &e);
    if (!v)
        die(e.text, copy);
    return v;
}

static void edit(struct folder *f, char *text)
{
    char name[128], dtype[8], shape[40], value[40], full[128];
    if (*text == '+') {
        if (sscanf(text + 1, "%127s %7s %39s %39s", name, dtype, shape, value) != 4)
            die("edit", text);
        item_put(f, expand(name, full), dtype, shape, value);
    } else if (*text == '-') {
        item_drop(f, expand(text + 1, full));
    } else if (*text == '@') {
        char *space = strchr(text, ' ');
        if (!space)
            die("edit", text);
        *space = 0;
        if (!f->description)
            f->description = json_object();
        json_object_set_new(f->description, expand(text + 1, full), json_of(space + 1));
    } else if (*text == '#') {
        json_object_set_new(f->config, "quantization_config", json_of(text + 1));
    } else if (*text) {
        die("edit", text);
    }
}

void folder_edit(struct folder *f, const char *edits)
{
    while (*edits) {
        char one[2048];
        size_t len = strcspn(edits, ";");
        snprintf(one, sizeof(one), "%.*s", (int)len, edits);
        edit(f, one);
        edits += len + (edits[len] == ';');
    }
}

void folder_init(struct folder *f)
{
    static const char *const linears[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                          "mlp.down_proj"};
    char name[128];
    *f = (struct folder){.dir = "/tmp/octavo_quant_XXXXXX", .weights = "quant_model_weights.safetensors"};
    if (!mkdtemp(f->dir))
        die("mkdtemp", f->dir);
    f->config = json_of("{'architectures':['LlamaForCausalLM'],'hidden_size':8,'intermediate_size':8,"
                        "'num_hidden_layers':2,'num_attention_heads':2,'num_key_value_heads':2,'head_dim':4,"
                        "'vocab_size':16,'max_position_embeddings':64}");
    for (int l = 0; l < 2; l++) {
        for (size_t i = 0; i < sizeof(linears) / sizeof(linears[0]); i++) {
            snprintf(name, sizeof(name), "model.layers.%d.%s.weight", l, linears[i]);
            item_put(f, name, "BF16", "8x8", "1");
        }
        snprintf(name, sizeof(name), "model.layers.%d.input_layernorm.weight", l);
        item_put(f, name, "BF16", "8", "1");
        snprintf(name, sizeof(name), "model.layers.%d.post_attention_layernorm.weight", l);
        item_put(f, name, "BF16", "8", "1");
    }
    item_put(f, "model.embed_tokens.weight", "BF16", "16x8", "1");
    item_put(f, "model.norm.weight", "BF16", "8", "1");
    item_put(f, "lm_head.weight", "BF16", "16x8", "1");
}

void folder_release(struct folder *f)
{
    DIR *d = opendir(f->dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = path_join(f->dir, e->d_name);
        if (e->d_name[0] != '.')
            remove(path);
        free(path);
    }
    if (d)
        closedir(d);
    rmdir(f->dir);
    for (size_t i = 0; i < f->num_items; i++)
        buf_release(&f->items[i].data);
    json_decref(f->description);
    json_decref(f->config);
}

uint8_t *folder_data(struct folder *f, const char *name)
{
    char full[128];
    struct item *it = find(f, expand(name, full));
    if (!it)
        die("no such tensor", name);
    return (uint8_t *)it->data.data;
}

void folder_put(const struct folder *f, const char *name, const char *data, size_t len)
{
    char *path = path_join(f->dir, name);
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(data, 1, len, out) != len || fclose(out))
        die("cannot write", path);
    free(path);
}

static void json_put(const struct folder *f, const char *name, const json_t *v)
{
    char *text = json_dumps(v, 0);
    folder_put(f, name, text, strlen(text));
    free(text);
}

void folder_write(const struct folder *f)
{
    struct buf h = {0}, file = {0};
    size_t at = 0;
    buf_putc(&h, '{');
    for (size_t i = 0; i < f->num_items; i++) {
        const struct item *it = &f->items[i];
        buf_printf(&h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", it->name, it->dtype);
        for (int d = 0; d < it->num_dims; d++)
            buf_printf(&h, "%s%lld", d ? "," : "", it->shape[d]);
        buf_printf(&h, "],\"data_offsets\":[%zu,%zu]}", at, at + it->data.len);
        at += it->data.len;
    }
    buf_putc(&h, '}');
    for (int i = 0; i < 8; i++)
        buf_putc(&file, (char)(h.len >> (8 * i)));
    buf_append(&file, h.data, h.len);
    for (size_t i = 0; i < f->num_items; i++)
        buf_append(&file, f->items[i].data.data, f->items[i].data.len);
    folder_put(f, f->weights, file.data, file.len);
    buf_release(&h);
    buf_release(&file);
    json_put(f, "config.json", f->config);
    if (f->description)
        json_put(f, "quant_model_description.json", f->description);
}

int folder_open(const struct folder *f, struct checkpoint **ret, struct octavo_error *err)
{
    folder_write(f);
    *err = (struct octavo_error){0};
    return checkpoint_open(f->dir, LOAD_AUTO, 0, ret, err);
}
