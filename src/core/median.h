#ifndef ESPL_CORE_MEDIAN_H
#define ESPL_CORE_MEDIAN_H

#include <stddef.h>

/* Local. The median of n numbers, which are sorted in place; the mean of the two in the middle of an even number; NAN of none. */
double espl_median(double *values, size_t n);

#endif
