/* LINEAR's parts, shared with QKV. */
#ifndef ESPL_KERNELS_CPU_LINEAR_H
#define ESPL_KERNELS_CPU_LINEAR_H

#include "kernels/cpu/gemm.h"

/* Local. out0 = in0 W + b, tile by tile; `finish`, or NULL, follows the bias of each tile, whose columns start at multiples of `unit`. */
typedef void linear_finish(const espl_args *args, int64_t row, int64_t rows, int64_t column, int64_t columns);
void CPU(linear_apply)(const espl_args *args, int64_t unit, linear_finish *finish);

/* A matrix whose rows are summed, as the gradient of a bias is. */
typedef struct column_sums {
    const real *x, *times; /* rows ld elements apart; times: each element of x is multiplied with; NULL: nothing */
    const float *over;     /* [columns] the sums are divided by; NULL: nothing */
    int64_t rows, columns, ld;
} column_sums;

/* Local. to[c] (+)= sum over rows, in an order that follows from the shape. */
void CPU(sum_columns)(const column_sums *sums, float *to, bool add);

#endif
