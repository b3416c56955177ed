#include "src/train/machine/threads.h"

#include "src/core/buffer.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct place {
    int32_t node, padding;
    cpu_set_t cores;
} place;

static int from_environment(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    long n = text != NULL ? strtol(text, NULL, 10) : 0;
    return n > 0 && n <= 4096 ? (int)n : 0;
}

espl_status espl_threads_choose(espl_comm *comm, int64_t wanted, int *threads) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    place mine = {.node = ranks->node};
    int sharers = 0;
    sched_getaffinity(0, sizeof mine.cores, &mine.cores);
    place *all = espl_calloc((size_t)ranks->size, sizeof *all);
    espl_status status = espl_comm_allgather(comm, &mine, sizeof mine, all);
    for (int r = 0; r < ranks->size; r++)
        sharers += all[r].node == mine.node && CPU_EQUAL(&all[r].cores, &mine.cores);
    free(all);
    int cores = CPU_COUNT(&mine.cores) / (sharers > 0 ? sharers : 1);
    *threads = wanted > 0 ? (int)wanted : from_environment() > 0 ? from_environment() : cores > 1 ? cores : 1;
    return status;
}

double espl_threads_crowd(const espl_ranks *ranks, int threads) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN), wanted = (long)ranks->node_size * threads;
    return cores > 0 && wanted > cores ? (double)wanted / (double)cores : 1.0;
}
