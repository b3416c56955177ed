/* The first lines of a run: what it will work on, with what, and what may be a slip. */
#ifndef ESPL_TRAIN_INTRODUCE_H
#define ESPL_TRAIN_INTRODUCE_H

#include "src/train/run.h"

/* Local; for rank 0, when everything is open but the metrics. */
void espl_run_introduce(const espl_run *run);

#endif
