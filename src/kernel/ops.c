/* Dispatch and packing: see ops.h. */
#include "kernel/ops.h"

#include <string.h>

#define KERNEL(name, args) .name = name##_ref,
static const struct kernel_ops ops_ref = {
    .isa = CPU_ISA_REF,
    .attn_rows = ATTN_CHUNK_ROWS,
#include "kernel/kernels.def"
};
#undef KERNEL

static const struct kernel_ops *const tables[CPU_ISA_COUNT] = {
    [CPU_ISA_REF] = &ops_ref,
#if defined(__x86_64__)
    [CPU_ISA_AVX2] = &kernel_ops_avx2,
    [CPU_ISA_AVX512] = &kernel_ops_avx512,
    [CPU_ISA_AVXVNNI] = &kernel_ops_avxvnni,
    [CPU_ISA_AVX512VNNI] = &kernel_ops_avx512vnni,
    [CPU_ISA_AVX512AMX] = &kernel_ops_avx512amx,
#elif defined(__aarch64__)
    [CPU_ISA_DOTPROD] = &kernel_ops_dotprod,
    [CPU_ISA_I8MM] = &kernel_ops_i8mm,
#endif
};

const struct kernel_ops *kernel_ops_get(enum cpu_isa isa)
{
    return tables[isa] ? tables[isa] : &ops_ref;
}

void gemm_pack(void *dst, const void *src, int elem_bytes, int row_begin, int rows, int k)
{
    size_t e = (size_t)elem_bytes;
    for (int r = 0; r < rows; r++) {
        size_t j = (size_t)(row_begin + r);
        uint8_t *to = (uint8_t *)dst + (j / GEMM_NR * (size_t)k * GEMM_NR + j % GEMM_NR) * e;
        const uint8_t *from = (const uint8_t *)src + (size_t)r * (size_t)k * e;
        if (e == 2)
            for (size_t i = 0; i < (size_t)k; i++)
                memcpy(to + i * GEMM_NR * 2, from + i * 2, 2);
        else
            for (size_t i = 0; i < (size_t)k; i++)
                memcpy(to + i * GEMM_NR * 4, from + i * 4, 4);
    }
}
