/* The dots of the INT8 GEMM (simd/gemm_i8.h) with usmmla; part of i8mm.c, by way of it. The panel holds four of k a
 * column; two such fours of a pair of columns, zipped, are the eight of k that usmmla wants of each. */
#define MM_PAIRS 8 /* pairs of columns at once: with three pairs of rows 24 accumulators */

/* Eight of k (whole), or the last four and zeros, of two rows; zeros where there is no second row. */
ALWAYS_INLINE uint8x16_t mm_rows(const uint8_t *x, size_t ldx, bool two, bool whole)
{
    uint8_t pair[16] = {0};
    if (whole)
        return vcombine_u8(vld1_u8(x), two ? vld1_u8(x + ldx) : vdup_n_u8(0));
    memcpy(pair, x, 4);
    if (two)
        memcpy(pair + 8, x + ldx, 4);
    return vld1q_u8(pair);
}

/* Adds eight of k (whole), or the last four. nibbles: two weights in a byte, which are the two fours. */
ALWAYS_INLINE void mm_step(int mr, bool nibbles, bool whole, int32x4_t (*acc)[MM_PAIRS], const uint8_t *x, size_t ldx,
                           const int8_t *w)
{
    uint8x16_t rows[I8_MR / 2];
    UNROLL
    for (int r = 0; r < (mr + 1) / 2; r++)
        rows[r] = mm_rows(x + (size_t)(2 * r) * ldx, ldx, 2 * r + 1 < mr, whole);
    UNROLL
    for (int c = 0; c < MM_PAIRS; c += 2) {
        I d = I_load(w + c * 8), four = i8_weights_of(d, nibbles ? W_LOW : W_BYTES), next = {0};
        if (nibbles)
            next = i8_weights_of(d, W_HIGH);
        else if (whole)
            next = I_load(w + c * 8 + 4 * GEMM_NR);
        int32x4_t a = (int32x4_t)four, b = (int32x4_t)next;
        int8x16_t even = vreinterpretq_s8_s32(vzip1q_s32(a, b)), odd = vreinterpretq_s8_s32(vzip2q_s32(a, b));
        UNROLL
        for (int r = 0; r < (mr + 1) / 2; r++) {
            acc[r][c] = vusmmlaq_s32(acc[r][c], rows[r], even);
            acc[r][c + 1] = vusmmlaq_s32(acc[r][c + 1], rows[r], odd);
        }
    }
}

/* One row: no use of a second one's half of each product. */
ALWAYS_INLINE void mm_one(bool nibbles, const uint8_t *x, const int8_t *w, int k4, int32_t *sum)
{
    I acc[GEMM_NR / VL];
    UNROLL
    for (int v = 0; v < GEMM_NR / VL; v++)
        acc[v] = I_load(sum + v * VL);
    NO_UNROLL
    for (int i = 0; i < k4; i += nibbles ? 8 : 4, w += 4 * GEMM_NR) {
        I first = U_of(I_broadcast4(x + i), 0), second = nibbles ? U_of(I_broadcast4(x + i + 4), 0) : first;
        UNROLL
        for (int v = 0; v < GEMM_NR / VL; v++) {
            I d = I_load(w + v * VL * 4);
            DOT(acc[v], first, S_of(i8_weights_of(d, nibbles ? W_LOW : W_BYTES), 0));
            if (nibbles)
                DOT(acc[v], second, S_of(i8_weights_of(d, W_HIGH), 0));
        }
    }
    UNROLL
    for (int v = 0; v < GEMM_NR / VL; v++)
        I_store(sum + v * VL, acc[v]);
}

/* Adds mr rows of x times a panel to sum (mr, GEMM_NR). */
ALWAYS_INLINE void i8_dots(int mr, bool nibbles, const uint8_t *x, size_t ldx, const int8_t *w, int k4,
                           int32_t (*sum)[GEMM_NR])
{
    if (mr == 1) {
        mm_one(nibbles, x, w, k4, sum[0]);
        return;
    }
    for (int j = 0; j < GEMM_NR; j += 2 * MM_PAIRS) {
        int32x4_t acc[I8_MR / 2][MM_PAIRS]; /* two rows by two columns each */
        const int8_t *wj = w + j * 4;
        UNROLL
        for (int r = 0; r < (mr + 1) / 2; r++) {
            UNROLL
            for (int c = 0; c < MM_PAIRS; c++)
                acc[r][c] = vdupq_n_s32(0);
        }
        int i = 0;
        NO_UNROLL
        for (; i + 8 <= k4; i += 8, wj += (nibbles ? 4 : 8) * GEMM_NR)
            mm_step(mr, nibbles, true, acc, x + i, ldx, wj);
        if (i < k4)
            mm_step(mr, nibbles, false, acc, x + i, ldx, wj);
        UNROLL
        for (int r = 0; r < mr; r++) {
            UNROLL
            for (int c = 0; c < MM_PAIRS; c++) {
                int32_t *to = sum[r] + j + 2 * c;
                int32x2_t pair = r % 2 ? vget_high_s32(acc[r / 2][c]) : vget_low_s32(acc[r / 2][c]);
                vst1_s32(to, vadd_s32(vld1_s32(to), pair));
            }
        }
    }
}
