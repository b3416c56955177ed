/* Signals that ask the job to save and leave: SIGTERM (preemption, scancel), SIGUSR1 (walltime warning), SIGUSR2 (LSF's,
 * ten minutes before it kills), SIGINT (a person).
 *
 * The handler only notes the signal; the training loop asks at each step and turns it into a vote, so that all ranks leave
 * together. A second SIGINT leaves at once, without a checkpoint. */
#ifndef ESPL_LAUNCH_SIGNALS_H
#define ESPL_LAUNCH_SIGNALS_H

/* Local. Installs the handlers; those from before are kept for espl_signals_restore. */
void espl_signals_install(void);

/* Local. The first signal noted since installing, 0 for none. */
int espl_signals_pending(void);

/* Local. Puts the earlier handlers back and forgets what was noted. */
void espl_signals_restore(void);

#endif
