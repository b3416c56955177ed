/* Spikes: steps whose loss or gradient norm stands far above those of the latest steps.
 *
 * A step is judged by the sums that all ranks agreed on, so all of them, and any number of them, come to the same judgement. The latest
 * values and what was rolled back are in every checkpoint. */
#ifndef ESPL_TRAIN_SPIKES_H
#define ESPL_TRAIN_SPIKES_H

#include "src/config/config.h"

#include <jansson.h>

enum { ESPL_SPIKES_LOSS, ESPL_SPIKES_NORM, ESPL_N_SPIKES };

typedef struct espl_spikes {
    int watch; /* train.spike_watch */
    double factor;
    int64_t window;
    double *values[ESPL_N_SPIKES]; /* [window] of the latest steps: value number i at i % window */
    double *scratch;               /* [window] */
    int64_t n;                     /* values so far */
    int64_t rollbacks;
    json_t *left_out; /* [{"after", "bad", "from", "to"}]: of each rollback the step it went back to, the bad one, and the micro-batches
                         between, as [epoch, number] */
} espl_spikes;

typedef struct espl_spike {
    const char *what; /* "loss", "gradient norm" */
    double value, median, limit;
} espl_spike;

/* Local. By the keys train.spike_*. */
void espl_spikes_open(const espl_config *config, espl_spikes *spikes);

/* Local. Whether a step with this (finite) loss and norm is a spike: value > median + factor * deviation over the latest window, where
 * deviation = max(1.4826 * median |x - median|, |median| / 100); 1.4826 makes it the standard deviation of a normal distribution. */
bool espl_spikes_judge(const espl_spikes *spikes, double loss, double norm, espl_spike *spike);

/* Local. Adds a step to those that others are judged by. */
void espl_spikes_add(espl_spikes *spikes, double loss, double norm);

/* Local. For checkpoints, and back; `object` NULL: a checkpoint from before there was this, nothing is known. Another window takes the
 * latest values that it has room for. Errors: data. */
json_t *espl_spikes_to_json(const espl_spikes *spikes);
espl_status espl_spikes_from_json(const json_t *object, const char *path, espl_spikes *spikes);

/* Local. Frees and zeroes. */
void espl_spikes_free(espl_spikes *spikes);

#endif
