/* What a step's loss and gradient norm ask for, before its update. */
#ifndef ESPL_TRAIN_JUDGE_H
#define ESPL_TRAIN_JUDGE_H

#include "src/train/health/spikes.h"
#include "src/train/log/metrics.h"

/* A step's numbers, the same on all ranks. */
typedef struct espl_vitals {
    int64_t step; /* from 1 */
    double loss, grad_norm;
    int64_t skipped_in_row; /* steps right before it */
} espl_vitals;

typedef struct espl_verdict {
    bool skip;         /* no update with it: non-finite or a spike */
    int64_t bad_since; /* > 0: the run must go back to before this step */
} espl_verdict;

/* Local, with the same outcome on all ranks. By train.on_nonfinite and train.on_spike; a sound step joins those that spikes are judged by.
 * `metrics` is rank 0's, which also tells; NULL elsewhere. Errors: numeric, when the run must end. */
espl_status espl_judge(const espl_config *config, const espl_vitals *vitals, espl_spikes *spikes, espl_metrics *metrics,
                       espl_verdict *verdict);

#endif
