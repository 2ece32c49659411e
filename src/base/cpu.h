/* What the machine can do: instruction sets and usable cores. Asked once at start; any thread. */
#ifndef OCTAVO_BASE_CPU_H
#define OCTAVO_BASE_CPU_H

#include <stdbool.h>

/* Tiers of kernels, of each architecture the better after the worse. A tier need not contain the one before it: a CPU
 * may have AVX-VNNI without AVX-512, and AVX-512 VNNI without AVX-VNNI. */
enum cpu_isa {
    CPU_ISA_REF,        /* plain C */
    CPU_ISA_AVX2,       /* AVX2, FMA, F16C */
    CPU_ISA_AVX512,     /* and AVX-512 F, BW, DQ, VL */
    CPU_ISA_AVXVNNI,    /* AVX2's, and u8 x s8 dot products of 256 bits */
    CPU_ISA_AVX512VNNI, /* AVX512's, and such dot products of 512 bits */
    CPU_ISA_AVX512AMX,  /* AVX512VNNI's, and AMX tiles of INT8 */
    CPU_ISA_DOTPROD,    /* Armv8.2 dot products: s8 x s8 */
    CPU_ISA_I8MM,       /* and u8 x s8, and matrices of them */
    CPU_ISA_COUNT,
};

/* "auto", the names of all tiers, those of other architectures too, and NULL. */
extern const char *const cpu_isa_choices[];

bool cpu_isa_supported(enum cpu_isa isa); /* by this CPU and its operating system */
enum cpu_isa cpu_isa_best(void);
const char *cpu_isa_name(enum cpu_isa isa);
int cpu_isa_parse(const char *name, enum cpu_isa *ret_isa); /* 0, or -1 for an unknown name; "auto" is the best */
int cpu_num_usable(void);                                   /* cores this process may run on */

/* How to ask for memory that is read once, ahead of its use. It changes no results; known before main; tests set it. */
enum cpu_ahead {
    CPU_AHEAD_NEAR,  /* a little ahead, all caches: prefetchnta waits for L1's few fill buffers, L2 reads on (Intel) */
    CPU_AHEAD_ONCE,  /* prefetchnta, as far ahead as L1 has room: past L2, as fast as memory gives it (AMD, Zen 5) */
    CPU_AHEAD_ALONE, /* not, where many lines follow one another, which the CPU finds sooner by itself; others into L2
                      * (AMD before Zen 5) */
    CPU_AHEAD_COUNT,
};
extern enum cpu_ahead cpu_ahead; /* CPU_AHEAD_ONCE on other architectures */

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
