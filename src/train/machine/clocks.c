#include "src/train/machine/clocks.h"

#include "src/core/clock.h"

#include <math.h>

enum { ROUNDS = 16, TAG = 1 };

/* The way there and back bounds what is seen: the shortest of some counts. */
espl_status espl_clock_ask(espl_comm *comm, int other, double *ahead) {
    double shortest = INFINITY, theirs;
    for (int i = 0; i < ROUNDS; i++) {
        double start = espl_wall_clock();
        ESPL_TRY(espl_comm_send(comm, &start, sizeof start, other, TAG));
        ESPL_TRY(espl_comm_recv(comm, &theirs, sizeof theirs, other, TAG));
        double end = espl_wall_clock(), way = 0.5 * (end - start), off = theirs - 0.5 * (start + end);
        if (way >= shortest)
            continue;
        shortest = way;
        *ahead = copysign(fmax(fabs(off) - way, 0.0), off);
    }
    return ESPL_OK;
}

espl_status espl_clock_answer(espl_comm *comm, int asker) {
    double asked;
    for (int i = 0; i < ROUNDS; i++) {
        ESPL_TRY(espl_comm_recv(comm, &asked, sizeof asked, asker, TAG));
        double now = espl_wall_clock();
        ESPL_TRY(espl_comm_send(comm, &now, sizeof now, asker, TAG));
    }
    return ESPL_OK;
}
