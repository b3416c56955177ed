#include "kernels/ref/ref.h"

#include <string.h>

/* Only LINEAR_XENT needs work: the logits of one token. */
size_t REF(work_bytes)(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)n, (void)threads, (void)backward;
    return op == ESPL_OP_LINEAR_XENT ? (size_t)attrs->vocab * sizeof(real) : 0;
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
    .work_bytes = REF(work_bytes),
    .adamw = REF(adamw),
    .sum_squares = REF(sum_squares),
    .sum = REF(sum),
    .add = REF(add),
    .zero = zero,
    .copy = copy,
};
