/* The table of one tier, and the prototypes of its kernels; the first thing that the file of a tier includes, after it
 * has defined KFN(name), the name of a kernel in this tier, and KERNEL_ISA; and KERNEL_ATTN_ROWS, if it has its own. */
#include "kernel/ops.h"

#ifndef KERNEL_ATTN_ROWS
#define KERNEL_ATTN_ROWS ATTN_CHUNK_ROWS
#endif

#define KERNEL(name, args) void KFN(name) args;
#include "kernel/kernels.def"
#undef KERNEL

#define KERNEL(name, args) .name = KFN(name),
const struct kernel_ops KFN(kernel_ops) = {
    .isa = KERNEL_ISA,
    .attn_rows = KERNEL_ATTN_ROWS,
#include "kernel/kernels.def"
};
#undef KERNEL
