/* The GEMMs of one tier with float activations: float weights, and integer ones in groups. See float.h; a tier also
 * defines GEMM_MR, the rows at once: as many as keep accumulators, weights and broadcasts in registers. */

#define ROW_BLOCK 64 /* rows of x that stay in L2 while the panels go by */

/* X(name, mr) for each number of rows that a pass may have; numbers beyond GEMM_MR are never asked for. */
#define EACH_MR(X, name) X(name, 1) X(name, 2) X(name, 3) X(name, 4) X(name, 5) X(name, 6) X(name, 7) X(name, 8)
_Static_assert(GEMM_MR <= 8, "EACH_MR ends at 8");

ALWAYS_INLINE void acc_zero(int mr, V (*acc)[MAX_NV])
{
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < NV; v++)
            acc[r][v] = V_zero();
    }
}

ALWAYS_INLINE void acc_load(int mr, V (*acc)[MAX_NV], float (*from)[GEMM_NR])
{
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < NV; v++)
            acc[r][v] = V_load(from[r] + v * VL);
    }
}

ALWAYS_INLINE void acc_store(int mr, float (*to)[GEMM_NR], V (*acc)[MAX_NV])
{
    UNROLL
    for (int r = 0; r < mr; r++) {
        UNROLL
        for (int v = 0; v < NV; v++)
            V_store(to[r] + v * VL, acc[r][v]);
    }
}

/* The sums of one row and panel to y, whose first column is j0. */
static inline void gemm_row_store(float *y, const float *sum, int j0, int n, const float *bias)
{
    int cols = n - j0 < GEMM_NR ? n - j0 : GEMM_NR;
    if (bias)
        for (int j = 0; j < cols; j++)
            y[j0 + j] = bias[j0 + j] + sum[j];
    else
        memcpy(y + j0, sum, (size_t)cols * sizeof(float));
}

/* Adds k channels of mr rows times a panel. */
ALWAYS_INLINE void gemm_chain(int mr, enum elem elem, V (*acc)[MAX_NV], const float *x, size_t ldx, const uint8_t *w,
                              int k)
{
    NO_UNROLL
    for (const float *end = x + k; x < end; x++, w += GEMM_NR * elem_size(elem))
        outer_step(mr, NV, elem, acc, x, ldx, w);
}

/* ---- float weights ---- */

ALWAYS_INLINE void gemm_rows(int mr, enum elem elem, float *y, size_t ldy, const float *x, size_t ldx, const uint8_t *w,
                             int k, int n, int j0, const float *bias)
{
    V acc[GEMM_MR][MAX_NV];
    float sum[GEMM_MR][GEMM_NR];
    acc_zero(mr, acc);
    gemm_chain(mr, elem, acc, x, ldx, w, k);
    acc_store(mr, sum, acc);
    for (int r = 0; r < mr; r++)
        gemm_row_store(y + (size_t)r * ldy, sum[r], j0, n, bias);
}

#define GEMM_CASE(elem, mr)                                                                                            \
    case mr:                                                                                                           \
        gemm_rows(mr < GEMM_MR ? mr : GEMM_MR, elem, y + (size_t)r * ldy, ldy, x + (size_t)r * ldx, ldx, wp, k, n,     \
                  p * GEMM_NR, bias);                                                                                  \
        break;

ALWAYS_INLINE void gemm_float(enum elem elem, float *y, size_t ldy, const float *x, size_t ldx, int rows, const void *w,
                              int k, int n, int panel_begin, int panel_end, const float *bias)
{
    for (int r0 = 0; r0 < rows; r0 += ROW_BLOCK) {
        int r1 = r0 + ROW_BLOCK < rows ? r0 + ROW_BLOCK : rows;
        for (int p = panel_begin; p < panel_end; p++) {
            const uint8_t *wp = (const uint8_t *)w + (size_t)p * (size_t)k * GEMM_NR * elem_size(elem);
            for (int r = r0, mr; r < r1; r += mr) {
                mr = share(r1 - r, GEMM_MR);
                switch (mr) {
                    EACH_MR(GEMM_CASE, elem)
                }
            }
        }
    }
}

#define GEMM(name, elem)                                                                                               \
    void KFN(name)(float *y, size_t ldy, const float *x, size_t ldx, int rows, const void *w, int k, int n,            \
                   int panel_begin, int panel_end, const float *bias)                                                  \
    {                                                                                                                  \
        gemm_float(elem, y, ldy, x, ldx, rows, w, k, n, panel_begin, panel_end, bias);                                 \
    }
GEMM(gemm_bf16, ELEM_BF16)
GEMM(gemm_f16, ELEM_F16)
GEMM(gemm_f32, ELEM_F32)

/* ---- integer weights, float activations ---- */

