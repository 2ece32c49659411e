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

#include "kernel/x86/avx512vnni.h"

void KFN(gemm_i8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    i8_gemm(a, panel_begin, panel_end);
}

void KFN(gemm_w4a8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    i4_gemm(a, panel_begin, panel_end);
}
