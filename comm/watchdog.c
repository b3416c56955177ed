/* The watchdog: a thread that ends the job when the rank stops beating. It shares four words with the rank, all atomic. Another of its kind
 * ends a start in which the ranks do not come together. */
#include "comm/transport.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_SECONDS = 5 };

struct espl__watchdog {
    _Atomic int64_t step;
    _Atomic(const char *) op;
    atomic_ulong beats;
    const espl_comm *comm; /* borrowed: ranks and transport do not change once they are open, bulk is atomic */
    void (*end)(const espl__watchdog *dog, double idle);
    espl_ranks before; /* what the rank knew of itself at the start */
    double seconds;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t stop_changed;
    int stop; /* under mutex */
};

/* The launcher's abort may itself hang in a broken network: leaving without it ends the job as well. */
static void *leave_anyway(void *unused) {
    sleep(GRACE_SECONDS);
    _exit(ESPL_ERR_IO);
    return unused;
}

static void end_job(const espl__watchdog *dog, double idle) {
    const espl_ranks *ranks = &dog->comm->ranks;
    espl_bulk *bulk = dog->comm->bulk;
    char last[160] = "", others[512] = "";
    if (bulk != NULL)
        dog->comm->bulk_calls->describe(bulk, last, sizeof last);
    if (dog->comm->board != NULL)
        espl__board_tell(dog->comm->board, ranks->node_size, ranks->node_rank, others, sizeof others);
    fprintf(stderr,
            "espalier: watchdog: rank %d on %s: no progress for %.0f s at step %lld in %s%s%s%s; ending the job (run.watchdog: %g)\n",
            ranks->rank, ranks->host, idle, (long long)atomic_load(&dog->step), atomic_load(&dog->op), last[0] != '\0' ? ", behind " : "",
            last, others, dog->seconds);
    fflush(stderr);
    pthread_t thread;
    pthread_create(&thread, NULL, leave_anyway, NULL);
    if (bulk != NULL)
        dog->comm->bulk_calls->abort(bulk); /* lets go of what the network holds, on all nodes */
    dog->comm->transport->abort(ESPL_ERR_IO);
    _exit(ESPL_ERR_IO);
}

/* MPI may be anywhere: it is not asked to abort. A launcher ends the others, or their own watchdogs do. */
static void end_start(const espl__watchdog *dog, double idle) {
    fprintf(stderr,
            "espalier: watchdog: rank %d on %s: MPI has not brought the ranks together within %.0f s: one has died or never started, or "
            "their hosts do not reach each other (`espalier doctor`); ending this one (ESPL_START_SECONDS: %g)\n",
            dog->before.rank, dog->before.host, idle, dog->seconds);
    _exit(ESPL_ERR_IO);
}

/* Sleeps until `seconds` have passed or stop is set; returns stop. */
static int nap(espl__watchdog *dog, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nanoseconds = until.tv_nsec + (int64_t)(seconds * 1e9);
    until.tv_sec += nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;
    pthread_mutex_lock(&dog->mutex);
    int rc = 0;
    while (!dog->stop && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&dog->stop_changed, &dog->mutex, &until);
    int stop = dog->stop;
    pthread_mutex_unlock(&dog->mutex);
    return stop;
}

/* Idle time is counted nap by nap and a nap counts at most double: a job that was suspended as a whole does not die on resuming. */
static void *watch(void *argument) {
    espl__watchdog *dog = argument;
    const double tick = dog->seconds / 16 < 1.0 ? dog->seconds / 16 : 1.0;
    unsigned long seen = atomic_load(&dog->beats);
    double idle = 0, before = espl_now();
    while (!nap(dog, tick)) {
        double now = espl_now(), passed = now - before;
        unsigned long beats = atomic_load(&dog->beats);
        idle = beats != seen ? 0 : idle + (passed < 2 * tick ? passed : 2 * tick);
        seen = beats;
        before = now;
        if (idle > dog->seconds)
            dog->end(dog, idle);
    }
    return NULL;
}

static void init_condition(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* `setting` is what keeps it from being started. */
static espl_status start(espl_comm *comm, double seconds, void (*end)(const espl__watchdog *, double), const char *setting) {
    ESPL_ASSERT(comm->watchdog == NULL, "the watchdog is already there");
    if (seconds <= 0)
        return ESPL_OK;
    espl__watchdog *dog = espl_calloc(1, sizeof *dog);
    dog->comm = comm;
    dog->end = end;
    dog->before = comm->ranks;
    dog->seconds = seconds;
    atomic_store(&dog->op, "start");
    pthread_mutex_init(&dog->mutex, NULL);
    init_condition(&dog->stop_changed);
    int rc = pthread_create(&dog->thread, NULL, watch, dog);
    if (rc != 0) {
        free(dog);
        ESPL_FAIL(ESPL_ERR_IO, "cannot start the watchdog thread: %s; raise the limit of processes (ulimit -u) or set %s", strerror(rc),
                  setting);
    }
    comm->watchdog = dog;
    return ESPL_OK;
}

espl_status espl_comm_watch(espl_comm *comm, double seconds) { return start(comm, seconds, end_job, "run.watchdog: 0"); }

espl_status espl__watchdog_start(espl_comm *comm, double seconds) { return start(comm, seconds, end_start, "ESPL_START_SECONDS=0"); }

void espl__watchdog_stop(espl__watchdog **address) {
    espl__watchdog *dog = *address;
    *address = NULL;
    if (dog == NULL)
        return;
    pthread_mutex_lock(&dog->mutex);
    dog->stop = 1;
    pthread_cond_signal(&dog->stop_changed);
    pthread_mutex_unlock(&dog->mutex);
    pthread_join(dog->thread, NULL);
    pthread_cond_destroy(&dog->stop_changed);
    pthread_mutex_destroy(&dog->mutex);
    free(dog);
}

void espl_comm_beat(espl_comm *comm, int64_t step, const char *op) {
    if (comm->watchdog == NULL)
        return;
    atomic_store_explicit(&comm->watchdog->step, step, memory_order_relaxed);
    espl_comm_point(comm, op);
}

void espl_comm_point(espl_comm *comm, const char *op) {
    if (comm->watchdog == NULL)
        return;
    atomic_store_explicit(&comm->watchdog->op, op, memory_order_relaxed);
    atomic_fetch_add_explicit(&comm->watchdog->beats, 1, memory_order_relaxed);
    if (comm->board != NULL)
        espl__board_post(comm->board + comm->ranks.node_rank, atomic_load_explicit(&comm->watchdog->step, memory_order_relaxed), op);
}
