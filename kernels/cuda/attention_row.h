/* CROSS_ATTENTION query by query, as ATTENTION_CACHED goes over its keys: attention_cached.cu. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_ROW_H
#define ESPL_KERNELS_CUDA_ATTENTION_ROW_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Local. Forward without dropout. */
void espl__cuda_cross_by_rows(const espl_args *args, espl_dtype real);

#ifdef __cplusplus
}
#endif

#endif
