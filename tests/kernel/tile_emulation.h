/* AMX tiles in plain C, under the names of the intrinsics, so that code over tiles can be tested on any CPU. Loads and
 * stores touch what the configuration says and no more; shapes that do not fit end the program, as the CPU would. */
#ifndef OCTAVO_TESTS_TILE_EMULATION_H
#define OCTAVO_TESTS_TILE_EMULATION_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static struct {
    uint8_t data[16][64];
    int rows, row_bytes;
} tiles[8];

static inline void tile_expect(int condition)
{
    if (!condition)
        abort();
}

static inline void _tile_loadconfig(const void *config)
{
    const uint8_t *c = config;
    tile_expect(c[0] == 1 && c[1] == 0);
    for (int i = 2; i < 16; i++)
        tile_expect(c[i] == 0);
    memset(tiles, 0, sizeof(tiles));
    for (int t = 0; t < 8; t++) {
        tiles[t].row_bytes = c[16 + 2 * t] | c[17 + 2 * t] << 8;
        tiles[t].rows = c[48 + t];
        tile_expect(tiles[t].row_bytes <= 64 && tiles[t].rows <= 16);
    }
}

static inline void _tile_release(void)
{
    memset(tiles, 0, sizeof(tiles));
}

static inline void _tile_zero(int t)
{
    tile_expect(tiles[t].rows > 0);
    memset(tiles[t].data, 0, sizeof(tiles[t].data));
}

static inline void _tile_loadd(int t, const void *from, size_t stride)
{
    tile_expect(tiles[t].rows > 0);
    memset(tiles[t].data, 0, sizeof(tiles[t].data));
    for (int r = 0; r < tiles[t].rows; r++)
        memcpy(tiles[t].data[r], (const uint8_t *)from + (size_t)r * stride, (size_t)tiles[t].row_bytes);
}

static inline void _tile_stream_loadd(int t, const void *from, size_t stride)
{
    _tile_loadd(t, from, stride);
}

static inline void _tile_stored(int t, void *to, size_t stride)
{
    tile_expect(tiles[t].rows > 0);
    for (int r = 0; r < tiles[t].rows; r++)
        memcpy((uint8_t *)to + (size_t)r * stride, tiles[t].data[r], (size_t)tiles[t].row_bytes);
}

/* to (rows of a, columns of b) += a (u8, four to a number) times b (s8: its row holds four k of every column). */
static inline void _tile_dpbusd(int to, int a, int b)
{
    tile_expect(tiles[to].rows == tiles[a].rows && tiles[to].row_bytes == tiles[b].row_bytes &&
                tiles[a].row_bytes == tiles[b].rows * 4 && to != a && to != b && a != b);
    for (int r = 0; r < tiles[a].rows; r++)
        for (int j = 0; j < tiles[b].row_bytes / 4; j++) {
            uint32_t sum;
            memcpy(&sum, &tiles[to].data[r][j * 4], 4);
            for (int k = 0; k < tiles[a].row_bytes; k++)
                sum += (uint32_t)(tiles[a].data[r][k] * (int8_t)tiles[b].data[k / 4][j * 4 + k % 4]);
            memcpy(&tiles[to].data[r][j * 4], &sum, 4);
        }
}

#endif
