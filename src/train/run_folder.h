/* What stands in a run's folder beside what has writers of its own (metrics, checkpoints, evaluations, exports). */
#ifndef ESPL_TRAIN_RUN_FOLDER_H
#define ESPL_TRAIN_RUN_FOLDER_H

#include "src/config/config.h"

#include <stdio.h>

/* Local; for rank 0. Makes run.dir, takes the marker of an earlier end away, writes config.yaml and opens log.txt, which gets the log from
 * now on; *log is the caller's to close. Errors: io. */
espl_status espl_run_folder_open(const espl_config *config, FILE **log);

/* Local; for rank 0. Writes `done`: the run is over only when this file says so, a launcher's exit status is not believed. Errors: io. */
espl_status espl_run_folder_done(const espl_config *config, int64_t step);

#endif