#define W16_DIRECT 2 /* most rows for which weights become floats in registers only */
#define W16_BLOCK 64 /* channels that become floats at once then; whole eights */

/* How weights lie in memory, and whether there are zero points: constants after inlining. */
struct w16_form {
    bool nibbles, zero;
};

/* Channel c of the eight at w, vector v of its columns, less the zero points. words: what w16_words made of w. */
ALWAYS_INLINE V w16_weight(struct w16_form form, const int8_t *w, const N *words, const float *zero, int c, int v)
{
    int at = 8 * (c % 4) + 4 * (c / 4); /* bit of a word: kernels.def */
    V weight = form.nibbles ? V_from_int((I)(words[v] << (28 - at)) >> 28) : V_load_i8(w + c * GEMM_NR + v * VL);
    if (form.zero)
        weight -= V_load(zero + v * VL);
    return weight;
}

/* The eight channels at w, where they are nibbles: a word for each column, two's complement by fours of bits. */
ALWAYS_INLINE void w16_words(struct w16_form form, N *words, const int8_t *w)
{
    if (!form.nibbles)
        return;
    UNROLL
    for (int v = 0; v < NV; v++)
        words[v] = (N)I_load(w + v * VL * 4) ^ 0x88888888;
}

/* Where channels [i, i + 8) of a panel begin. */
ALWAYS_INLINE const int8_t *w16_at(struct w16_form form, const int8_t *panel, int i)
{
    return panel + (size_t)i * GEMM_NR / (form.nibbles ? 2 : 1);
}

/* Of the eight channels from i on those that are in [begin, end). */
struct w16_eight {
    int first, last;
};

ALWAYS_INLINE struct w16_eight w16_eight_of(int i, int begin, int end)
{
    return (struct w16_eight){begin > i ? begin - i : 0, end < i + 8 ? end - i : 8};
}

ALWAYS_INLINE void w16_direct_eight(int mr, struct w16_form form, V (*part)[MAX_NV], const float *x, size_t ldx,
                                    const int8_t *w, const float *zero, struct w16_eight at)
{
    N words[MAX_NV];
    w16_words(form, words, w);
    UNROLL
    for (int c = 0; c < 8; c++) {
        if (c < at.first || c >= at.last)
            continue;
        V row[W16_DIRECT];
        UNROLL
        for (int r = 0; r < mr; r++)
            row[r] = V_broadcast(x[(size_t)r * ldx + (size_t)c]);
        UNROLL
        for (int v = 0; v < NV; v++) {
            V weight = w16_weight(form, w, words, zero, c, v);
            UNROLL
            for (int r = 0; r < mr; r++)
                part[r][v] = V_fma(row[r], weight, part[r][v]);
        }
    }
}

/* Adds a group's sums, times its scales, to sum. */
ALWAYS_INLINE void w16_scale(int mr, float (*sum)[GEMM_NR], V (*part)[MAX_NV], const float *scale)
{
    UNROLL
    for (int v = 0; v < NV; v++) {
        V s = V_load(scale + v * VL);
        UNROLL
        for (int r = 0; r < mr; r++)
            V_store(sum[r] + v * VL, V_fma(s, part[r][v], V_load(sum[r] + v * VL)));
    }
}

/* A panel of which one group is at work. */
struct w16_panel {
    const int8_t *w;
    const float *scale, *zero; /* (groups, GEMM_NR) */
};

ALWAYS_INLINE void w16_direct(int mr, struct w16_form form, const struct gemm_w8a16_args *a, const float *x,
                              struct w16_panel p, float (*sum)[GEMM_NR])
{
    for (int begin = 0, end; begin < a->k; begin = end, p.scale += GEMM_NR, p.zero += form.zero ? GEMM_NR : 0) {
        V part[W16_DIRECT][MAX_NV];
        end = a->k - begin < a->group_size ? a->k : begin + a->group_size;
        acc_zero(mr, part);
        for (int i = begin / 8 * 8; i < end; i += 8) {
            struct w16_eight at = w16_eight_of(i, begin, end);
            const int8_t *w = w16_at(form, p.w, i);
            if (at.first == 0 && at.last == 8)
                w16_direct_eight(mr, form, part, x + i, a->ldx, w, p.zero, (struct w16_eight){0, 8});
            else
                w16_direct_eight(mr, form, part, x + i, a->ldx, w, p.zero, at);
        }
        w16_scale(mr, sum, part, p.scale);
    }
}

