/* NUMA placement on a machine that hwloc makes up: nothing moves there, but nodes are counted and given out. */
#include "base/topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

static void two_nodes(void **state)
{
    (void)state;
    assert_int_equal(topology_num_nodes(), 2);
    assert_true(topology_num_cores() >= 1);
    size_t bytes = 1 << 20;
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    for (int w = 0; w < 5; w++) {
        topology_bind_worker(w, 5);
        topology_place_near(p + w * 65536, 65536, w, 5);
    }
    topology_place_spread(p, bytes);
    for (size_t i = 0; i < bytes; i += 4096)
        p[i] = 1; /* wherever it lies, it is memory */
    munmap(p, bytes);
}

static void workers_of_a_node_are_neighbours(void **state)
{
    (void)state;
    for (int nodes = 1; nodes <= 8; nodes++)
        for (int workers = 1; workers <= 40; workers++) {
            int last = 0, count[8] = {0};
            for (int w = 0; w < workers; w++) {
                int node = topology_node_of(w, workers, nodes);
                assert_in_range(node, last, nodes - 1);
                last = node;
                count[node]++;
            }
            for (int n = 0; n < nodes; n++) /* shared out evenly */
                assert_in_range(count[n], workers / nodes, (workers + nodes - 1) / nodes);
        }
}

int main(void)
{
    setenv("HWLOC_SYNTHETIC", "numa:2 core:3 pu:2", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_nodes),
        cmocka_unit_test(workers_of_a_node_are_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
