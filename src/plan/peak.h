/* What this machine's matrix product reaches, measured through the same kernels that training uses. */
#ifndef ESPL_PLAN_PEAK_H
#define ESPL_PLAN_PEAK_H

#include "kernels/kernels.h"

/* Local. Median flops a second of a forward LINEAR of 1024 x 1024 x 1024 over about `seconds`; takes its own memory for the while. */
double espl_peak_measure(const espl_kernels *kernels, int threads, double seconds);

#endif
