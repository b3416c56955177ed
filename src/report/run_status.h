/* How a run stands, told from its files alone: of a job that runs, and of one that has ended. */
#ifndef ESPL_REPORT_RUN_STATUS_H
#define ESPL_REPORT_RUN_STATUS_H

#include "src/report/run_files.h"

#include <stdio.h>

/* Local. An object (caller: json_decref); what is unknown is absent:
 *   run        the folder
 *   state      done, stopped (with a checkpoint; to be gone on with), failed, running, or silent: neither ended nor heard of for long
 *   ended      why, in words
 *   step, total_steps, loss, valid_loss, tokens_per_second, seconds_left
 *   heard      seconds since the last line of metrics.jsonl at `now` (seconds since 1970); every: seconds between lines of late
 *   checkpoint {step, path, age}, of the newest
 *   memory_copy {step, age}, of the newest in-memory copy, unless the run has removed it at its end
 *   job        as the start line has it: the batch system's name and variables
 * Errors: io. */
espl_status espl_run_status_make(const espl_run_files *run, double now, json_t **status);

/* Local. The same as lines of text. */
void espl_run_status_print(const json_t *status, FILE *out);

#endif
