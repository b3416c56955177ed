/* LINEAR's parts, shared with QKV. */
#ifndef ESPL_KERNELS_CPU_LINEAR_H
#define ESPL_KERNELS_CPU_LINEAR_H

#include "kernels/cpu/gemm.h"

/* Local. out0 = in0 W + b, tile by tile; `finish`, or NULL, follows the bias of each tile, whose columns start at multiples of `unit`. */
typedef void linear_finish(const espl_args *args, int64_t row, int64_t rows, int64_t column, int64_t columns);
void CPU(linear_apply)(const espl_args *args, int64_t unit, linear_finish *finish);

#endif
