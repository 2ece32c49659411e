/* INT8 GEMM in AMX tiles; part of avx512amx.c, and of tests/kernel/test_amx.c with tiles in C. A packed panel is what a
 * tile of weights wants: 16 rows of four k by 16 columns, two of them side by side. Rows of x go 32 at a time over a
 * piece of a panel that stays in L1, while x streams past it from L2: tiles that all come from L2 get through at half
 * the speed of the multiplications. What is stored of a block is made at the end of the next, when its sums wait for
 * nothing any more. A last piece of k is filled up with zeros. */

#include "kernel/x86/avx512amx.h"

#define AMX_ROWS 16                 /* of a tile of x */
#define AMX_BLOCK (2 * AMX_ROWS)    /* rows at once */
#define AMX_K 64                    /* of a tile, along k */
#define AMX_PIECE 1024              /* of k, at most: 32 KB of weights */
#define AMX_MOST_ROWS 512           /* of x that stay in L2 while the panels go by, */
#define AMX_MOST_BYTES (1152 << 10) /* as long as they have no more */
#define AMX_SWIGLU_ROWS 4           /* that are finished in two steps: with SwiGLU it is too much to do at once */
#define AMX_ONCE_AHEAD 8192         /* bytes ahead in weights that one block reads, */
#define AMX_PAIR_AHEAD 2048         /* in each of two places, */
#define AMX_NIBBLES_AHEAD 1536      /* and in those that are made wider */

/* Sums of rows [r, r + rows) of panel p that are not finished yet. */
struct amx_waiting {
    int32_t (*sum)[GEMM_NR];
    int r, rows, p;
    struct i8_columns columns[2];
};

/* Of one call. */
struct amx_work {
    const struct gemm_i8_args *a;
    struct amx_waiting waiting;
    const int8_t *ask; /* what will be wanted of the weights, */
    int lines;         /* and how many lines of it a step asks for */
    _Alignas(64) int32_t sum[AMX_MOST_ROWS][GEMM_NR];
    _Alignas(64) uint8_t x[AMX_BLOCK][AMX_K];      /* the last piece of k: of some rows of x, */
    _Alignas(64) int8_t w[AMX_K / 4][4 * GEMM_NR]; /* and of a panel */
    _Alignas(64) int8_t wide[AMX_PIECE * GEMM_NR]; /* a piece of a panel that was packed as nibbles */
};

static void amx_finish(struct amx_work *s, int most)
{
    struct amx_waiting *w = &s->waiting;
    int rows = w->rows < most ? w->rows : most;
    if (rows == 0)
        return;
    i8_store_with(s->a, w->columns, w->sum, w->r, rows, w->p);
    w->sum += rows;
    w->r += rows;
    w->rows -= rows;
}

/* 64 of k of x, to tile 4 or 5, and of 16 columns of weights, to 6 or 7. once: weights are what streams past, and x is
 * what stays. */
ALWAYS_INLINE void amx_load_x(bool once, bool second, const uint8_t *x, size_t ldx)
{
    if (once && second)
        _tile_loadd(5, x + AMX_ROWS * ldx, ldx);
    else if (once)
        _tile_loadd(4, x, ldx);
    else if (second)
        _tile_stream_loadd(5, x + AMX_ROWS * ldx, ldx);
    else
        _tile_stream_loadd(4, x, ldx);
}

ALWAYS_INLINE void amx_load_w(bool once, bool second, const int8_t *w)
{
    if (once && second)
        _tile_stream_loadd(7, w + 64, 4 * GEMM_NR);
    else if (once)
        _tile_stream_loadd(6, w, 4 * GEMM_NR);
    else if (second)
        _tile_loadd(7, w + 64, 4 * GEMM_NR);
    else
        _tile_loadd(6, w, 4 * GEMM_NR);
}

/* Adds what is loaded to tiles 0 to 3, the sums of (rows, columns), and loads what comes next, each tile as soon as
 * nothing wants it any more: the other way round takes a fifth longer. two: there are more than 16 rows. */
