/* Quantised matrices (kernels/quant.h) as reals, a rectangle at a time: what a tile of a product multiplies with. */
#ifndef ESPL_KERNELS_CPU_EXPAND_H
#define ESPL_KERNELS_CPU_EXPAND_H

#include "kernels/cpu/real.h"

/* A rectangle of a matrix. */
typedef struct expansion {
    const espl_quant *quant;
    const void *from; /* the matrix */
    int64_t row, rows, column, columns;
    real *to; /* [rows, columns] */
} expansion;

/* Local. Expands it, in the calling thread. */
void CPU(expand)(const expansion *x);

#endif
