/* Deterministic math: see detmath.h. Series and argument reduction as in any numerical textbook (Cody and Waite). */
#include "base/detmath.h"

#include <stdint.h>
#include <string.h>

/* ln 2 and pi/2 in pieces whose leading parts have trailing zero bits, so that n * part is exact. */
static const double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33;
static const double pio2_1 = 0x1.921fb544p0, pio2_2 = 0x1.0b4611a6p-34, pio2_3 = 0x1.3198a2e037073p-69;

static double nearest(double x)
{
    const double magic = 0x1.8p52;
    return (x + magic) - magic;
}

double det_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    /* log m = 2 atanh(s), s = (m-1)/(m+1), |s| <= 0.1716 */
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int k = 21; k >= 3; k -= 2)
        sum = (sum + 1.0 / k) * z;
    return e * ln2_hi + (2 * s + (2 * s * sum + e * ln2_lo));
}

double det_exp(double x)
{
    double n = nearest(x * 1.4426950408889634);
    double r = (x - n * ln2_hi) - n * ln2_lo;
    double sum = 1;
    for (int k = 13; k >= 1; k--)
        sum = 1 + sum * r / k;
    uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, 8);
    return sum * scale;
}

void det_sincos(double x, double *ret_sin, double *ret_cos)
{
    double n = nearest(x * 0.63661977236758134);
    double r = ((x - n * pio2_1) - n * pio2_2) - n * pio2_3;
    double z = r * r, s = 0, c = 0;
    for (int k = 17; k >= 3; k -= 2)
        s = (1 - s) * z / (k * (k - 1));
    for (int k = 16; k >= 2; k -= 2)
        c = (1 - c) * z / (k * (k - 1));
    s = r - r * s;
    c = 1 - c;
    switch ((int64_t)n & 3) {
    case 0:
        *ret_sin = s, *ret_cos = c;
        break;
    case 1:
        *ret_sin = c, *ret_cos = -s;
        break;
    case 2:
        *ret_sin = -s, *ret_cos = -c;
        break;
    default:
        *ret_sin = -c, *ret_cos = s;
    }
}