ALWAYS_INLINE void amx_step(bool two, bool once, bool next, const uint8_t *x, size_t ldx, const int8_t *w)
{
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    if (next)
        amx_load_x(once, false, x, ldx);
    if (two)
        _tile_dpbusd(2, 5, 6);
    if (next)
        amx_load_w(once, false, w);
    if (two)
        _tile_dpbusd(3, 5, 7);
    if (two && next)
        amx_load_x(once, true, x, ldx);
    if (next)
        amx_load_w(once, true, w);
}

/* rows of x, two tiles of them or one, times k of a panel, to sum or added to it. s->w holds the panel's k beyond whole
 * tiles. */
ALWAYS_INLINE void amx_dots(bool two, bool once, struct amx_work *s, bool add, const uint8_t *x, int rows,
                            const int8_t *w, int k, int32_t (*sum)[GEMM_NR])
{
    size_t ldx = s->a->ldx;
    int steps = (k + AMX_K - 1) / AMX_K, whole = k / AMX_K, rest = k % AMX_K;
    for (int r = 0; rest && r < rows; r++)
        memcpy(s->x[r], x + (size_t)r * ldx + (k - rest), (size_t)rest);
    AMX_MEMORY_IS_READ();
    amx_load_x(once, false, whole ? x : s->x[0], whole ? ldx : AMX_K);
    amx_load_w(once, false, whole ? w : s->w[0]);
    if (two)
        amx_load_x(once, true, whole ? x : s->x[0], whole ? ldx : AMX_K);
    amx_load_w(once, true, whole ? w : s->w[0]);
    if (add) {
        _tile_loadd(0, sum[0], sizeof(sum[0]));
        _tile_loadd(1, sum[0] + 16, sizeof(sum[0]));
        if (two) {
            _tile_loadd(2, sum[AMX_ROWS], sizeof(sum[0]));
            _tile_loadd(3, sum[AMX_ROWS] + 16, sizeof(sum[0]));
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int i = 1; i <= steps; i++) {
        if (i < whole)
            amx_step(two, once, true, x + i * AMX_K, ldx, w + (size_t)i * AMX_K * GEMM_NR);
        else
            amx_step(two, once, i < steps, s->x[0], AMX_K, s->w[0]);
        for (int line = 0; line < s->lines; line++, s->ask += 64)
            __builtin_prefetch(s->ask, 0, 2); /* into L2 */
        if (s->a->swiglu && i % 2 == 0)
            amx_finish(s, AMX_SWIGLU_ROWS);
    }
    amx_finish(s, AMX_BLOCK);
    _tile_stored(0, sum[0], sizeof(sum[0]));
    _tile_stored(1, sum[0] + 16, sizeof(sum[0]));
    if (two) {
        _tile_stored(2, sum[AMX_ROWS], sizeof(sum[0]));
        _tile_stored(3, sum[AMX_ROWS] + 16, sizeof(sum[0]));
    }
    AMX_MEMORY_IS_READ();
}

/* One function for each shape, so that what it tests is constant. */
typedef void amx_dots_fn(struct amx_work *s, bool add, const uint8_t *x, int rows, const int8_t *w, int k,
                         int32_t (*sum)[GEMM_NR]);
#define AMX_DOTS(name, two, once)                                                                                      \
    static void name(struct amx_work *s, bool add, const uint8_t *x, int rows, const int8_t *w, int k,                 \
                     int32_t(*sum)[GEMM_NR])                                                                           \
    {                                                                                                                  \
        amx_dots(two, once, s, add, x, rows, w, k, sum);                                                               \
    }
AMX_DOTS(amx_dots_one, false, false)
AMX_DOTS(amx_dots_two, true, false)
AMX_DOTS(amx_dots_one_once, false, true)
AMX_DOTS(amx_dots_two_once, true, true)
static amx_dots_fn *const amx_dots_of[2][2] = {{amx_dots_one, amx_dots_two}, {amx_dots_one_once, amx_dots_two_once}};

/* Rows [r0, r1) times a piece of panel p: k of it, as w has them, from k0 on. */
static void amx_piece(struct amx_work *s, int r0, int r1, int p, const int8_t *w, int k0, int k)
{
    const struct gemm_i8_args *a = s->a;
    bool last = k0 + k == a->k4, pieces = k < a->k4;
    int rest = k % AMX_K, slot = 0;
    memcpy(s->w, w + (size_t)(k - rest) * GEMM_NR, (size_t)rest * GEMM_NR);
    for (int r = r0; r < r1; r += AMX_BLOCK, slot += AMX_BLOCK) {
        int rows = r1 - r < AMX_BLOCK ? r1 - r : AMX_BLOCK;
        if (rows < AMX_BLOCK && a->rows >= AMX_BLOCK) { /* whole tiles: some rows go again */
            rows = rows <= AMX_ROWS ? AMX_ROWS : AMX_BLOCK;
            r = r1 - rows;
        }
        int32_t(*sum)[GEMM_NR] = s->sum + (pieces ? slot : 0);
        const uint8_t *x = a->x + (size_t)r * a->ldx + k0;
        amx_dots_of[r1 - r0 <= AMX_BLOCK][rows > AMX_ROWS](s, k0 > 0, x, rows, w, k, sum);
        if (last) {
            s->waiting.sum = sum;
            s->waiting.r = r;
            s->waiting.rows = rows;
            if (s->waiting.p != p)
                i8_panel_columns(a, p, s->waiting.columns);
            s->waiting.p = p;
        }
    }
}

/* k of a panel from nibbles to bytes: in 64 of them four k of 16 columns, and the next four in their high halves. */
static void amx_widen(int8_t *to, const int8_t *from, int k)
{
    typedef uint8_t bytes __attribute__((vector_size(64)));
    for (int i = 0; i < k; i += 8, to += 8 * GEMM_NR)
        for (int half = 0; half < 2; half++, from += 64) {
            bytes v, low, high;
            memcpy(&v, from, sizeof(v));
            __builtin_prefetch(from + AMX_NIBBLES_AHEAD);
            low = (v & 15) - 8;
            high = (v >> 4) - 8;
            memcpy(to + half * 64, &low, sizeof(low));
            memcpy(to + half * 64 + 4 * GEMM_NR, &high, sizeof(high));
        }
}

/* 64 of k of two panels: sums 0 and 1, 2 and 3. */
ALWAYS_INLINE void amx_pair_step(const uint8_t *x, size_t ldx, const int8_t *w, const int8_t *w2)
{
    _tile_loadd(4, x, ldx);
    _tile_loadd(6, w, 4 * GEMM_NR);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(7, w + 64, 4 * GEMM_NR);
    _tile_dpbusd(1, 4, 7);
    _tile_loadd(6, w2, 4 * GEMM_NR);
    _tile_dpbusd(2, 4, 6);
    _tile_loadd(7, w2 + 64, 4 * GEMM_NR);
    _tile_dpbusd(3, 4, 7);
}

/* At most 16 rows, with weights from memory: it gives more when they are read in two places at once, the panels' first
 * half and their second. Returns the panel where it has stopped, one before the end when their number is odd. */
static int amx_pairs(struct amx_work *s, int panel_begin, int panel_end)
{
    const struct gemm_i8_args *a = s->a;
    int half = (panel_end - panel_begin) / 2, rest = a->k4 % AMX_K, whole = a->k4 - rest;
    for (int r = 0; r < a->rows; r++)
        memcpy(s->x[r], a->x + (size_t)r * a->ldx + whole, (size_t)rest);
    for (int p = panel_begin; p < panel_begin + half; p++) {
        const int8_t *w = a->w + (size_t)p * (size_t)a->k4 * GEMM_NR, *w2 = w + (size_t)half * (size_t)a->k4 * GEMM_NR;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int i = 0; i < whole; i += AMX_K, w += AMX_K * GEMM_NR, w2 += AMX_K * GEMM_NR) {
            for (int line = 0; line < AMX_K * GEMM_NR; line += 64) {
                __builtin_prefetch(w + AMX_PAIR_AHEAD + line);
                __builtin_prefetch(w2 + AMX_PAIR_AHEAD + line);
            }
            amx_pair_step(a->x + i, a->ldx, w, w2);
        }
        if (rest) {
            memcpy(s->w[0], w, (size_t)rest * GEMM_NR);
            memcpy(s->wide, w2, (size_t)rest * GEMM_NR);
            AMX_MEMORY_IS_READ();
            amx_pair_step(s->x[0], AMX_K, s->w[0], s->wide);
        }
        for (int t = 0; t < 2; t++) {
            int32_t(*sum)[GEMM_NR] = s->sum + t * AMX_ROWS;
            if (t == 0) {
                _tile_stored(0, sum[0], sizeof(sum[0]));
                _tile_stored(1, sum[0] + 16, sizeof(sum[0]));
            } else {
                _tile_stored(2, sum[0], sizeof(sum[0]));
                _tile_stored(3, sum[0] + 16, sizeof(sum[0]));
            }
            AMX_MEMORY_IS_READ();
            i8_store(a, sum, 0, a->rows, p + t * half);
        }
    }
    return panel_begin + 2 * half;
}

