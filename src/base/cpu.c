/* CPU features: see cpu.h. */
#include "base/cpu.h"

#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

const char *const cpu_isa_choices[] = {"auto",       "ref",       "avx2",    "avx512", "avxvnni",
                                       "avx512vnni", "avx512amx", "dotprod", "i8mm",   NULL};
static const char *const *const names = cpu_isa_choices + 1;

/* What tiers are made of: bits of the machine's features. */
enum {
    F_AVX2 = 1 << 0, /* with FMA and F16C */
    F_AVX512 = 1 << 1,
    F_AVXVNNI = 1 << 2,
    F_AVX512VNNI = 1 << 3,
    F_AMX = 1 << 4,
    F_DOTPROD = 1 << 5,
    F_I8MM = 1 << 6,
};

static const uint32_t needs[CPU_ISA_COUNT] = {
    [CPU_ISA_AVX2] = F_AVX2,
    [CPU_ISA_AVX512] = F_AVX2 | F_AVX512,
    [CPU_ISA_AVXVNNI] = F_AVX2 | F_AVXVNNI,
    [CPU_ISA_AVX512VNNI] = F_AVX2 | F_AVX512 | F_AVX512VNNI,
    [CPU_ISA_AVX512AMX] = F_AVX2 | F_AVX512 | F_AVX512VNNI | F_AMX,
    [CPU_ISA_DOTPROD] = F_DOTPROD,
    [CPU_ISA_I8MM] = F_DOTPROD | F_I8MM,
};

enum cpu_ahead cpu_ahead = CPU_AHEAD_ONCE;

#if defined(__x86_64__)
__attribute__((constructor)) static void look_ahead(void)
{
    enum { ZEN_5 = 0x1a };
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    bool amd = __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_AMD_ebx && ecx == signature_AMD_ecx &&
               edx == signature_AMD_edx;
    unsigned family = __get_cpuid(1, &eax, &ebx, &ecx, &edx) ? (eax >> 8 & 0xf) + (eax >> 20 & 0xff) : 0;
    cpu_ahead = !amd ? CPU_AHEAD_NEAR : family >= ZEN_5 ? CPU_AHEAD_ONCE : CPU_AHEAD_ALONE;
}

/* Tile registers are large, so Linux gives them to processes that ask. */
static bool amx_permitted(void)
{
    enum { GET_XCOMP_PERM = 0x1022, REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    uint64_t permitted = 0;
    if (syscall(SYS_arch_prctl, GET_XCOMP_PERM, &permitted) == 0 && permitted >> XTILEDATA & 1)
        return true;
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}

/* The builtins also ask whether the operating system saves the registers; what they do not know by name, cpuid does. */
static uint32_t cpu_features(void)
{
    __builtin_cpu_init();
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0, found = 0;
    bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_F16C;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !f16c)
        return 0;
    found = F_AVX2;
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && eax >> 4 & 1)
        found |= F_AVXVNNI;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found |= F_AVX512;
    if (__builtin_cpu_supports("avx512vnni"))
        found |= F_AVX512VNNI;
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && edx & AMX_TILE && edx & AMX_INT8 && amx_permitted())
        found |= F_AMX;
    return found;
}
#elif defined(__aarch64__)
static uint32_t cpu_features(void)
{
    enum { ASIMDDP = 1 << 20, I8MM = 1 << 13 }; /* the kernel's HWCAP_ASIMDDP, HWCAP2_I8MM */
    return (getauxval(AT_HWCAP) & ASIMDDP ? F_DOTPROD : 0) | (getauxval(AT_HWCAP2) & I8MM ? F_I8MM : 0);
}
#else
static uint32_t cpu_features(void)
{
    return 0;
}
#endif

bool cpu_isa_supported(enum cpu_isa isa)
{
    return (needs[isa] & ~cpu_features()) == 0;
}

enum cpu_isa cpu_isa_best(void)
{
    int isa = CPU_ISA_COUNT - 1;
    while (!cpu_isa_supported((enum cpu_isa)isa)) /* ref is */
        isa--;
    return (enum cpu_isa)isa;
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
