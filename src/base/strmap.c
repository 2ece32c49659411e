/* Hash map: see strmap.h. */
#include "base/strmap.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static struct strmap_entry *find(const struct strmap *m, const char *key, size_t len, uint64_t hash)
{
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct strmap_entry *e = &m->slots[i];
        if (!e->used || (e->hash == hash && e->key_len == len && !memcmp(m->keys + e->key_at, key, len)))
            return e;
    }
}

static void grow(struct strmap *m)
{
    struct strmap old = *m;
    m->cap = old.cap ? old.cap * 2 : 64;
    m->slots = mem_calloc(m->cap, sizeof(*m->slots));
    for (size_t i = 0; i < old.cap; i++) {
        const struct strmap_entry *e = &old.slots[i];
        if (e->used)
            *find(m, m->keys + e->key_at, e->key_len, e->hash) = *e;
    }
    free(old.slots);
}

bool strmap_add(struct strmap *m, const char *key, size_t len, int32_t value, int32_t *ret_old)
{
    if (m->count * 2 >= m->cap)
        grow(m);
    uint64_t hash = XXH3_64bits(key, len);
    struct strmap_entry *e = find(m, key, len, hash);
    if (e->used) {
        if (ret_old)
            *ret_old = e->value;
        return false;
    }
    if (m->keys_len + len > m->keys_cap) {
        m->keys_cap = MAX(m->keys_cap * 2, m->keys_len + len + 1024);
        m->keys = mem_realloc(m->keys, m->keys_cap);
    }
    if (len)
        memcpy(m->keys + m->keys_len, key, len);
    *e = (struct strmap_entry){hash, m->keys_len, (uint32_t)len, value, true};
    m->keys_len += len;
    m->count++;
    return true;
}

int32_t strmap_get(const struct strmap *m, const char *key, size_t len, int32_t def)
{
    if (!m->count)
        return def;
    const struct strmap_entry *e = find(m, key, len, XXH3_64bits(key, len));
    return e->used ? e->value : def;
}

void strmap_release(struct strmap *m)
{
    free(m->slots);
    free(m->keys);
    *m = (struct strmap){0};
}
