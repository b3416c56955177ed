#include "kernels/cuda/entries.h"
#include "kernels/cuda_work.h"

#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    .forward[ESPL_OP_##ID] = espl__cuda_fp32_##name##_forward,                                                                             \
    .backward[ESPL_OP_##ID] = (flags)&ESPL_OP_FORWARD ? NULL : espl__cuda_fp32_##name##_backward,
const espl_kernels espl__cuda_fp32 = {
    .name = ESPL_BACKEND_KIND " fp32",
    .real = ESPL_F32,
    .stat = ESPL_F32,
#include "kernels/ops.def"
    .work_bytes = espl__cuda_fp32_work,
    .rule_work = espl__cuda_fp32_rule_work,
#define RULE(ID, name, matrices, states) .update[ESPL_RULE_##ID] = espl__cuda_fp32_##name,
#include "kernels/rules.def"
#undef RULE
    .sum_squares = espl__cuda_sum_squares,
    .sum = espl__cuda_sum,
    .add = espl__cuda_add,
    .round_parts = espl__cuda_round_parts,
    .add_parts = espl__cuda_add_parts,
    .zero = espl__cuda_zero,
    .copy = espl__cuda_copy,
};
#undef OP

#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    .forward[ESPL_OP_##ID] = espl__cuda_bf16_##name##_forward,                                                                             \
    .backward[ESPL_OP_##ID] = (flags)&ESPL_OP_FORWARD ? NULL : espl__cuda_bf16_##name##_backward,
const espl_kernels espl__cuda_bf16 = {
    .name = ESPL_BACKEND_KIND " bf16",
    .real = ESPL_BF16,
    .stat = ESPL_F32,
#include "kernels/ops.def"
    .work_bytes = espl__cuda_bf16_work,
    .rule_work = espl__cuda_bf16_rule_work,
#define RULE(ID, name, matrices, states) .update[ESPL_RULE_##ID] = espl__cuda_bf16_##name,
#include "kernels/rules.def"
#undef RULE
    .sum_squares = espl__cuda_sum_squares,
    .sum = espl__cuda_sum,
    .add = espl__cuda_add,
    .round_parts = espl__cuda_round_parts,
    .add_parts = espl__cuda_add_parts,
    .zero = espl__cuda_zero,
    .copy = espl__cuda_copy,
};
#undef OP

ESPL_EXPORT espl_backend_get_fn espl_backend_get;

const espl_backend *espl_backend_get(int device_version) {
    static const espl_backend backend = {
        .device = &espl__cuda_device, .fp32 = &espl__cuda_fp32, .bf16 = &espl__cuda_bf16, .bulk = &espl__cuda_bulk};
    return device_version == ESPL_DEVICE_VERSION ? &backend : NULL;
}
