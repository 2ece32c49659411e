/* Runs a fuzz target without libFuzzer: every file of a corpus folder, then mutations of them from a fixed seed.
 * usage: fuzz_NAME CORPUS_DIR [ROUNDS [SEED]]. A crash or a sanitizer report is the failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    uint8_t *data;
    size_t size;
};

static uint64_t rng_state;

static uint32_t rng(uint32_t n)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) % n);
}

static struct input read_file(const char *dir, const char *name)
{
    struct input in = {0};
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return in;
    in.data = malloc(1 << 20);
    in.size = fread(in.data, 1, 1 << 20, f);
    fclose(f);
    return in;
}

/* One to eight edits: flip, set, insert a run, delete a run, splice from another input, repeat a piece. */
static size_t mutate(uint8_t *buf, size_t size, size_t cap, const struct input *all, size_t n)
{
    for (uint32_t edits = 1 + rng(8); edits--;) {
        size_t at = size ? rng((uint32_t)size) : 0;
        const struct input *o = &all[rng((uint32_t)n)];
        switch (rng(5)) {
        case 0:
            if (size)
                buf[at] ^= (uint8_t)(1u << rng(8));
            break;
        case 1:
            if (size)
                buf[at] = (uint8_t) "\0\xff[]{}\",:09-%\x80\xed\xf0"[rng(16)];
            break;
        case 2: {
            size_t len = o->size ? 1 + rng((uint32_t)o->size) : 0, from = o->size ? rng((uint32_t)o->size) : 0;
            if (len > o->size - from)
                len = o->size - from;
            if (size + len > cap)
                break;
            memmove(buf + at + len, buf + at, size - at);
            memcpy(buf + at, o->data + from, len);
            size += len;
            break;
        }
        case 3: {
            size_t len = size - at ? rng((uint32_t)(size - at)) : 0;
            memmove(buf + at, buf + at + len, size - at - len);
            size -= len;
            break;
        }
        default: {
            size_t len = size - at ? rng((uint32_t)(size - at < 16 ? size - at : 16)) : 0;
            for (uint32_t rep = rng(200); rep-- && len && size + len <= cap;) {
                memmove(buf + at + len, buf + at, size - at);
                size += len;
            }
        }
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s CORPUS_DIR [ROUNDS [SEED]]\n", argv[0]);
        return 2;
    }
    long rounds = argc > 2 ? atol(argv[2]) : 2000;
    rng_state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    struct dirent **names;
    int n = scandir(argv[1], &names, NULL, alphasort);
    struct input *all = calloc(n > 0 ? (size_t)n + 1 : 1, sizeof(*all));
    size_t count = 0;
    for (int i = 0; i < n; i++) {
        struct input in = names[i]->d_name[0] == '.' ? (struct input){0} : read_file(argv[1], names[i]->d_name);
        free(names[i]);
        if (!in.data)
            continue;
        LLVMFuzzerTestOneInput(in.data, in.size);
        all[count++] = in;
    }
    if (n >= 0)
        free(names);
    if (!count) {
        fprintf(stderr, "%s: no corpus in %s\n", argv[0], argv[1]);
        return 1;
    }
    size_t cap = 1 << 21;
    uint8_t *buf = malloc(cap);
    for (long i = 0; i < rounds; i++) {
        const struct input *in = &all[rng((uint32_t)count)];
        memcpy(buf, in->data, in->size);
        size_t size = mutate(buf, in->size, cap, all, count);
        uint8_t *exact = malloc(size ? size : 1); /* so that a read past the end is seen */
        memcpy(exact, buf, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%zu inputs, %ld mutations: 1 passed, 0 failed\n", count, rounds);
    for (size_t i = 0; i < count; i++)
        free(all[i].data);
    free(all);
    free(buf);
    return 0;
}
