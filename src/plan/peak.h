/* What this machine's matrix product reaches, measured through the same kernels that training uses. */
#ifndef ESPL_PLAN_PEAK_H
#define ESPL_PLAN_PEAK_H

#include "kernels/kernels.h"

/* Local. Flops a second of the fastest forward LINEAR of 2048 x 2048 x 2048 within about `seconds`; takes its own memory for the while. */
double espl_peak_measure(const espl_kernels *kernels, int threads, double seconds);

#endif
