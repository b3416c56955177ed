/* Quantised matrices (kernels/quant.h) as reals, whole: for products by cuBLASLt. */
#ifndef ESPL_KERNELS_CUDA_EXPAND_MATRIX_H
#define ESPL_KERNELS_CUDA_EXPAND_MATRIX_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Local. Expands a matrix at `from` to `to` [rows, columns] of `real`, on the compute stream. */
void espl__cuda_expand(const espl_quant *quant, const void *from, espl_dtype real, void *to);

#ifdef __cplusplus
}
#endif

#endif
