/* Sums in the order of kernels/whole_tensors.h. */
#ifndef ESPL_KERNELS_CPU_WHOLE_SUMS_H
#define ESPL_KERNELS_CPU_WHOLE_SUMS_H

#include "kernels/cpu/real.h"
#include "kernels/whole_tensors.h"

enum { ROW_STRETCH = 512 }; /* floats of a row that are held at once, whole lanes */

/* Writes elements [from, from + n) of a row. */
typedef void row_fn(const void *of, int64_t row, int64_t from, int64_t n, float *x);

static inline double fold_lanes(double *lane, int lanes) {
    for (int half = lanes / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

/* The sum of the squares of row's n elements. Zeros behind the last change no lane. */
static inline double row_squares(row_fn *fill, const void *of, int64_t row, int64_t n) {
    double lane[ESPL_ROW_LANES] = {0};
    for (int64_t from = 0; from < n; from += ROW_STRETCH) {
        float x[ROW_STRETCH];
        int64_t count = min64(ROW_STRETCH, n - from), whole = round_up(count, ESPL_ROW_LANES);
        fill(of, row, from, count, x);
        for (int64_t i = count; i < whole; i++)
            x[i] = 0;
        for (int64_t i = 0; i < whole; i += ESPL_ROW_LANES)
#pragma omp simd
            for (int l = 0; l < ESPL_ROW_LANES; l++)
                lane[l] += (double)x[i + l] * x[i + l];
    }
    return fold_lanes(lane, ESPL_ROW_LANES);
}

/* The sum of one number for each of n rows. */
static inline double long_sum(const double *x, int64_t n) {
    double lane[ESPL_LONG_LANES] = {0};
    for (int64_t from = 0; from < n; from += ESPL_LONG_LANES)
        for (int64_t l = 0; l < min64(ESPL_LONG_LANES, n - from); l++)
            lane[l] += x[from + l];
    return fold_lanes(lane, ESPL_LONG_LANES);
}

#endif
