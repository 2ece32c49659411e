/* A machine of one node, for tools/check_arm and check_avx512: Debian has no hwloc for a cross-compiler, and no static
 * one. */
#include "base/cpu.h"
#include "base/topology.h"

void topology_bind_worker(int worker, int num_workers)
{
    (void)worker;
    (void)num_workers;
}

int topology_num_cores(void)
{
    return cpu_num_usable();
}

size_t topology_l3_bytes(void)
{
    return 0;
}
