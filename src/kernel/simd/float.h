/* The float GEMM and attention of one tier, written once over a vector type; the file that includes this defines the
 * macros of its tier (V, VL, V_*) and KFN, and is compiled with its flags. Vectors run over output columns, keys or
 * channels, never along a reduction, so every output is the chain that ref/ writes down. */

#define NV (GEMM_NR / VL) /* vectors of a panel row, and of a tile of keys */

/* Rows of the next pass when rows are left: no more than mr, and as many in each pass. */
static inline int share(int rows, int mr)
{
    int passes = (rows + mr - 1) / mr;
    return (rows + passes - 1) / passes;
}

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

/* q.k of one tile: NV vectors of keys for up to four heads, one chain over the channels each. */
#define ATTN(name, load, load1, type)                                                                                  \
    static inline __attribute__((always_inline)) void name##_dots(float(*p)[ATTN_TILE], const float *q, size_t d,      \
                                                                  const uint8_t *k, int heads)                         \
    {                                                                                                                  \
        V acc[4][NV];                                                                                                  \
        for (int h = 0; h < heads; h++)                                                                                \
            for (int v = 0; v < NV; v++)                                                                               \
                acc[h][v] = V_zero();                                                                                  \
        for (size_t i = 0; i < d; i++)                                                                                 \
            for (int v = 0; v < NV; v++) {                                                                             \
                V kv = load(k + (i * ATTN_TILE + (size_t)v * VL) * sizeof(type));                                      \
                for (int h = 0; h < heads; h++)                                                                        \
                    acc[h][v] = V_fma(V_broadcast(q[(size_t)h * d + i]), kv, acc[h][v]);                               \
            }                                                                                                          \
        for (int h = 0; h < heads; h++)                                                                                \
            for (int v = 0; v < NV; v++)                                                                               \
                V_store(p[h] + v * VL, acc[h][v]);                                                                     \
    }                                                                                                                  \
    static inline __attribute__((always_inline)) void name##_value(float *out, const float *p, const uint8_t *v,       \
                                                                   size_t d, int lo, int hi, float correction)         \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        V c = V_broadcast(correction);                                                                                 \
        for (; i + 4 * VL <= d; i += 4 * VL) {                                                                         \
            V acc[4];                                                                                                  \
            for (int u = 0; u < 4; u++)                                                                                \
                acc[u] = V_mul(V_load(out + i + (size_t)u * VL), c);                                                   \
            for (int t = lo; t < hi; t++) {                                                                            \
                V pv = V_broadcast(p[t]);                                                                              \
                for (int u = 0; u < 4; u++)                                                                            \
                    acc[u] = V_fma(pv, load(v + ((size_t)t * d + i + (size_t)u * VL) * sizeof(type)), acc[u]);         \
            }                                                                                                          \
            for (int u = 0; u < 4; u++)                                                                                \
                V_store(out + i + (size_t)u * VL, acc[u]);                                                             \
        }                                                                                                              \
        for (; i + VL <= d; i += VL) {                                                                                 \
            V acc = V_mul(V_load(out + i), c);                                                                         \
            for (int t = lo; t < hi; t++)                                                                              \
                acc = V_fma(V_broadcast(p[t]), load(v + ((size_t)t * d + i) * sizeof(type)), acc);                     \
            V_store(out + i, acc);                                                                                     \
        }                                                                                                              \
        for (; i < d; i++) {                                                                                           \
            float acc = out[i] * correction;                                                                           \
            for (int t = lo; t < hi; t++)                                                                              \
                acc = fmaf(p[t], load1(((const type *)v)[(size_t)t * d + i]), acc);                                    \
            out[i] = acc;                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_token(const struct attn_args *a, int token)                                                     \
    {                                                                                                                  \
        size_t d = (size_t)a->d;                                                                                       \
        const float *q0 = a->q + (size_t)token * a->ldq;                                                               \
        float *out = a->out + (size_t)token * a->ldout;                                                                \
        int64_t begin = attn_begin(a, token), end = attn_end(a, token);                                                \
        float max[ATTN_MAX_ROWS], sum[ATTN_MAX_ROWS];                                                                  \
        for (int g = 0; g < a->group; g++) {                                                                           \
            max[g] = -INFINITY;                                                                                        \
            sum[g] = 0;                                                                                                \
        }                                                                                                              \
        memset(out, 0, (size_t)a->group *d * sizeof(float));                                                           \
        for (int64_t t0 = begin / ATTN_TILE * ATTN_TILE; t0 < end; t0 += ATTN_TILE) {                                  \
            size_t block = attn_block(a, t0);                                                                          \
            size_t at = (size_t)(t0 % a->block_size) * d * sizeof(type);                                               \
            const uint8_t *k = a->k + block + at, *v = a->v + block + at;                                              \
            int lo = begin > t0 ? (int)(begin - t0) : 0;                                                               \
            int hi = end - t0 < ATTN_TILE ? (int)(end - t0) : ATTN_TILE;                                               \
            for (int g0 = 0; g0 < a->group; g0 += 4) {                                                                 \
                float p[4][ATTN_TILE];                                                                                 \
                const float *q = q0 + (size_t)g0 * d;                                                                  \
                int heads = a->group - g0 < 4 ? a->group - g0 : 4;                                                     \
                if (heads == 4)                                                                                        \
                    name##_dots(p, q, d, k, 4);                                                                        \
                else if (heads == 3)                                                                                   \
                    name##_dots(p, q, d, k, 3);                                                                        \
                else if (heads == 2)                                                                                   \
                    name##_dots(p, q, d, k, 2);                                                                        \
                else                                                                                                   \
                    name##_dots(p, q, d, k, 1);                                                                        \
                for (int h = 0; h < heads; h++) {                                                                      \
                    int g = g0 + h;                                                                                    \
                    float correction = softmax_tile(p[h], a->scale, lo, hi, &max[g], &sum[g]);                         \
                    name##_value(out + (size_t)g * d, p[h], v, d, lo, hi, correction);                                 \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int g = 0; g < a->group; g++) {                                                                           \
            float inv = 1.0f / sum[g];                                                                                 \
            for (size_t i = 0; i < d; i++)                                                                             \
                out[(size_t)g * d + i] *= inv;                                                                         \
        }                                                                                                              \
    }                                                                                                                  \
    void KFN(name)(const struct attn_args *a)                                                                          \
    {                                                                                                                  \
        for (int i = 0; i < a->tokens; i++)                                                                            \
            name##_token(a, i);                                                                                        \
    }

/* Dots of a tile to unnormalised probabilities, zero outside [lo, hi); returns the correction of what came before. */
static inline float softmax_tile(float *p, float scale, int lo, int hi, float *max, float *sum)
{
    float new_max = *max, lane[16];
    for (int t = 0; t < ATTN_TILE; t++)
        p[t] = t >= lo && t < hi ? p[t] * scale : -INFINITY;
    for (int t = 0; t < ATTN_TILE; t++)
        new_max = p[t] > new_max ? p[t] : new_max;
    for (int t = 0; t < ATTN_TILE; t++) {
        float e = exp_f32(p[t] - new_max);
        p[t] = t >= lo && t < hi ? e : 0.0f;
    }
    for (int t = 0; t < 16; t++)
        lane[t] = p[t] + p[t + 16];
    float correction = exp_f32(*max - new_max);
    *sum = fmaf(*sum, correction, lanes_sum(lane));
    *max = new_max;
    return correction;
}

#define F32_SAME(x) (x)
GEMM(gemm_bf16, V_load_bf16, 2)
GEMM(gemm_f16, V_load_f16, 2)
GEMM(gemm_f32, V_load_f32, 4)
ATTN(attn_bf16, V_load_bf16, f32_from_bf16, uint16_t)
ATTN(attn_f16, V_load_f16, f32_from_f16, uint16_t)
ATTN(attn_f32, V_load_f32, F32_SAME, float)

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
