/* The table of one tier, and the prototypes of its kernels; the first thing that the file of a tier includes, after it
 * has defined KFN(name), the name of a kernel in this tier, and KERNEL_ISA. */
#include "kernel/ops.h"

#define KERNEL(name, args) void KFN(name) args;
#include "kernel/kernels.def"
#undef KERNEL

#define KERNEL(name, args) .name = KFN(name),
const struct kernel_ops KFN(kernel_ops) = {
    .isa = KERNEL_ISA,
#include "kernel/kernels.def"
};
#undef KERNEL
