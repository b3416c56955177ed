#include "src/train/machine/ping.h"

#include "src/core/clock.h"

#include <math.h>
#include <stdbool.h>

enum { ROUNDS = 8, TAG = 2 };

static espl_status there_and_back(espl_comm *comm, int other, void *message, size_t bytes) {
    const bool first = espl_comm_ranks(comm)->rank < other;
    if (first)
        ESPL_TRY(espl_comm_send(comm, message, bytes, other, TAG));
    ESPL_TRY(espl_comm_recv(comm, message, bytes, other, TAG));
    if (!first)
        ESPL_TRY(espl_comm_send(comm, message, bytes, other, TAG));
    return ESPL_OK;
}

espl_status espl_ping(espl_comm *comm, int other, void *message, size_t bytes, double *seconds) {
    double least = INFINITY;
    for (int i = 0; i <= ROUNDS; i++) {
        double start = espl_now();
        ESPL_TRY(there_and_back(comm, other, message, bytes));
        if (i > 0)
            least = fmin(least, espl_now() - start);
    }
    *seconds = 0.5 * least;
    return ESPL_OK;
}
