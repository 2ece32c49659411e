/* q.k and p.V of C8 attention in AMX tiles, for calls of many rows; part of avx512vnni_attention.h where there are
 * tiles. Both come from the cache as a tile of B wants them: K as fours of channels by keys, V as fours of keys by
 * channels. Sums are the same integers as those of vpdpbusd; what is made of them is the vectors' work here too. */

#include "kernel/x86/avx512amx.h"

/* Tiles of 16 rows: 0 to 3 sums, 4 and 5 q and K (64 channels), 6 and 7 p and V (ATTN_TILE keys). */
static const struct amx_config c8_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, ATTN_TILE, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, ATTN_TILE / 4},
};

/* Whether tiles are for a call: it has several rows, and channels that fill them. */
static bool c8_tile_begin(const struct c8_rows *s, const struct attn_args *a)
{
    if (s->rows <= C8_FEW || a->d % 64)
        return false;
    _tile_loadconfig(&c8_tiles);
    return true;
}

static void c8_tile_end(void)
{
    _tile_release();
}

/* c8_dots for 16 rows from r on, whose q lies as c8_planes has it for tiles. */
static void c8_dots_tile(struct c8_rows *s, bool all, int r, int at, const uint8_t *k, int pd)
{
    _Alignas(64) int32_t hi[16][ATTN_TILE];
    const int8_t *qh = s->q + (size_t)r * (size_t)pd, *ql = qh + (size_t)ATTN_MAX_ROWS * (size_t)pd;
    AMX_MEMORY_IS_READ();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int i = 0; i < pd; i += 64, k += 64 * ATTN_TILE) {
        _tile_loadd(4, qh + i, (size_t)pd);
        _tile_loadd(5, k, 4 * ATTN_TILE);
        _tile_dpbsud(0, 4, 5);
        _tile_loadd(5, k + 64, 4 * ATTN_TILE);
        _tile_dpbsud(1, 4, 5);
        _tile_loadd(4, ql + i, (size_t)pd);
        _tile_dpbsud(3, 4, 5);
        _tile_loadd(5, k, 4 * ATTN_TILE);
        _tile_dpbsud(2, 4, 5);
    }
    _tile_stored(0, hi[0], sizeof(hi[0]));
    _tile_stored(1, hi[0] + 16, sizeof(hi[0]));
    _tile_stored(2, s->dot[at], sizeof(hi[0]));
    _tile_stored(3, s->dot[at] + 16, sizeof(hi[0]));
    AMX_MEMORY_IS_READ();
    for (int i = 0; i < 16; i++) {
        __m512i d[2];
        UNROLL
        for (int h = 0; h < 2; h++) {
            d[h] = _mm512_slli_epi32(_mm512_load_si512(hi[i] + h * 16), 8);
            d[h] = _mm512_add_epi32(d[h], _mm512_load_si512(s->dot[at + i] + h * 16));
            _mm512_store_si512(s->dot[at + i] + h * 16, d[h]);
            if (!all)
                d[h] = _mm512_mask_mov_epi32(_mm512_set1_epi32(INT32_MIN), s->seen[at + i][h], d[h]);
        }
        s->top[at + i] = _mm512_max_epi32(d[0], d[1]);
    }
}

/* The dots of a strip. Rows behind the last are nobody's, and so is what is written to their places: the next tile's
 * come later. */
static void c8_tile_dots(struct c8_rows *s, int pd)
{
    for (int i = 0; i < s->num_tiles; i++) {
        const struct c8_tile *t = &s->tile[i];
        for (int r = t->begin / 16 * 16; r < t->end; r += 16)
            c8_dots_tile(s, t->all, r, i * s->stride + r, t->k, pd);
    }
}

/* c8_values for 16 rows from r0 on, as many of them as there are, all channels. */
static void c8_values_tile(struct c8_rows *s, int r0, int rows, size_t d)
{
    _Alignas(64) int32_t sum[C8_STRIP][16][64];
    const __m512 unit = _mm512_set1_ps(256.0f); /* of a high plane */
    for (size_t i = 0; i < d; i += 64) {
        AMX_MEMORY_IS_READ();
        for (int tile = 0; tile < s->num_tiles; tile++) {
            const struct c8_tile *t = &s->tile[tile];
            const int8_t *v = t->v + i * 4;
            if (t->begin >= r0 + rows || t->end <= r0)
                continue;
            _tile_loadd(6, s->p[tile * s->stride + r0], ATTN_TILE);
            _tile_zero(0);
            _tile_loadd(7, v, 4 * d);
            _tile_dpbusd(0, 6, 7);
            _tile_zero(1);
            _tile_loadd(7, v + 64, 4 * d);
            _tile_dpbusd(1, 6, 7);
            _tile_zero(2);
            _tile_loadd(7, v + 128, 4 * d);
            _tile_dpbusd(2, 6, 7);
            _tile_zero(3);
            _tile_loadd(7, v + 192, 4 * d);
            _tile_dpbusd(3, 6, 7);
            _tile_stored(0, sum[tile][0], sizeof(sum[0][0]));
            _tile_stored(1, sum[tile][0] + 16, sizeof(sum[0][0]));
            _tile_stored(2, sum[tile][0] + 32, sizeof(sum[0][0]));
            _tile_stored(3, sum[tile][0] + 48, sizeof(sum[0][0]));
        }
        AMX_MEMORY_IS_READ();
        for (int r = 0; r < rows; r++) {
            float *to = s->out + (size_t)(r0 + r) * d + i;
            __m512 out[4];
            UNROLL
            for (int u = 0; u < 4; u++)
                out[u] = _mm512_loadu_ps(to + u * 16);
            for (int tile = 0, at = r0 + r; tile < s->num_tiles; tile++, at += s->stride) {
                const struct c8_tile *t = &s->tile[tile];
                if (t->begin > r0 + r || t->end <= r0 + r)
                    continue;
                __m512 w = _mm512_mul_ps(_mm512_set1_ps(s->weight[at]), unit);
                if (!(t->kept >> (r0 + r) & 1)) { /* which few are, far from the beginning */
                    __m512 c = _mm512_set1_ps(s->correction[at]);
                    UNROLL
                    for (int u = 0; u < 4; u++)
                        out[u] = _mm512_mul_ps(out[u], c);
                }
                UNROLL
                for (int u = 0; u < 4; u++) {
                    __m512 n = _mm512_cvtepi32_ps(_mm512_load_si512(sum[tile][r] + u * 16));
                    out[u] = _mm512_fmadd_ps(n, w, out[u]);
                }
            }
            UNROLL
            for (int u = 0; u < 4; u++)
                _mm512_storeu_ps(to + u * 16, out[u]);
        }
    }
}

static void c8_tile_values(struct c8_rows *s, int begin, int end, size_t d)
{
    for (int r = begin / 16 * 16; r < end; r += 16)
        c8_values_tile(s, r, s->rows - r < 16 ? s->rows - r : 16, d);
}
