/* Tiles of 16 x 16 floats in registers, for packing. */
#ifndef ESPL_KERNELS_CPU_TRANSPOSE_H
#define ESPL_KERNELS_CPU_TRANSPOSE_H

#include "kernels/cpu/real.h"

/* 16 x 16 in place: in each round row i is laced with row i + 8, which moves one bit of the row's number to the column's. */
static inline void transpose(lanes16 x[16]) {
    lanes16 y[16];
    for (int round = 0; round < 2; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            x[2 * i] = __builtin_shufflevector(y[i], y[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            x[2 * i + 1] = __builtin_shufflevector(y[i], y[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
    }
}

/* Up to 16 of the n reals at x, 0 after them. */
static inline void load_some(lanes16 *to, const real *x, int64_t n) {
    real padded[LANES16] = {0};
    if (n < LANES16)
        memcpy(padded, x, (size_t)n * sizeof *x);
    load_lanes(to, n < LANES16 ? padded : x);
}

#endif
