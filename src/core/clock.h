/* Time in seconds. */
#ifndef ESPL_CORE_CLOCK_H
#define ESPL_CORE_CLOCK_H

#include <time.h>

static inline double espl__clock_read(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Local. Of the monotonic clock, for measuring: the same for all processes of a node. */
static inline double espl_now(void) { return espl__clock_read(CLOCK_MONOTONIC); }

/* Local. Since 1970, for records and for comparing nodes. */
static inline double espl_wall_clock(void) { return espl__clock_read(CLOCK_REALTIME); }

#endif
