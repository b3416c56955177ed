/* LINEAR for whoever adds something to it. */
#ifndef ESPL_KERNELS_CUDA_LINEAR_LT_H
#define ESPL_KERNELS_CUDA_LINEAR_LT_H

#include "kernels/cuda/gemm_lt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Local. out0 = in0 W (+ b) over all rows of the micro-batch. */
void espl__cuda_linear_apply(const espl_args *args, espl_dtype real);

/* Local. The product of that, and the one of din0 = dout0 W^T; for whoever gives them another epilogue. A quantised W is expanded, so the
 * product comes next. */
espl__gemm espl__cuda_linear_product(const espl_args *args, espl_dtype real);
espl__gemm espl__cuda_linear_input_product(const espl_args *args, espl_dtype real);

/* Local. din0, dP0 and dP1 from dout0. */
void espl__cuda_linear_gradients(const espl_args *args, espl_dtype real);

/* A matrix of reals whose rows are summed, as the gradient of a bias is. */
typedef struct espl__columns {
    const void *x; /* [rows, columns], rows ld elements apart */
    int64_t rows, columns, ld;
    float *sums;       /* scratch, [pieces of espl__sum_rows(rows) rows, columns] */
    float *to;         /* [columns] */
    bool add;          /* to what is there */
    const void *times; /* as x: what its elements are multiplied with; NULL: nothing */
    const float *over; /* [columns] what the sums are divided by; NULL: nothing */
} espl__columns;

/* Local. to[c] (+)= sum over rows of x[row][c], in an order that follows from the shape. */
void espl__cuda_sum_columns(const espl__columns *columns, espl_dtype real);

#ifdef __cplusplus
}
#endif

#endif
