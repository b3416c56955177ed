/* What a step's loss and gradient norm ask for, before its update. */
#ifndef ESPL_TRAIN_JUDGE_H
#define ESPL_TRAIN_JUDGE_H

#include "src/train/run.h"

/* Local, with the same outcome on all ranks. Sets result->skipped or result->bad_since, or leaves the step to be updated with. Errors:
 * numeric, when the run must end. */
espl_status espl_run_judge(espl_run *run, espl_step_result *result);

/* Collective. Takes the run back to the newest checkpoint from before step result->bad_since, to go on behind the data of the step at hand:
 * run->counters has the place there. Errors: numeric, when no such checkpoint is there or the rollbacks are used up; io, data. */
espl_status espl_run_rollback(espl_run *run, const espl_step_result *result);

#endif
