/* Which phase of training a run is in (src/model/phases.h): a pure function of the step, but for the updates that were skipped before it,
 * which a checkpoint remembers. */
#ifndef ESPL_TRAIN_UNFREEZE_H
#define ESPL_TRAIN_UNFREEZE_H

#include "src/model/model.h"

#include <jansson.h>

typedef struct espl_phases {
    const espl_model *model;
    int now;        /* -1: no step has been made */
    int known;      /* phases whose `born` is known: the first, and what a checkpoint remembers */
    int64_t *steps; /* [n_phases] done when each begins */
    int64_t *born;  /* [n_phases] updates before it: the optimizer counts those of its parameters from there, as torch does from the first
                       gradient of each */
    bool *buckets;  /* [n_buckets] something of them is trained now */
} espl_phases;

/* Local. Puts the model's phases on steps; an epoch has `epoch_steps`. */
void espl_phases_open(const espl_model *model, double epoch_steps, espl_phases *phases);

/* Local. Before a step, with the steps and updates that are done: whether another phase begins, which is then `now`. */
bool espl_phases_enter(espl_phases *phases, int64_t step, int64_t updates);

/* Local. Those that have begun, for a checkpoint, and back. Errors: usage, where what was trained till then is not what the config says. */
json_t *espl_phases_to_json(const espl_phases *phases);
espl_status espl_phases_from_json(const json_t *list, const char *path, espl_phases *phases);

/* Local. Frees and zeroes. */
void espl_phases_free(espl_phases *phases);

#endif
