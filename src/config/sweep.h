/* Sweeps: the section `sweep:` of a config lists values for keys, and every combination of them is a run.
 *
 *     sweep:
 *       optim.lr: [1e-5, 2e-5]
 *       train.epochs: [1, 3]
 *
 * The first key varies slowest. A config with this section is no config of one run: espl_config_read refuses it. */
#ifndef ESPL_CONFIG_SWEEP_H
#define ESPL_CONFIG_SWEEP_H

#include "src/config/config.h"

typedef struct espl_axis {
    char *key;     /* "optim.lr" */
    char **values; /* as an override has them: 1e-5, [a, b] */
    int64_t n;
} espl_axis;

typedef struct espl_sweep {
    espl_axis *axes;
    int64_t n;
} espl_sweep;

/* Local. Reads a config with a section `sweep:` over what is there; values are checked by setting them. Errors: usage, with file:line. The
 * caller frees the sweep, also after a failure. */
espl_status espl_sweep_read(espl_config *config, espl_sweep *sweep, const char *path);

/* Local. How many runs there are: the product of the lists. */
int64_t espl_sweep_runs(const espl_sweep *sweep);

/* Local. The number of run's value in the list of an axis. */
int64_t espl_sweep_choice(const espl_sweep *sweep, int64_t run, int64_t axis);

/* Local. Sets what is run's own into a config that holds what all runs share. Errors: usage. */
espl_status espl_sweep_set(const espl_sweep *sweep, int64_t run, espl_config *config);

/* Local. A folder's name for a run: its number, and what varies ("003-lr=2e-5-epochs=1"). The caller frees. */
char *espl_sweep_name(const espl_sweep *sweep, int64_t run);

/* Local. Frees and zeroes. */
void espl_sweep_free(espl_sweep *sweep);

#endif
