/* What the matrix product of a device reaches, measured through the same kernels that training uses. */
#ifndef ESPL_PLAN_PEAK_H
#define ESPL_PLAN_PEAK_H

#include "kernels/engine.h"

/* Local. Flops a second of the fastest forward LINEAR within about `seconds`. On the host a square one that takes a core some milliseconds:
 * 512 for a thread with a core of its own, 1024 for up to 8, 2048 for more, 256 where `crowd` (8 or more) threads share one. On a GPU
 * `tokens` rows, which is what was reserved there, by 4096 x 4096. Takes its own memory for the while; *flops is 0 where a GPU has none
 * left. An emulator is given a tiny product: its speed means nothing. Errors: what a kernel failed with. */
espl_status espl_peak_measure(const espl_engine *engine, int threads, int crowd, int64_t tokens, double seconds, double *flops);

#endif
