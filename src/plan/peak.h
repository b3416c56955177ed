/* What the matrix product of a device reaches, measured through the same kernels that training uses. */
#ifndef ESPL_PLAN_PEAK_H
#define ESPL_PLAN_PEAK_H

#include "kernels/engine.h"

/* Local. Flops a second of the fastest forward LINEAR within about `seconds`. On the host a square one of 1024 for one thread, 2048 for
 * more; of 512 where `crowd` (more than 1) threads share a core, and then the rate is this rank's part of it. On a GPU `tokens` rows, which
 * is what was reserved there, by 4096 x 4096. Takes its own memory for the while; *flops is 0 where a GPU has none left. An emulator is
 * given a tiny product: its speed means nothing. Errors: what a kernel failed with. */
espl_status espl_peak_measure(const espl_engine *engine, int threads, double crowd, int64_t tokens, double seconds, double *flops);

#endif
