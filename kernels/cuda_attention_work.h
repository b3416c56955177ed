/* The scratch of ATTENTION's backward on GPUs: two floats a query and head, lse log2(e) and rowsum(dO * O), as [H, padded rows] each.
 * Padded, so that a tile of queries may be read whole. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_WORK_H
#define ESPL_KERNELS_CUDA_ATTENTION_WORK_H

#include "kernels/kernels.h"

static inline int64_t espl__attention_padded_rows(int64_t n) { return (n + 127) / 128 * 128; }

static inline size_t espl__attention_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)real;
    return backward ? (size_t)(2 * attrs->heads * espl__attention_padded_rows(n)) * sizeof(float) : 0;
}

#endif
