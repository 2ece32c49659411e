/* Where workers run and where their memory lies, on machines with several NUMA nodes. A worker belongs to a node, and
 * what it reads alone belongs there too; what all read is spread over the nodes. With one node nothing is done at all.
 */
#ifndef OCTAVO_BASE_TOPOLOGY_H
#define OCTAVO_BASE_TOPOLOGY_H

#include <stddef.h>

/* NUMA nodes whose cores this process may use; 1 when that cannot be known. */
int topology_num_nodes(void);
/* Cores this process may use: of a core's hardware threads one, because the kernels fill a core's units. */
int topology_num_cores(void);
/* Bytes of the last-level caches that those cores have, all together; 0 when that cannot be known. */
size_t topology_l3_bytes(void);
/* The node of a worker, consecutive workers together: 0..nodes-1. */
int topology_node_of(int worker, int num_workers, int num_nodes);
/* Keeps the calling thread, which is worker, on the cores of its node. */
void topology_bind_worker(int worker, int num_workers);
/* Pages of p that were not touched yet go, when they are, to the worker's node; or to all nodes in turn. */
void topology_place_near(void *p, size_t bytes, int worker, int num_workers);
void topology_place_spread(void *p, size_t bytes);

#endif
