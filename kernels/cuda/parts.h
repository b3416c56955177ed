/* Parts of sums that travel as bf16, on a stream of the caller's: what comm/nccl.c rounds and adds with. On the compute stream they are in
 * the table of kernels. */
#ifndef ESPL_KERNELS_CUDA_PARTS_H
#define ESPL_KERNELS_CUDA_PARTS_H

#include "src/core/rank_parts.h"

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Local. As espl_parts_round and espl_parts_add, behind what is on `stream`. */
void espl__cuda_round_parts_on(const espl_rank_parts *to, const float *from, int64_t from_stride, cudaStream_t stream);
void espl__cuda_add_parts_on(float *own, const espl_rank_parts *from, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
