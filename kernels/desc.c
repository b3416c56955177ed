#include "kernels/kernels.h"

const espl_op_desc espl_ops[ESPL_N_OPS] = {
#define OP(ID, op_name, inputs, outputs, params, bwd_inputs, bwd_outputs, op_flags)                                                        \
    [ESPL_OP_##ID] = {.name = #op_name,                                                                                                    \
                      .n_in = (inputs),                                                                                                    \
                      .n_out = (outputs),                                                                                                  \
                      .n_param = (params),                                                                                                 \
                      .bwd_in = (bwd_inputs),                                                                                              \
                      .bwd_out = (bwd_outputs),                                                                                            \
                      .flags = (op_flags)},
#include "kernels/ops.def"
#undef OP
};

static double lora_numel(const espl_attrs *attrs) {
    double numel = 0.0;
    for (int i = 0; i < attrs->n_parts; i++)
        numel += (double)attrs->part[i].width * attrs->part[i].rank;
    return numel;
}

double espl_op_flops(espl_op op, const espl_attrs *attrs, double n, double pairs) {
    switch (op) {
    case ESPL_OP_LINEAR:
    case ESPL_OP_QKV: return 2.0 * n * (double)attrs->n_in * (double)attrs->n_out;
    case ESPL_OP_LORA: return 2.0 * n * lora_numel(attrs);
    case ESPL_OP_WEIGHT_NORM: return 2.0 * (double)attrs->n_in * lora_numel(attrs); /* of no token */
    case ESPL_OP_MLP: return 2.0 * n * (double)attrs->ffn * ((double)attrs->n_in + (double)attrs->n_out);
    case ESPL_OP_LINEAR_XENT: return 2.0 * n * (double)attrs->n_in * (double)attrs->vocab;
    case ESPL_OP_ATTENTION:
    case ESPL_OP_CROSS_ATTENTION:
    case ESPL_OP_ATTENTION_CACHED: return 4.0 * pairs * attrs->heads * attrs->head_dim;
    default: return 0.0;
    }
}
