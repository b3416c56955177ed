/* Small products held in registers and first-level cache, for attention.
 *
 *   C[m,n] (+)= A[m,k] B[k,n]     A through two strides (so transposed too), B and C row-major, n a multiple of BLOCK_LANES
 *
 * An element of C is summed over k in order, with FMA where there is one, so how m and n are cut changes no bits. */
#ifndef ESPL_KERNELS_CPU_BLOCKS_H
#define ESPL_KERNELS_CPU_BLOCKS_H

#include "kernels/cpu/real.h"

enum { BLOCK_LANES = 16 };

typedef struct block_product {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_column; /* strides */
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    bool add;
} block_product;

/* Local. C (+)= A B. */
void CPU(block_multiply)(const block_product *p);

#endif
