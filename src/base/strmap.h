/* A hash map from byte strings to int32: vocabularies, tensor names. Open addressing over XXH3; keys are copied into
 * one arena. Entries are never removed. */
#ifndef OCTAVO_BASE_STRMAP_H
#define OCTAVO_BASE_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strmap_entry {
    uint64_t hash;
    size_t key_at; /* offset in keys */
    uint32_t key_len;
    int32_t value;
    bool used;
};

struct strmap {
    struct strmap_entry *slots; /* (cap), cap a power of two */
    size_t cap, count;
    char *keys;
    size_t keys_len, keys_cap;
};

/* Sets key to value. Returns true when it was new; an existing key keeps its old value, put in *ret_old if not NULL. */
bool strmap_add(struct strmap *m, const char *key, size_t len, int32_t value, int32_t *ret_old);
/* The value of key, or def. */
int32_t strmap_get(const struct strmap *m, const char *key, size_t len, int32_t def);
void strmap_release(struct strmap *m);

#endif
