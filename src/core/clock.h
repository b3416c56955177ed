/* Time, for measuring. */
#ifndef ESPL_CORE_CLOCK_H
#define ESPL_CORE_CLOCK_H

#include <time.h>

/* Local. Seconds of the monotonic clock. */
static inline double espl_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
