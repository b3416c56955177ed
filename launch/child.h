/* A run in a process of its own, watched until it ends. */
#ifndef ESPL_LAUNCH_CHILD_H
#define ESPL_LAUNCH_CHILD_H

#include "src/core/status.h"

/* Local. Starts the words (NULL-terminated; found in PATH) with our output and waits. A signal to us (launch/signals.h) is handed on as
 * SIGUSR1, which launchers pass on to their ranks and give them time for. *code: its exit code, or 128 + the
 * signal that ended it. Errors: usage, when it cannot be started. */
espl_status espl_child_run(char *const *words, int *code);

#endif
