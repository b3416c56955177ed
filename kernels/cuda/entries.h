/* Every function that the tables of the backend hold; the .cu files that define them include this, so that names and types agree.
 * All of them launch on espl__cuda->compute and return at once. */
#ifndef ESPL_KERNELS_CUDA_ENTRIES_H
#define ESPL_KERNELS_CUDA_ENTRIES_H

#include "kernels/cuda/state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* espl__cuda_fp32_embed_forward and so on: the contracts stand in kernels.h. */
#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    espl_kernel espl__cuda_fp32_##name##_forward, espl__cuda_bf16_##name##_forward;                                                        \
    espl_kernel espl__cuda_fp32_##name##_backward, espl__cuda_bf16_##name##_backward;
#include "kernels/ops.def"
#undef OP

#define RULE(ID, name, matrices, states) espl_rule_kernel espl__cuda_fp32_##name, espl__cuda_bf16_##name;
#include "kernels/rules.def"
#undef RULE

void espl__cuda_sum_squares(const float *x, int64_t n, espl_exact *sum);
void espl__cuda_sum(const float *x, int64_t n, espl_exact *sum);
void espl__cuda_add(float *to, const float *from, int64_t n);
espl_parts_round espl__cuda_round_parts;
espl_parts_add espl__cuda_add_parts;
void espl__cuda_zero(void *to, size_t bytes);
void espl__cuda_copy(void *to, const void *from, size_t bytes);

extern const espl_kernels espl__cuda_fp32, espl__cuda_bf16;
extern const espl_device_calls espl__cuda_device;
const char *espl__cuda_bulk_version(void); /* "NCCL 2.32.3" */
struct espl_bulk_calls;
extern const struct espl_bulk_calls espl__cuda_bulk; /* comm/nccl.c */

#ifdef __cplusplus
}
#endif

#endif
