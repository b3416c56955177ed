/* When the batch system will end this job, as far as it says so. */
#ifndef ESPL_LAUNCH_JOB_END_H
#define ESPL_LAUNCH_JOB_END_H

#include "src/train/machine/walltime.h"

/* Local; for one rank: it may ask the batch system, within ten seconds. Slurm: SLURM_JOB_END_TIME, or what squeue says where Slurm is older
 * than that variable. TORQUE: PBS_WALLTIME from the start of the job's script. Flux: `flux job timeleft`. OpenPBS and LSF tell a job
 * nothing; there run.walltime does, or a signal. */
void espl_job_end_find(espl_job_end *end);

#endif
