/* Kernels for AVX-512 with VNNI: dot products of four u8 x s8 pairs without saturation (vpdpbusd). Everything else is
 * the AVX-512 tier's. Integer sums are exact, so the order of the dots is free; the float parts follow ref/. */
#define KFN(name) name##_avx512vnni
#define KERNEL_ISA CPU_ISA_AVX512VNNI
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/x86/avx512.h"
#include "kernel/x86/avx512_rows.h"
#include "kernel/simd/float.h"

/* Four products each, added to acc. Assembly, because gcc 12 copies an accumulator before it lets the intrinsic
 * overwrite it. */
#define DPBUSD(acc, u8, s8) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8))

#include "kernel/x86/avx512vnni_attention.h"
#include "kernel/x86/avx512vnni_gemm.h"
