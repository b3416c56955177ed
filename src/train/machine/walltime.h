/* When the job's time is over, and when a run must leave so that its last checkpoint is saved by then.
 *
 * Rank 0 alone knows the end; what it decides at each step travels in the step's agreement (step.c). All times are of the monotonic
 * clock (espl_now), in seconds. */
#ifndef ESPL_TRAIN_WALLTIME_H
#define ESPL_TRAIN_WALLTIME_H

#include "src/config/config.h"
#include "src/core/status.h"

#include <stdbool.h>

enum { ESPL_WALLTIME_STEPS = 32 }; /* what "recent" steps are */

typedef enum espl_walltime_vote { ESPL_WALLTIME_GO, ESPL_WALLTIME_SAVE, ESPL_WALLTIME_STOP } espl_walltime_vote;

/* What a launcher's surroundings say of the job's end. */
typedef struct espl_job_end {
    double at;          /* INFINITY: nothing is known */
    const char *source; /* a string constant */
} espl_job_end;

typedef struct espl_walltime {
    double opened, ends; /* ends: INFINITY where no end is known; then nothing is ever decided */
    double margin;       /* run.walltime_margin */
    const char *source;
    double steps[ESPL_WALLTIME_STEPS]; /* seconds of the latest steps */
    int64_t n_steps;
    double save, evaluation; /* the longest so far; 0: none yet */
    bool asked;              /* a save has been asked for, to have its time */
} espl_walltime;

/* Local. Seconds of a text: a number of seconds, HH:MM:SS, or D-HH:MM:SS; `name` is what it stands for. Errors: usage. */
espl_status espl_walltime_parse(const char *name, const char *text, double *seconds);

/* Local. Whether run.walltime can be read. Errors: usage. */
espl_status espl_walltime_check(const espl_config *config);

/* Local. Begins at `now`: run.walltime, counted from `started` (when this process began), or else what is known of the job. The config has
 * been checked. */
void espl_walltime_begin(espl_walltime *walltime, const espl_config *config, double started, const espl_job_end *job, double now);

/* Local. What something took: a step, an evaluation, a save from its beginning to its commit. */
void espl_walltime_add_step(espl_walltime *walltime, double seconds);
void espl_walltime_add_evaluation(espl_walltime *walltime, double seconds);
void espl_walltime_add_save(espl_walltime *walltime, double seconds);

/* Local. When the run must leave: the end less the margin, the slowest recent step, `evaluations` of the longest so far, and twice the
 * longest save: one may be under way when the last one begins. */
double espl_walltime_leave(const espl_walltime *walltime, int evaluations);

/* Local. Asked once a step, with the evaluations that come before the next time: STOP from espl_walltime_leave on; SAVE, once, when half
 * the time is over and no save has been timed. */
espl_walltime_vote espl_walltime_decide(espl_walltime *walltime, double now, int evaluations);

/* Local. Prints when the job ends and when the run will leave, as it is known now; nothing where no end is known. */
void espl_walltime_tell(const espl_walltime *walltime, double now);

#endif
