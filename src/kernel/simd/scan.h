/* What the sampler reads logits with, of one tier over its vectors (simd/math.h). */
#include "kernel/simd/math.h"

void KFN(block_max)(float *y, const float *x, int n)
{
    for (int b = 0; b * SCAN_BLOCK < n; b++, x += SCAN_BLOCK) {
        int len = n - b * SCAN_BLOCK < SCAN_BLOCK ? n - b * SCAN_BLOCK : SCAN_BLOCK, i = 0;
        float lane[VL], max = -INFINITY;
        V most[2] = {V_broadcast(-INFINITY), V_broadcast(-INFINITY)};
        I nan = {0};
        for (; i + 2 * VL <= len; i += 2 * VL) {
            V a = V_load(x + i), c = V_load(x + i + VL);
            most[0] = V_max(a, most[0]);
            most[1] = V_max(c, most[1]);
            nan |= (I)(a != a) | (I)(c != c);
        }
        bool any = I_sum_across(nan) != 0; /* at most VL times -1 */
        V_store(lane, V_max(most[0], most[1]));
        for (int j = 0; j < VL; j++)
            max = lane[j] > max ? lane[j] : max;
        for (; i < len; i++) {
            max = x[i] > max ? x[i] : max;
            any = any || x[i] != x[i];
        }
        y[b] = any ? NAN : max + 0.0f;
    }
}
