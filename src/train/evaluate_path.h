/* Evaluating a model that lies in a folder. */
#ifndef ESPL_TRAIN_EVALUATE_PATH_H
#define ESPL_TRAIN_EVALUATE_PATH_H

#include "src/train/score/outcome.h"

/* Collective. Evaluates the model at `path` (run folder, checkpoint or Hugging Face folder) on data.valid of the config; opens and closes
 * all it needs. `folder`: where rank 0 writes what it found (espl_outcome_write); NULL: nowhere. The outcome is freed by the caller, also
 * after a failure. Errors: usage, data, io. */
espl_status espl_evaluate_path(const espl_config *config, espl_comm *comm, const char *path, const char *folder, espl_outcome *outcome);

#endif
