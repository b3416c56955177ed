/* One function run in a thread of its own. The failure it ends with arrives, message and all, in the thread that joins. */
#ifndef ESPL_IO_BACKGROUND_H
#define ESPL_IO_BACKGROUND_H

#include "src/core/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

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

/* Threads at most that share work by espl_background_each. */
enum { ESPL_MAX_LANES = 4 };

typedef espl_status espl_background_item(void *context, int lane, int64_t i);

/* Local. Runs item(context, lane, i) for all 0 <= i < n, each once and in this order begun, in `lanes` <= ESPL_MAX_LANES threads, of which
 * this one is the first. After a failure nothing new begins; returns the failure of the first lane that has one. */
espl_status espl_background_each(int lanes, int64_t n, espl_background_item *item, void *context);

#endif
