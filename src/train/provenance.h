/* Where a run comes from: what stands under "provenance" in its checkpoints and exports, and under "about" in its metrics. */
#ifndef ESPL_TRAIN_PROVENANCE_H
#define ESPL_TRAIN_PROVENANCE_H

#include "src/train/run.h"

/* Collective. Sets run->provenance: machine, time, job and libraries (runinfo.h); command line, device, the hosts of all ranks, seeds, the
 * base model with its licence, and every data file with its hash. Data, model and device are open. */
espl_status espl_provenance_make(espl_run *run, const espl_run_options *options);

#endif
