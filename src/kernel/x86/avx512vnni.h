/* What the tiers with AVX-512 VNNI share: all kernels that are not ref's text. */
#include "kernel/x86/avx512.h"
#include "kernel/x86/avx512_rows.h"
#include "kernel/simd/quant.h"
#include "kernel/simd/scan.h"
#include "kernel/simd/float.h"

/* Four products each, added to acc. Assembly, because gcc 12 copies an accumulator before it lets the intrinsic
 * overwrite it. */
#define DPBUSD(acc, u8, s8) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8))

/* Asks for a line; once: it is used once, and needs no place in L2, nor time to leave it. A core of Zen 5
 * reads 43 GB/s that way, 38 to 41 otherwise. */
ALWAYS_INLINE void ask_for(const void *p, bool once)
{
    if (once)
        _mm_prefetch(p, _MM_HINT_NTA);
    else
        _mm_prefetch(p, _MM_HINT_T0);
}

#include "kernel/x86/avx512vnni_attention.h"
#include "kernel/x86/avx512vnni_gemm.h"
