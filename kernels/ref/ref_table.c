#include "kernels/ref/ref.h"

#include <string.h>

/* Of one token: the logits, or what an MLP has between its matrices and the gradient of that; matrices that are quantised. */
size_t REF(work_bytes)(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)n, (void)threads, (void)backward;
    int64_t held = op == ESPL_OP_LINEAR_XENT ? attrs->vocab : op == ESPL_OP_MLP ? 2 * attrs->ffn : 0;
    if (attrs->quant[0].format != ESPL_QUANT_NONE || attrs->quant[1].format != ESPL_QUANT_NONE)
        held += op == ESPL_OP_MLP ? attrs->ffn * (attrs->n_in + attrs->n_out) : attrs->n_in * attrs->n_out;
    return (size_t)held * sizeof(real);
}

static void zero(void *to, size_t bytes) { memset(to, 0, bytes); }

static void copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

const espl_kernels REF(table) = {
    .name = sizeof(real) == 8 ? "ref fp64" : "ref fp32",
    .real = sizeof(real) == 8 ? ESPL_F64 : ESPL_F32,
    .stat = sizeof(real) == 8 ? ESPL_F64 : ESPL_F32,
#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    .forward[ESPL_OP_##ID] = REF(name##_forward), .backward[ESPL_OP_##ID] = (flags)&ESPL_OP_FORWARD ? NULL : REF(name##_backward),
#include "kernels/ops.def"
#undef OP
#define RULE(ID, name, matrices, states) .update[ESPL_RULE_##ID] = REF(name),
#include "kernels/rules.def"
#undef RULE
    .work_bytes = REF(work_bytes),
    .rule_work = REF(rule_work),
    .sum_squares = REF(sum_squares),
    .sum = REF(sum),
    .add = REF(add),
    .round_parts = REF(round_parts),
    .add_parts = REF(add_parts),
    .zero = zero,
    .copy = copy,
};
