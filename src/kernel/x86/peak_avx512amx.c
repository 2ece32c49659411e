/* Peak loops for AMX: tiles of sums, as the GEMM keeps them; the rest is AVX-512's. */
#define VEC_BYTES 64
#define PEAK_OWN_INT8
#define F32_FMA(acc, a, b) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
#include "kernel/simd/peak.h"

#include <immintrin.h>

static int64_t int8_tiles(const uint8_t *a, const int8_t *b, int64_t rounds)
{
    uint8_t config[64] = {[0] = 1};
    int32_t sums[64][16];
    for (int t = 0; t < 8; t++) {
        config[16 + 2 * t] = 64; /* bytes of a row */
        config[48 + t] = 16;     /* rows */
    }
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(config);
    _tile_loadd(4, a, 0);
    _tile_loadd(5, a, 0);
    _tile_loadd(6, b, 0);
    _tile_loadd(7, b, 0);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[16], 64);
    _tile_stored(2, sums[32], 64);
    _tile_stored(3, sums[48], 64);
    int64_t sum = 0;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 16; j++)
            sum += sums[i][j];
    _tile_release();
    return sum;
}

const struct peak_ops peak_avx512amx = {
    .int8_macs = 4 * 16 * 16 * 64,
    .f32_macs = NUM_ACC * VEC_BYTES / 4,
    .int8 = int8_tiles,
    .f32 = f32_loop,
    .read = read_loop,
};
