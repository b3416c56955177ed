/* Whether all ranks hold the same, and which of them does not. */
#ifndef ESPL_COMM_ALIKE_H
#define ESPL_COMM_ALIKE_H

#include "comm/comm.h"

#include <stdbool.h>

enum { ESPL_ODD_TEXT = 512 };

/* Collective. Whether each of n numbers is the same on all ranks: alike[i]. One reduction. */
espl_status espl_comm_alike(espl_comm *comm, const uint64_t *numbers, size_t n, bool *alike);

typedef struct espl_odd {
    char text[ESPL_ODD_TEXT]; /* the ranks: "rank 3 on node7, rank 5 on node9 and 4 more" */
    bool majority;            /* more than half of all ranks hold the same, and the text has those that do not; else it has all */
    int most, first;          /* the lowest rank of the majority (without one rank 0), and the lowest that holds something else than that */
} espl_odd;

/* Collective. Of a number that ranks do not agree on: which of them are odd. */
espl_status espl_comm_odd_ones(espl_comm *comm, uint64_t number, espl_odd *odd);

#endif
