/* Whether ranks hold the same, and which of them does not. With 1 place all are compared with each other; with more, those whose numbers
 * differ by multiples of `places`: the ranks in one place of all groups (espl_comm_group). */
#ifndef ESPL_COMM_ALIKE_H
#define ESPL_COMM_ALIKE_H

#include "comm/comm.h"

#include <stdbool.h>

enum { ESPL_ODD_TEXT = 512 };

/* Collective. Whether each of n numbers is the same on all ranks that are compared: alike[i]. One reduction of 2 n places words. */
espl_status espl_comm_alike(espl_comm *comm, const uint64_t *numbers, size_t n, int places, bool *alike);

typedef struct espl_odd {
    char text[ESPL_ODD_TEXT]; /* the ranks: "rank 3 on node7, rank 5 on node9 and 4 more" */
    bool majority;            /* more than half of those compared hold the same, and the text has those that do not; else it has all */
    int most, first; /* in the first place that differs: the lowest rank of the majority (without one of all), and the lowest that holds
                        something else than that */
} espl_odd;

/* Collective. Of a number that ranks do not agree on: which of them are odd. */
espl_status espl_comm_odd_ones(espl_comm *comm, uint64_t number, int places, espl_odd *odd);

#endif