static void amx_gemm(const struct gemm_i8_args *a, bool nibbles, int panel_begin, int panel_end)
{
    struct amx_work s; /* large, but only what is used of it is touched */
    bool pairs = a->rows <= AMX_ROWS && !nibbles;
    struct amx_config config = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}};
    for (int t = 0; t < 8; t++) {
        int rows = t >= 6 ? AMX_ROWS : pairs || t == 0 || t == 1 || t == 4 ? a->rows : a->rows - AMX_ROWS;
        config.rows[t] = (uint8_t)(rows > 0 && rows < AMX_ROWS ? rows : AMX_ROWS);
    }
    s.a = a;
    s.waiting.rows = 0;
    s.waiting.p = -1;
    memset(s.x, 0, sizeof(s.x));
    memset(s.w, 0, sizeof(s.w));
    memset(s.wide, 0, sizeof(s.w));
    int pieces = (a->k4 + AMX_PIECE - 1) / AMX_PIECE, most = AMX_MOST_BYTES / (int)a->ldx;
    int piece = ((a->k4 + pieces - 1) / pieces + AMX_K - 1) / AMX_K * AMX_K;
    most = most > AMX_MOST_ROWS ? AMX_MOST_ROWS : most < 2 * AMX_BLOCK ? 2 * AMX_BLOCK : most;
    int blocks = (a->rows + most - 1) / most, rows = (a->rows + blocks - 1) / blocks;
    rows = (rows + AMX_BLOCK - 1) / AMX_BLOCK * AMX_BLOCK;
    AMX_MEMORY_IS_READ();
    _tile_loadconfig(&config);
    if (pairs)
        panel_begin = amx_pairs(&s, panel_begin, panel_end);
    for (int r0 = 0, r1; r0 < a->rows; r0 = r1) {
        r1 = r0 + rows < a->rows ? r0 + rows : a->rows;
        bool once = r1 - r0 <= AMX_BLOCK;
        int bits = nibbles ? 4 : 8, turns = (r1 - r0 + AMX_BLOCK - 1) / AMX_BLOCK;
        int lines = nibbles && once ? 0 : (AMX_K * GEMM_NR * bits / 8 / 64 + turns - 1) / turns;
        for (int p = panel_begin; p < panel_end; p++)
            for (int k0 = 0, k; k0 < a->k4; k0 += k) {
                k = a->k4 - k0 < piece ? a->k4 - k0 : piece;
                const int8_t *w = a->w + ((size_t)p * (size_t)a->k4 + (size_t)k0) * GEMM_NR * (size_t)bits / 8;
                s.ask = w + (once ? AMX_ONCE_AHEAD : k * GEMM_NR * bits / 8);
                s.lines = lines;
                if (nibbles) {
                    amx_widen(s.wide, w, k);
                    w = s.wide;
                }
                amx_piece(&s, r0, r1, p, w, k0, k);
            }
    }
    amx_finish(&s, AMX_BLOCK);
    _tile_release();
}
