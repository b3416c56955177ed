/* Matrix products cut into tiles by shape, each computed by one single-threaded call of the BLAS or of oneDNN.
 *
 *   C[m,n] (+)= alpha op(A)[m,k] op(B)[k,n]        op: transposed or not; A and B real, C real or float
 *
 * B may be quantised (quant.h): the columns of C that a tile computes need a strip of it, which is expanded into work and multiplied with
 * as if it had been there; so the bits are those of the product with the whole of it expanded, and only a strip a thread is ever held.
 *
 * Products of few rows go through kernels of our own that read B once, at the speed of memory. */
#ifndef ESPL_KERNELS_CPU_GEMM_H
#define ESPL_KERNELS_CPU_GEMM_H

#include "kernels/cpu/real.h"

typedef struct gemm {
    int64_t m, n, k;
    const real *a, *b;
    const espl_quant *quant; /* B is quantised: `quantised`, and b is not read; NULL: it is not */
    const void *quantised;
    int64_t lda, ldb, ldc;
    bool trans_a, trans_b, add;
    float alpha;
    void *c;
    espl_dtype c_dtype; /* fp32, or real */
    int64_t unit;       /* tiles start at columns that are multiples of it; 0: 1 */
    void (*finish)(const struct gemm *g, int64_t row, int64_t rows, int64_t column, int64_t columns); /* after each tile; NULL: none */
    const void *finish_with;
    void *work; /* gemm_work() bytes, or gemm_quant_work() */
} gemm;

/* Local. C (+)= alpha op(A) op(B). */
void CPU(gemm)(const gemm *g);

/* Local. Bytes of work of any product by `threads` threads. */
size_t CPU(gemm_work)(int threads);

/* Local. The same where B may be quantised, with up to k rows of op(B) and tiles at multiples of `unit`. */
size_t CPU(gemm_quant_work)(int threads, int64_t k, int64_t unit);

/* Local. Of a product whose B is quantised: columns column .. + columns of op(B), expanded into the work of the calling thread. The product
 * with that alone as B, whose first column is that one. */
gemm CPU(gemm_strip)(const gemm *g, int64_t column, int64_t columns);

/* Local. The products of few rows: A not transposed, C overwritten, m <= few_rows_limit(). */
void CPU(few_rows)(const gemm *g);
int64_t CPU(few_rows_limit)(void);

#endif
