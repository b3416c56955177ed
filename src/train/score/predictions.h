/* What a classifier predicts for each document of a dataset. */
#ifndef ESPL_TRAIN_PREDICTIONS_H
#define ESPL_TRAIN_PREDICTIONS_H

#include "comm/comm.h"
#include "kernels/engine.h"
#include "src/data/placement.h"
#include "src/model/tape.h"

/* Rows by document; of this rank while it evaluates, of all ranks once they are gathered. */
typedef struct espl_predictions {
    int classes;
    int64_t n, capacity;
    int64_t *documents;   /* as a sample counts them */
    int32_t *gold;        /* true classes */
    float *probabilities; /* [n, classes] */
} espl_predictions;

/* Local. None yet. */
espl_predictions espl_predictions_make(int classes);

/* Local. Adds the labelled segments of the micro-batch that an evaluation tape has just run on; waits for the device. */
espl_status espl_predictions_take(espl_predictions *predictions, const espl_engine *engine, const espl_tape *tape,
                                  const espl_sample *sample);

/* Collective. Every rank gets the predictions of all, in the order of documents. */
espl_status espl_predictions_gather(espl_comm *comm, espl_predictions *predictions);

/* Local. Frees and zeroes. */
void espl_predictions_free(espl_predictions *predictions);

#endif
