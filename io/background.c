#include "io/background.h"

#include "src/core/buffer.h"

#include <signal.h>
#include <stdlib.h>

static void *run_thread(void *argument) {
    espl_background *b = argument;
    b->status = b->run(b->context);
    if (b->status != ESPL_OK)
        b->message = espl_strdup(espl_status_message());
    atomic_store(&b->done, true);
    return NULL;
}

void espl_background_start(espl_background *b, bool threaded, espl_background_run *run, void *context) {
    sigset_t all, before;
    b->run = run;
    b->context = context;
    b->started = true;
    b->message = NULL;
    atomic_store(&b->done, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the training thread */
    b->threaded = threaded && pthread_create(&b->thread, NULL, run_thread, b) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!b->threaded)
        run_thread(b);
}

bool espl_background_done(espl_background *b) { return !b->started || atomic_load(&b->done); }

espl_status espl_background_join(espl_background *b) {
    if (!b->started)
        return ESPL_OK;
    if (b->threaded)
        pthread_join(b->thread, NULL);
    b->started = false;
    if (b->status == ESPL_OK)
        return ESPL_OK;
    espl_status status = espl_status_fail(b->status, __FILE__, __LINE__, "%s", b->message);
    free(b->message);
    b->message = NULL;
    return status;
}
