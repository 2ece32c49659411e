/* NUMA placement: see topology.h. hwloc is asked once, at the first call; any thread afterwards. */
#include "base/topology.h"

#include "base/cpu.h"

#include <hwloc.h>
#include <pthread.h>
#include <stdbool.h>

#define MAX_NODES 256

static struct {
    hwloc_topology_t hwloc;
    int num_cores, num_nodes;
    size_t l3_bytes;
    hwloc_obj_t nodes[MAX_NODES]; /* those with usable cores */
} topology;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void topology_load(void)
{
    topology.num_cores = cpu_num_usable();
    topology.num_nodes = 1;
    if (hwloc_topology_init(&topology.hwloc) < 0)
        return;
    if (hwloc_topology_load(topology.hwloc) < 0) {
        hwloc_topology_destroy(topology.hwloc);
        topology.hwloc = NULL;
        return;
    }
    hwloc_cpuset_t mine = hwloc_bitmap_alloc();
    if (!mine || hwloc_get_cpubind(topology.hwloc, mine, HWLOC_CPUBIND_PROCESS) < 0) {
        hwloc_bitmap_free(mine);
        return;
    }
    int cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology.hwloc, mine, HWLOC_OBJ_CORE);
    if (cores <= 0) /* cores of which the process has a part only */
        cores = topology.num_cores;
    topology.num_cores = cores < topology.num_cores ? cores : topology.num_cores;
    int count = 0;
    for (hwloc_obj_t n = NULL; (n = hwloc_get_next_obj_by_type(topology.hwloc, HWLOC_OBJ_NUMANODE, n)) != NULL;)
        if (count < MAX_NODES && n->cpuset && hwloc_bitmap_intersects(n->cpuset, mine))
            topology.nodes[count++] = n;
    topology.num_nodes = count > 0 ? count : 1;
    for (hwloc_obj_t c = NULL; (c = hwloc_get_next_obj_by_type(topology.hwloc, HWLOC_OBJ_L3CACHE, c)) != NULL;)
        if (hwloc_bitmap_intersects(c->cpuset, mine))
            topology.l3_bytes += c->attr->cache.size;
    hwloc_bitmap_free(mine);
}

size_t topology_l3_bytes(void)
{
    pthread_once(&once, topology_load);
    return topology.l3_bytes;
}

int topology_num_nodes(void)
{
    pthread_once(&once, topology_load);
    return topology.num_nodes;
}

int topology_num_cores(void)
{
    pthread_once(&once, topology_load);
    return topology.num_cores;
}

int topology_node_of(int worker, int num_workers, int num_nodes)
{
    return (int)((long long)worker * num_nodes / num_workers);
}

/* Failures are let be: a thread or a page that stays elsewhere is slower, not wrong. */
void topology_bind_worker(int worker, int num_workers)
{
    if (topology_num_nodes() == 1)
        return;
    hwloc_obj_t node = topology.nodes[topology_node_of(worker, num_workers, topology.num_nodes)];
    hwloc_cpuset_t cores = hwloc_bitmap_dup(node->cpuset);
    if (cores && hwloc_bitmap_and(cores, cores, hwloc_topology_get_allowed_cpuset(topology.hwloc)) == 0 &&
        !hwloc_bitmap_iszero(cores))
        hwloc_set_cpubind(topology.hwloc, cores, HWLOC_CPUBIND_THREAD);
    hwloc_bitmap_free(cores);
}

void topology_place_near(void *p, size_t bytes, int worker, int num_workers)
{
    if (topology_num_nodes() == 1 || !bytes)
        return;
    hwloc_obj_t node = topology.nodes[topology_node_of(worker, num_workers, topology.num_nodes)];
    hwloc_set_area_membind(topology.hwloc, p, bytes, node->nodeset, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_BYNODESET);
}

void topology_place_spread(void *p, size_t bytes)
{
    if (topology_num_nodes() == 1 || !bytes)
        return;
    hwloc_bitmap_t all = hwloc_bitmap_alloc();
    for (int i = 0; all && i < topology.num_nodes; i++)
        hwloc_bitmap_or(all, all, topology.nodes[i]->nodeset);
    if (all)
        hwloc_set_area_membind(topology.hwloc, p, bytes, all, HWLOC_MEMBIND_INTERLEAVE, HWLOC_MEMBIND_BYNODESET);
    hwloc_bitmap_free(all);
}
