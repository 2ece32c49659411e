/* A machine of one node, for tools/check_arm: Debian has no hwloc for a cross-compiler. */
#include "base/topology.h"

void topology_bind_worker(int worker, int num_workers)
{
    (void)worker;
    (void)num_workers;
}
