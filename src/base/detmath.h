/* Transcendental functions with one result everywhere. libm picks an implementation by CPU (with or without FMA), so
 * its last bit may differ between machines; these are written out, compiled without contraction, and so do not. All
 * are accurate to about 1e-15 relative, far below the float32 results made from them. */
#ifndef OCTAVO_BASE_DETMATH_H
#define OCTAVO_BASE_DETMATH_H

double det_log(double x);                                    /* x > 0, normal */
double det_exp(double x);                                    /* |x| <= 700 */
void det_sincos(double x, double *ret_sin, double *ret_cos); /* |x| < 2^20 for full accuracy */

#endif
