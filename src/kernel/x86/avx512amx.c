/* Kernels for AMX with INT8: the GEMM in tiles. Everything else is the AVX-512 VNNI tier's. */
#define KFN(name) name##_avx512amx
#define KERNEL_ISA CPU_ISA_AVX512AMX
#define KERNEL_ATTN_ROWS 64 /* whole tiles */
#define KERNEL_OWN_DOTS
#define KERNEL_OWN_W4
#define KERNEL_OWN_ROWS
#include "kernel/tier.h"

#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#define C8_TILES
#include "kernel/x86/avx512vnni.h"
#include "kernel/x86/avx512amx_gemm.h"

void KFN(gemm_i8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    if (a->rows > I8_PAIR_ROWS)
        amx_gemm(a, false, panel_begin, panel_end);
    else
        i8_gemm(a, panel_begin, panel_end);
}

void KFN(gemm_w4a8)(const struct gemm_i8_args *a, int panel_begin, int panel_end)
{
    if (a->rows > I8_MR)
        amx_gemm(a, true, panel_begin, panel_end);
    else
        i4_gemm(a, panel_begin, panel_end);
}