/* Channels [begin, end) of a panel as floats, (end - begin, GEMM_NR). */
ALWAYS_INLINE void w16_floats(struct w16_form form, float (*to)[GEMM_NR], const int8_t *panel, const float *zero,
                              int begin, int end)
{
    for (int i = begin / 8 * 8; i < end; i += 8) {
        struct w16_eight at = w16_eight_of(i, begin, end);
        const int8_t *w = w16_at(form, panel, i);
        N words[MAX_NV];
        w16_words(form, words, w);
        UNROLL
        for (int c = 0; c < 8; c++) {
            if (c < at.first || c >= at.last)
                continue;
            UNROLL
            for (int v = 0; v < NV; v++)
                V_store(to[i + c - begin] + v * VL, w16_weight(form, w, words, zero, c, v));
        }
    }
}

/* Adds k channels of mr rows to their parts, which begin here with first and end here with last. */
ALWAYS_INLINE void w16_rows(int mr, const float *x, size_t ldx, float (*w)[GEMM_NR], int k, bool first, bool last,
                            float (*part)[GEMM_NR], float (*sum)[GEMM_NR], const float *scale)
{
    V acc[GEMM_MR][MAX_NV];
    if (first)
        acc_zero(mr, acc);
    else
        acc_load(mr, acc, part);
    gemm_chain(mr, ELEM_F32, acc, x, ldx, (const uint8_t *)w, k);
    if (last)
        w16_scale(mr, sum, acc, scale);
    else
        acc_store(mr, part, acc);
}

#define W16_CASE(name, mr)                                                                                             \
    case mr:                                                                                                           \
        w16_rows(mr < GEMM_MR ? mr : GEMM_MR, x + (size_t)r * a->ldx + from, a->ldx, w, to - from, from == begin,      \
                 to == end, part + r, sum + r, p.scale);                                                               \
        break;

/* Rows that begin at x; weights become floats for all of them. */
ALWAYS_INLINE void w16_block(struct w16_form form, const struct gemm_w8a16_args *a, const float *x, int rows,
                             struct w16_panel p, float (*sum)[GEMM_NR])
{
    _Alignas(64) float w[W16_BLOCK][GEMM_NR], part[ROW_BLOCK][GEMM_NR];
    for (int begin = 0, end; begin < a->k; begin = end, p.scale += GEMM_NR, p.zero += form.zero ? GEMM_NR : 0) {
        end = a->k - begin < a->group_size ? a->k : begin + a->group_size;
        for (int from = begin, to; from < end; from = to) {
            to = end - from < W16_BLOCK ? end : from + W16_BLOCK;
            w16_floats(form, w, p.w, p.zero, from, to);
            for (int r = 0, mr; r < rows; r += mr) {
                mr = share(rows - r, GEMM_MR);
                switch (mr) {
                    EACH_MR(W16_CASE, )
                }
            }
        }
    }
}

ALWAYS_INLINE void w16_panels(struct w16_form form, const struct gemm_w8a16_args *a, int panel_begin, int panel_end)
{
    _Alignas(64) float sum[ROW_BLOCK][GEMM_NR];
    int groups = (a->k + a->group_size - 1) / a->group_size;
    size_t panel_bytes = form.nibbles ? (size_t)(a->k + 7) / 8 * 4 * GEMM_NR : (size_t)a->k * GEMM_NR;
    for (int r0 = 0; r0 < a->rows; r0 += ROW_BLOCK) {
        int rows = a->rows - r0 < ROW_BLOCK ? a->rows - r0 : ROW_BLOCK;
        const float *x = a->x + (size_t)r0 * a->ldx;
        for (int p = panel_begin; p < panel_end; p++) {
            size_t at = (size_t)p * (size_t)groups * GEMM_NR;
            struct w16_panel panel = {a->w + (size_t)p * panel_bytes, a->scale + at, form.zero ? a->zero + at : NULL};
            memset(sum, 0, (size_t)rows * sizeof(sum[0]));
            if (rows == 1)
                w16_direct(1, form, a, x, panel, sum);
            else if (rows == 2)
                w16_direct(2, form, a, x, panel, sum);
            else
                w16_block(form, a, x, rows, panel, sum);
            for (int r = 0; r < rows; r++)
                gemm_row_store(a->y + (size_t)(r0 + r) * a->ldy, sum[r], p * GEMM_NR, a->n, a->bias);
        }
    }
}

void KFN(gemm_w8a16)(const struct gemm_w8a16_args *a, int panel_begin, int panel_end)
{
    if (a->zero)
        w16_panels((struct w16_form){.zero = true}, a, panel_begin, panel_end);
    else
        w16_panels((struct w16_form){0}, a, panel_begin, panel_end);
}

void KFN(gemm_w4a16)(const struct gemm_w8a16_args *a, int panel_begin, int panel_end)
{
    if (a->zero)
        w16_panels((struct w16_form){.nibbles = true, .zero = true}, a, panel_begin, panel_end);
    else
        w16_panels((struct w16_form){.nibbles = true}, a, panel_begin, panel_end);
}
