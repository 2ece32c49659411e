/* CPU features: see cpu.h. */
#include "base/cpu.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[] = {"ref", "avx2", "avx512", "avx512vnni"};

enum cpu_isa cpu_isa_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned eax, ebx, ecx = 0, edx; /* clang 14's builtin does not know f16c */
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !(ecx & bit_F16C))
        return CPU_ISA_REF;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return __builtin_cpu_supports("avx512vnni") ? CPU_ISA_AVX512VNNI : CPU_ISA_AVX512;
    return CPU_ISA_AVX2;
#else
    return CPU_ISA_REF;
#endif
}

const char *cpu_isa_name(enum cpu_isa isa)
{
    return names[isa];
}

int cpu_isa_parse(const char *name, enum cpu_isa *ret_isa)
{
    if (!strcmp(name, "auto")) {
        *ret_isa = cpu_isa_best();
        return 0;
    }
    for (int i = CPU_ISA_REF; i < CPU_ISA_COUNT; i++)
        if (!strcmp(name, names[i])) {
            *ret_isa = (enum cpu_isa)i;
            return 0;
        }
    return -1;
}

int cpu_num_usable(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}
