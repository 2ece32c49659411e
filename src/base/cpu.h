/* What the machine can do: instruction sets and usable cores. Asked once at start; any thread. */
#ifndef OCTAVO_BASE_CPU_H
#define OCTAVO_BASE_CPU_H

/* Tiers of kernels, each a superset of the one before. */
enum cpu_isa {
    CPU_ISA_REF,        /* plain C */
    CPU_ISA_AVX2,       /* AVX2, FMA, F16C */
    CPU_ISA_AVX512,     /* AVX-512 F, BW, DQ, VL */
    CPU_ISA_AVX512VNNI, /* and VNNI: u8 x s8 dot products */
    CPU_ISA_COUNT,
};

enum cpu_isa cpu_isa_best(void);
const char *cpu_isa_name(enum cpu_isa isa);
int cpu_isa_parse(const char *name, enum cpu_isa *ret_isa); /* 0, or -1 for an unknown name; "auto" is the best */
int cpu_num_usable(void);                                   /* cores this process may run on */

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
