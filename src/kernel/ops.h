/* The kernel table: what the forward pass and the sampler compute with. One table for each tier of instructions, all
 * bit-identical (docs/KERNELS.md). Kernels are pure: they own nothing and run on any thread. */
#ifndef OCTAVO_KERNEL_OPS_H
#define OCTAVO_KERNEL_OPS_H

#include "base/cpu.h"

#include <stddef.h>
#include <stdint.h>

#define GEMM_NR 32        /* output columns of a packed weight panel */
#define ATTN_TILE 32      /* keys of an attention tile; tiles begin at multiples of it */
#define ATTN_MAX_GROUP 64 /* query heads that share one KV head in one call */

struct attn_args {
    float *out;     /* (group, d) */
    const float *q; /* (group, d) */
    int group, d;
    float scale;                /* of q.k, 1/sqrt(d) */
    int64_t begin, end;         /* absolute positions of the keys seen */
    const int32_t *block_table; /* block of position p: block_table[p / block_size] */
    int block_size;             /* a multiple of ATTN_TILE */
    const uint8_t *k, *v;       /* this layer and KV head in block 0 */
    size_t block_stride;        /* bytes from one block to the next */
};

struct kernel_ops {
    enum cpu_isa isa;
#define KERNEL(name, args) void(*name) args;
#include "kernel/kernels.def"
#undef KERNEL
};

#define KERNEL(name, args) void name##_ref args;
#include "kernel/kernels.def"
#undef KERNEL
#define KERNEL(name, args) void name##_avx2 args;
#include "kernel/kernels.def"
#undef KERNEL
#define KERNEL(name, args) void name##_avx512 args;
#include "kernel/kernels.def"
#undef KERNEL

/* The table of a tier; of the best one at or below it that this build has. */
const struct kernel_ops *kernel_ops_get(enum cpu_isa isa);

/* Packs rows [row_begin, row_begin + rows) of a weight (n, k), row-major, elem_bytes each, into panels of GEMM_NR
 * columns: element (j, i) goes to ((j / NR) * k + i) * NR + j % NR. src need not be aligned. dst must be zeroed. */
void gemm_pack(void *dst, const void *src, int elem_bytes, int row_begin, int rows, int k);
/* Elements of the packed form: n rounded up to GEMM_NR, times k. */
static inline size_t gemm_packed_elems(int n, int k)
{
    return (size_t)((n + GEMM_NR - 1) / GEMM_NR) * GEMM_NR * (size_t)k;
}

#endif
