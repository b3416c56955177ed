/* Scratch memory that the CUDA kernels take, known without a GPU: `espalier plan` asks for it on machines that have none. The kernels lay
 * their scratch out with the same functions. */
#ifndef ESPL_KERNELS_CUDA_WORK_H
#define ESPL_KERNELS_CUDA_WORK_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Local. Bytes for one op in the format `real`, n tokens; a multiple of 256. */
typedef size_t espl__cuda_work_fn(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward);

/* Local. work_bytes of the tables (kernels.h). */
size_t espl__cuda_fp32_work(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t espl__cuda_bf16_work(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward);

/* Local. rule_work of the tables. */
size_t espl__cuda_fp32_rule_work(espl_rule rule, const espl_rule_tensor *tensor, int threads);
size_t espl__cuda_bf16_rule_work(espl_rule rule, const espl_rule_tensor *tensor, int threads);

#ifdef __cplusplus
}
#endif

#endif
