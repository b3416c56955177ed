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

/* ---- Work that lanes share */

typedef struct shared_work {
    int64_t n;
    atomic_llong next;
    espl_background_item *item;
    void *context;
} shared_work;

typedef struct lane {
    shared_work *work;
    int number;
    espl_background thread;
} lane;

static espl_status run_lane(void *context) {
    lane *l = context;
    shared_work *w = l->work;
    espl_status status = ESPL_OK;
    for (int64_t i; status == ESPL_OK && (i = atomic_fetch_add(&w->next, 1)) < w->n;)
        status = w->item(w->context, l->number, i);
    if (status != ESPL_OK)
        atomic_store(&w->next, w->n);
    return status;
}

espl_status espl_background_each(int lanes, int64_t n, espl_background_item *item, void *context) {
    shared_work work = {.n = n, .item = item, .context = context};
    lane all[ESPL_MAX_LANES] = {{0}};
    for (int k = lanes - 1; k >= 0; k--) {
        all[k].work = &work;
        all[k].number = k;
        espl_background_start(&all[k].thread, k > 0, run_lane, &all[k]);
    }
    espl_status status = ESPL_OK;
    for (int k = lanes - 1; k >= 0; k--) {
        espl_status own = espl_background_join(&all[k].thread);
        status = own != ESPL_OK ? own : status;
    }
    return status;
}
