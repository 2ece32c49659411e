/* INT8 GEMM in AMX tiles; part of avx512amx.c, and of tests/kernel/test_amx.c with tiles in C. A packed panel is what a
 * tile of weights wants: 16 rows of four k by 16 columns, two of them side by side. Rows go 32 or 16 at a time, so that
 * every tile is whole; the last rows, fewer than 16, go to i8_gemm, and a last piece of k is filled up with zeros. */

#define AMX_ROWS 16       /* of a tile of x */
#define AMX_K 64          /* of a tile, along k */
#define AMX_ROW_BLOCK 256 /* rows of x that stay in L2 while the panels go by */

/* Tiles: 0 to 3 are sums of (rows, columns), 4 and 5 x, 6 and 7 weights. All are 16 rows of 64 bytes. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static const struct amx_config amx_whole = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* The intrinsics of gcc do not tell it what memory they read. */
#define AMX_MEMORY_IS_READ() __asm__ __volatile__("" ::: "memory")

/* What tiles read of the last piece of k: rows of x and of the panel, zeros behind their ends. */
struct amx_tail {
    uint8_t x[2 * AMX_ROWS][AMX_K];
    int8_t w[AMX_K / 4][4 * GEMM_NR];
};

/* Adds 64 of k. two: there are 32 rows of x, else 16. */
ALWAYS_INLINE void amx_step(bool two, const uint8_t *x, size_t ldx, const int8_t *w)
{
    _tile_loadd(6, w, 4 * GEMM_NR);
    _tile_loadd(7, w + 64, 4 * GEMM_NR);
    _tile_loadd(4, x, ldx);
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    if (!two)
        return;
    _tile_loadd(5, x + AMX_ROWS * ldx, ldx);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
}

/* 32 or 16 rows of x times a panel, to sum. tail: scratch, whose w holds the panel's last piece of k. */
ALWAYS_INLINE void amx_dots(bool two, const uint8_t *x, size_t ldx, const int8_t *w, int k4, struct amx_tail *tail,
                            int32_t (*sum)[GEMM_NR])
{
    int i = 0, rest = k4 % AMX_K;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (; i + AMX_K <= k4; i += AMX_K)
        amx_step(two, x + i, ldx, w + (size_t)i * GEMM_NR);
    if (rest) {
        for (int r = 0; r < (two ? 2 : 1) * AMX_ROWS; r++)
            memcpy(tail->x[r], x + (size_t)r * ldx + i, (size_t)rest);
        AMX_MEMORY_IS_READ();
        amx_step(two, tail->x[0], AMX_K, tail->w[0]);
    }
    _tile_stored(0, sum[0], sizeof(sum[0]));
    _tile_stored(1, sum[0] + 16, sizeof(sum[0]));
    if (two) {
        _tile_stored(2, sum[AMX_ROWS], sizeof(sum[0]));
        _tile_stored(3, sum[AMX_ROWS] + 16, sizeof(sum[0]));
    }
    AMX_MEMORY_IS_READ();
}

/* Panels times rows [0, rows), whole sixteens. */
static void amx_rows(const struct gemm_i8_args *a, int rows, int panel_begin, int panel_end)
{
    _Alignas(64) int32_t sum[2 * AMX_ROWS][GEMM_NR];
    _Alignas(64) struct amx_tail tail;
    memset(&tail, 0, sizeof(tail));
    int rest = a->k4 % AMX_K;
    _tile_loadconfig(&amx_whole);
    for (int r0 = 0; r0 < rows; r0 += AMX_ROW_BLOCK) {
        int r1 = r0 + AMX_ROW_BLOCK < rows ? r0 + AMX_ROW_BLOCK : rows;
        for (int p = panel_begin; p < panel_end; p++) {
            const int8_t *w = a->w + (size_t)p * (size_t)a->k4 * GEMM_NR;
            memcpy(tail.w, w + (size_t)(a->k4 - rest) * GEMM_NR, (size_t)rest * GEMM_NR);
            int r = r0;
            for (; r + 2 * AMX_ROWS <= r1; r += 2 * AMX_ROWS) {
                amx_dots(true, a->x + (size_t)r * a->ldx, a->ldx, w, a->k4, &tail, sum);
                i8_store(a, sum, r, 2 * AMX_ROWS, p);
            }
            if (r < r1) {
                amx_dots(false, a->x + (size_t)r * a->ldx, a->ldx, w, a->k4, &tail, sum);
                i8_store(a, sum, r, AMX_ROWS, p);
            }
        }
    }
    _tile_release();
}

static void amx_gemm(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    int whole = a->rows / AMX_ROWS * AMX_ROWS;
    if (whole)
        amx_rows(a, whole, panel_begin, panel_end);
    if (whole < a->rows)
        i8_gemm(a, whole, panel_begin, panel_end);
}
