/* Kernels for AVX-512 (F, BW, DQ, VL). Row kernels are ref's own text, compiled with this tier's flags. */
#define KFN(name) name##_avx512
#define KERNEL_OWN_ROWS
#include "kernel/ref/elementwise.c"
#include "kernel/ref/int8.c"
#include "kernel/ref/attention_c8.c"
#undef F32_SAME

#include "kernel/x86/avx512.h"
#include "kernel/x86/avx512_rows.h"
#include "kernel/x86/vector.h"
