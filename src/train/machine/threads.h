/* How many CPU threads a rank uses. */
#ifndef ESPL_TRAIN_THREADS_H
#define ESPL_TRAIN_THREADS_H

#include "comm/comm.h"

/* Collective. `wanted` when it is positive, else OMP_NUM_THREADS, else the cores this rank may run on, divided by the ranks of its node
 * that may run on the very same ones (a launcher that binds gives each rank its own; one that does not gives all ranks all). */
espl_status espl_threads_choose(espl_comm *comm, int64_t wanted, int *threads);

/* Local. How many threads share a core of this node when each of its ranks runs `threads`, at least 1. */
double espl_threads_crowd(const espl_ranks *ranks, int threads);

#endif
