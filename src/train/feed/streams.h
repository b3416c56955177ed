/* A micro-batch as the streams of rows that a model works on: the main one, an encoder's, and one row a segment. */
#ifndef ESPL_TRAIN_STREAMS_H
#define ESPL_TRAIN_STREAMS_H

#include "kernels/device.h"
#include "src/data/placement.h"
#include "src/model/model.h"

/* The batches of one micro-batch; they point at each other, so it must not be moved. */
typedef struct espl_streams {
    espl_batch main, source, pooled;
} espl_streams;

/* Local. What micro-batches of this room hold of each of the model's streams. */
void espl_streams_capacity(const espl_model *model, const espl_room *room, espl_capacity capacity[ESPL_N_STREAMS]);

/* Local. Batches of a sample; what does not come from it (scale of the loss, training, random numbers) is taken from `common`. */
void espl_streams_fill(const espl_model *model, const espl_sample *sample, const espl_batch *common, espl_streams *streams);

#endif
