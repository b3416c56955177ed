/* One function run in a thread of its own. The failure it ends with arrives, message and all, in the thread that joins. */
#ifndef ESPL_IO_BACKGROUND_H
#define ESPL_IO_BACKGROUND_H

#include "src/core/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef espl_status espl_background_run(void *context);

typedef struct espl_background {
    pthread_t thread;
    bool started, threaded;
    atomic_bool done;
    espl_background_run *run;
    void *context;
    espl_status status;
    char *message;
} espl_background;

/* Local. Starts run(context); here and now when `threaded` is false or no thread is to be had. A zeroed struct is idle. */
void espl_background_start(espl_background *background, bool threaded, espl_background_run *run, void *context);

/* Local. Whether join would return at once. True when idle. */
bool espl_background_done(espl_background *background);

/* Local. Waits; returns what run returned. OK when idle. */
espl_status espl_background_join(espl_background *background);

#endif
