/* What a model will see of a config's training data, text by text. */
#ifndef ESPL_LAUNCH_SHOW_SAMPLES_H
#define ESPL_LAUNCH_SHOW_SAMPLES_H

#include "comm/comm.h"
#include "src/config/config.h"

#include <stdio.h>

/* Collective. Prepares the data as a run would and writes its first `n` texts in natural order, a token a line: id, type, token and, behind
 * an arrow, what is to be guessed there; with labels, sources, and the masks of the first epoch. Errors: as of a run's data. */
espl_status espl_show_samples(espl_comm *comm, const espl_config *config, int64_t n, FILE *out);

#endif
