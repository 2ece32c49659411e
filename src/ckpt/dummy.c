/* Dummy weights: see dummy.h. The generator is counter-based, so that a compiler can vectorise the loop and threads may
 * make tensors in any order. Integer arithmetic and one multiplication: the same bytes on every machine. */
#include "ckpt/dummy.h"

#include "base/mem.h"

#include <string.h>

#define CHUNK 65536 /* elements that share a key: the counter below stays within 32 bits */

static uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

static uint64_t name_key(const char *name, uint64_t seed)
{
    uint64_t key = mix64(seed + 0x9e3779b97f4a7c15u);
    for (; *name; name++)
        key = mix64(key ^ (unsigned char)*name);
    return key;
}

/* The sum of four bytes of a hash of the counter, less its mean: near normal, standard deviation sqrt(21845) = 147.80
 */
static inline int32_t normal_int(uint32_t key, uint32_t i)
{
    uint32_t x = i * 0x9e3779b1u ^ key;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x ^= x >> 16;
    uint32_t pairs = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
    return (int32_t)((pairs & 0xffff) + (pairs >> 16)) - 510;
}

static inline uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline uint16_t to_bf16(float f)
{
    return (uint16_t)((float_bits(f) + 0x8000u) >> 16);
}

/* f is 0 or in float16's normal range: the smallest step, 0.01 / 147.8, is above 2^-14. */
static inline uint16_t to_f16(float f)
{
    uint32_t u = float_bits(f), magnitude = (u & 0x7fffffffu) + 0x1000u - (112u << 23);
    uint32_t zero = 0u - (uint32_t)(f == 0);
    return (uint16_t)((u >> 16 & 0x8000u) | (magnitude >> 13 & 0x7fffu & ~zero));
}

static void fill_normal(void *out, size_t count, enum dtype dtype, float scale, uint64_t name)
{
    for (size_t at = 0; at < count; at += CHUNK) {
        uint32_t n = (uint32_t)MIN(count - at, (size_t)CHUNK);
        uint32_t key = (uint32_t)mix64(name + at / CHUNK);
        if (dtype == DTYPE_F32) {
            float *o = (float *)out + at;
            for (uint32_t i = 0; i < n; i++)
                o[i] = (float)normal_int(key, i) * scale;
        } else if (dtype == DTYPE_BF16) {
            uint16_t *o = (uint16_t *)out + at;
            for (uint32_t i = 0; i < n; i++)
                o[i] = to_bf16((float)normal_int(key, i) * scale);
        } else {
            uint16_t *o = (uint16_t *)out + at;
            for (uint32_t i = 0; i < n; i++)
                o[i] = to_f16((float)normal_int(key, i) * scale);
        }
    }
}

void dummy_fill(void *out, size_t count, enum dtype dtype, enum arch_role role, const char *name, uint64_t seed)
{
    if (role == ARCH_NORM) {
        for (size_t i = 0; i < count; i++) {
            if (dtype == DTYPE_F32)
                ((float *)out)[i] = 1;
            else
                ((uint16_t *)out)[i] = dtype == DTYPE_BF16 ? 0x3f80 : 0x3c00;
        }
        return;
    }
    float scale = (role == ARCH_BIAS ? 0.01f : 0.02f) / 147.8f;
    fill_normal(out, count, dtype, scale, name_key(name, seed));
}
