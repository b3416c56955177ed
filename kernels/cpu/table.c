#include "kernels/cpu/gemm.h"
#include "kernels/cpu/table.h"
#include "kernels/whole_tensors.h"

#define QUOTE_(x) #x
#define QUOTE(x) QUOTE_(x)

typedef size_t work_fn(const espl_attrs *attrs, int64_t n, int threads, int backward);

static work_fn *const work_of[ESPL_N_OPS] = {
    [ESPL_OP_RESNORM] = CPU(resnorm_work),
    [ESPL_OP_LINEAR] = CPU(linear_work),
    [ESPL_OP_QKV] = CPU(linear_work),
    [ESPL_OP_LORA] = CPU(linear_work),
    [ESPL_OP_MAGNITUDE] = CPU(magnitude_work),
    [ESPL_OP_MLP] = CPU(mlp_work),
    [ESPL_OP_ATTENTION] = CPU(attention_work),
    [ESPL_OP_CROSS_ATTENTION] = CPU(attention_work),
    [ESPL_OP_ATTENTION_CACHED] = CPU(attention_cached_work),
    [ESPL_OP_LINEAR_XENT] = CPU(linear_xent_work),
};

static size_t work_bytes(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward) {
    return work_of[op] ? work_of[op](attrs, n, threads, backward) : 0;
}

static size_t rule_work(espl_rule rule, const espl_rule_tensor *tensor, int threads) {
    return espl__rule_work(rule, tensor, sizeof(real), CPU(gemm_work)(threads));
}

const espl_kernels CPU(table) = {
    .name = "cpu " QUOTE(ESPL_ISA) " " QUOTE(ESPL_REAL),
    .real = REAL_DTYPE,
    .stat = ESPL_F32,
#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    .forward[ESPL_OP_##ID] = CPU(name##_forward), .backward[ESPL_OP_##ID] = (flags)&ESPL_OP_FORWARD ? NULL : CPU(name##_backward),
#include "kernels/ops.def"
#undef OP
#define RULE(ID, name, matrices, states) .update[ESPL_RULE_##ID] = CPU(name),
#include "kernels/rules.def"
#undef RULE
    .work_bytes = work_bytes,
    .rule_work = rule_work,
    .sum_squares = CPU(sum_squares),
    .sum = CPU(sum),
    .add = CPU(add),
    .round_parts = CPU(round_parts),
    .add_parts = CPU(add_parts),
    .zero = CPU(zero),
    .copy = CPU(copy),
};
