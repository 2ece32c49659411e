/* What the tiers with AVX-512 VNNI share: all kernels that are not ref's text. */
#include "kernel/x86/avx512.h"
#include "kernel/x86/avx512_rows.h"
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"
#include "kernel/simd/float.h"
#include "kernel/simd/fetch.h"

/* Four products each, added to acc. Assembly, because gcc 12 copies an accumulator before it lets the intrinsic
 * overwrite it. */
#define DPBUSD(acc, u8, s8) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8))

#include "kernel/x86/avx512vnni_attention.h"
#include "kernel/x86/avx512vnni_gemm.h"
