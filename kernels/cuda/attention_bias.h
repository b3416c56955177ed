/* Relative position biases (kernels/relative_bias.h) on GPUs: tables by offset for the kernels of attention, and the gradient from their
 * sums by offset. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_BIAS_H
#define ESPL_KERNELS_CUDA_ATTENTION_BIAS_H

#include "kernels/cuda/state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Local. tables [H, entries] = P0 over the scale, as products of queries and keys are before they are scaled. */
void espl__cuda_bias_tables(const espl_args *args, espl_dtype real, bool causal, float *tables);

/* Local. dP0 from slopes [H, parts, entries], summed in order. */
void espl__cuda_bias_gradient(const espl_args *args, const float *slopes, int parts);

#ifdef __cplusplus
}
#endif

#endif
