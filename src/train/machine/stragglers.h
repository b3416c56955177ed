/* Stragglers: ranks that take longer over their part of a step than the others, step after step. Everyone waits for them. */
#ifndef ESPL_TRAIN_STRAGGLERS_H
#define ESPL_TRAIN_STRAGGLERS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct espl_stragglers {
    double factor; /* of the median; 0: nothing is looked for */
    int64_t steps;
    int size;
    struct espl_straggler {
        int64_t in_row; /* steps above factor times the median */
        double ratios;  /* sum of them */
        bool told;
    } * ranks; /* [size] */
    double *scratch;
    int slowest; /* of the last step */
    double ratio;
} espl_stragglers;

typedef enum espl_straggling { ESPL_STRAGGLING_NOT, ESPL_STRAGGLING_BEGINS, ESPL_STRAGGLING_ENDS } espl_straggling;

/* Local. `steps` steps in a row above `factor` times the median make a straggler. */
void espl_stragglers_open(espl_stragglers *stragglers, double factor, int64_t steps, int size);

/* Local. Adds a step: what each rank took for a micro-batch of its own, waiting for others left out, in any unit. */
void espl_stragglers_add(espl_stragglers *stragglers, const int64_t *times);

/* Local. What is to be told of a rank after this step: that it is slow (and again when it has been for twice as long), or no longer is.
 * *ratio is its mean time over the median in that row of *steps steps. */
espl_straggling espl_stragglers_ask(espl_stragglers *stragglers, int rank, double *ratio, int64_t *steps);

/* Local. Frees and zeroes. */
void espl_stragglers_free(espl_stragglers *stragglers);

#endif
