/* The sum over ranks in the order of a fixed binary tree; what comm/nccl.c adds with. */
#ifndef ESPL_KERNELS_CUDA_TREE_SUM_H
#define ESPL_KERNELS_CUDA_TREE_SUM_H

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ESPL_TREE_LEVELS = 20 }; /* of at most 2^20 ranks */

/* Local. own[i] = ((p0[i] + p1[i]) + (p2[i] + p3[i])) + ... behind what is on `stream`; p_q of `size` parts, a power of two, is
 * stage + q n, that of `rank` is `own` itself. The bits of comm/mpi_bulk.c. */
void espl__cuda_tree_sum(float *own, const float *stage, int64_t n, int rank, int size, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
