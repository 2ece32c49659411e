/* Prints the tiers that this CPU runs, for tools/check_arm. */
#include "kernel/ops.h"

#include <stdio.h>

int main(void)
{
    for (int isa = CPU_ISA_REF; isa < CPU_ISA_COUNT; isa++)
        if (cpu_isa_supported((enum cpu_isa)isa) && kernel_ops_get((enum cpu_isa)isa)->isa == (enum cpu_isa)isa)
            printf(" %s", cpu_isa_name((enum cpu_isa)isa));
    putchar('\n');
    return 0;
}
