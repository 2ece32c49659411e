/* The float GEMM of one tier, and the one of float activations and integer weights: see float.h. */

/* X(name, mr) for each number of rows that a pass may have; numbers beyond GEMM_MR are never asked for. */
#define EACH_MR(X, name) X(name, 1) X(name, 2) X(name, 3) X(name, 4) X(name, 5) X(name, 6) X(name, 7) X(name, 8)
_Static_assert(GEMM_MR <= 8, "EACH_MR ends at 8");
#define GEMM_CASE(name, mr)                                                                                            \
    case mr:                                                                                                           \
        name##_rows(mr < GEMM_MR ? mr : GEMM_MR, y, ldy, x, ldx, wp, k, j0, cols, bias);                               \
        break;

/* Rows at once: as many as keep accumulators, weights and one broadcast in registers. mr is a constant after inlining.
 */
#define GEMM(name, load, elem)                                                                                         \
    static inline                                                                                                      \
        __attribute__((always_inline)) void name##_rows(int mr, float *y, size_t ldy, const float *x, size_t ldx,      \
                                                        const uint8_t *wp, int k, int j0, int cols, const float *bias) \
    {                                                                                                                  \
        V acc[GEMM_MR][NV];                                                                                            \
        for (int r = 0; r < mr; r++)                                                                                   \
            for (int v = 0; v < NV; v++)                                                                               \
                acc[r][v] = V_zero();                                                                                  \
        for (int i = 0; i < k; i++) {                                                                                  \
            V wv[NV];                                                                                                  \
            for (int v = 0; v < NV; v++)                                                                               \
                wv[v] = load(wp + ((size_t)i * GEMM_NR + (size_t)v * VL) * elem);                                      \
            for (int r = 0; r < mr; r++) {                                                                             \
                V xv = V_broadcast(x[(size_t)r * ldx + (size_t)i]);                                                    \
                for (int v = 0; v < NV; v++)                                                                           \
                    acc[r][v] = V_fma(xv, wv[v], acc[r][v]);                                                           \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < mr; r++) {                                                                                 \
            float *out = y + (size_t)r * ldy + (size_t)j0, tmp[GEMM_NR];                                               \
            for (int v = 0; v < NV; v++)                                                                               \
                V_store(tmp + v * VL, acc[r][v]);                                                                      \
            if (bias)                                                                                                  \
                for (int j = 0; j < cols; j++)                                                                         \
                    out[j] = bias[j0 + j] + tmp[j];                                                                    \
            else                                                                                                       \
                memcpy(out, tmp, (size_t)cols * sizeof(float));                                                        \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_some(int mr, float *y, size_t ldy, const float *x, size_t ldx, const uint8_t *wp, int k,        \
                            int j0, int cols, const float *bias)                                                       \
    {                                                                                                                  \
        switch (mr) {                                                                                                  \
            EACH_MR(GEMM_CASE, name)                                                                                   \
        }                                                                                                              \
    }                                                                                                                  \
    void KFN(name)(float *y, size_t ldy, const float *x, size_t ldx, int rows, const void *w, int k, int n,            \
                   int panel_begin, int panel_end, const float *bias)                                                  \
    {                                                                                                                  \
        for (int r0 = 0; r0 < rows; r0 += ROW_BLOCK) {                                                                 \
            int r1 = r0 + ROW_BLOCK < rows ? r0 + ROW_BLOCK : rows;                                                    \
            for (int p = panel_begin; p < panel_end; p++) {                                                            \
                const uint8_t *wp = (const uint8_t *)w + (size_t)p * (size_t)k * GEMM_NR * elem;                       \
                int j0 = p * GEMM_NR, cols = n - j0 < GEMM_NR ? n - j0 : GEMM_NR;                                      \
                for (int r = r0, mr; r < r1; r += mr) {                                                                \
                    mr = share(r1 - r, GEMM_MR);                                                                       \
                    name##_some(mr, y + (size_t)r * ldy, ldy, x + (size_t)r * ldx, ldx, wp, k, j0, cols, bias);        \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

#define ROW_BLOCK 64 /* rows of x that stay in L2 while the panels go by */

GEMM(gemm_bf16, V_load_bf16, 2)
GEMM(gemm_f16, V_load_f16, 2)
GEMM(gemm_f32, V_load_f32, 4)

/* ---- integer weights, float activations ---- */

#define W8_MR (GEMM_MR > 1 ? GEMM_MR / 2 : 1) /* a row has two sets of sums: of a group, and of all */

static inline __attribute__((always_inline)) void w8_rows(int mr, const struct gemm_w8a16_args *a, int r0, int panel)
{
    int groups = (a->k + a->group_size - 1) / a->group_size;
    size_t column = (size_t)panel * GEMM_NR, cols = (size_t)a->n - column < GEMM_NR ? (size_t)a->n - column : GEMM_NR;
    const int8_t *w = a->w + column * (size_t)a->k;
    const float *x = a->x + (size_t)r0 * a->ldx;
    V acc[W8_MR][NV];
    for (int r = 0; r < mr; r++)
        for (int v = 0; v < NV; v++)
            acc[r][v] = V_zero();
    for (int g = 0; g < groups; g++) {
        size_t at = (column * (size_t)groups) + (size_t)g * GEMM_NR;
        int end = (g + 1) * a->group_size < a->k ? (g + 1) * a->group_size : a->k;
        V part[W8_MR][NV], zero[NV];
        for (int v = 0; v < NV; v++)
            zero[v] = a->zero ? V_load(a->zero + at + v * VL) : V_zero();
        for (int r = 0; r < mr; r++)
            for (int v = 0; v < NV; v++)
                part[r][v] = V_zero();
        for (int i = g * a->group_size; i < end; i++, w += GEMM_NR) {
            V wv[NV];
            for (int v = 0; v < NV; v++)
                wv[v] = V_load_i8(w + v * VL) - zero[v];
            for (int r = 0; r < mr; r++) {
                V xv = V_broadcast(x[(size_t)r * a->ldx + (size_t)i]);
                for (int v = 0; v < NV; v++)
                    part[r][v] = V_fma(xv, wv[v], part[r][v]);
            }
        }
        for (int v = 0; v < NV; v++) {
            V scale = V_load(a->scale + at + v * VL);
            for (int r = 0; r < mr; r++)
                acc[r][v] = V_fma(scale, part[r][v], acc[r][v]);
        }
    }
    for (int r = 0; r < mr; r++) {
        float *y = a->y + (size_t)(r0 + r) * a->ldy + column, tmp[GEMM_NR];
        for (int v = 0; v < NV; v++)
            V_store(tmp + v * VL, acc[r][v]);
        for (size_t j = 0; j < cols; j++)
            y[j] = a->bias ? a->bias[column + j] + tmp[j] : tmp[j];
    }
}

#define W8_CASE(name, mr)                                                                                              \
    case mr:                                                                                                           \
        w8_rows(mr < W8_MR ? mr : W8_MR, a, r, p);                                                                     \
        break;

void KFN(gemm_w8a16)(const struct gemm_w8a16_args *a, int panel_begin, int panel_end)
{
    for (int r0 = 0; r0 < a->rows; r0 += ROW_BLOCK) {
        int r1 = r0 + ROW_BLOCK < a->rows ? r0 + ROW_BLOCK : a->rows;
        for (int p = panel_begin; p < panel_end; p++)
            for (int r = r0, mr; r < r1; r += mr) {
                mr = share(r1 - r, W8_MR);
                switch (mr) {
                    EACH_MR(W8_CASE, )
                }
            }
    }
}
