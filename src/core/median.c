#include "src/core/median.h"

#include <math.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double espl_median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_size);
    return n == 0 ? (double)NAN : 0.5 * (values[(n - 1) / 2] + values[n / 2]);
}
