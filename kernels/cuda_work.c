#include "kernels/cuda_work.h"

#include "kernels/cuda_attention_work.h"
#include "kernels/cuda_cudnn_work.h"
#include "kernels/cuda_matmul_work.h"
#include "kernels/cuda_rows_work.h"
#include "kernels/whole_tensors.h"

#include <stdlib.h>
#include <string.h>

/* Ops without a function take none. */
static espl__cuda_work_fn *const work_of[ESPL_N_OPS] = {
    [ESPL_OP_EMBED] = espl__embed_work,
    [ESPL_OP_RESNORM] = espl__resnorm_work,
    [ESPL_OP_LINEAR] = espl__linear_work,
    [ESPL_OP_QKV] = espl__linear_work,
    [ESPL_OP_LORA] = espl__linear_work,
    [ESPL_OP_MAGNITUDE] = espl__magnitude_work,
    [ESPL_OP_ATTENTION] = espl__attention_work,
    [ESPL_OP_LINEAR_XENT] = espl__xent_work,
    [ESPL_OP_MLP] = espl__mlp_work,
    [ESPL_OP_ATTENTION_CACHED] = espl__attention_work,
    [ESPL_OP_CROSS_ATTENTION] = espl__attention_work,
};

static size_t work(espl_op op, const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    size_t own = work_of[op] != NULL ? work_of[op](attrs, real, n, backward) : 0;
    const char *asked = getenv("ESPL_CUDA_ATTENTION");
    bool has_cudnn = op == ESPL_OP_ATTENTION && (asked == NULL || strcmp(asked, "own") != 0);
    size_t cudnn = has_cudnn ? espl__cudnn_work(attrs, real, n, backward) : 0;
    return own > cudnn ? own : cudnn;
}

size_t espl__cuda_fp32_work(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)threads;
    return work(op, attrs, ESPL_F32, n, backward);
}

size_t espl__cuda_bf16_work(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)threads;
    return work(op, attrs, ESPL_BF16, n, backward);
}

size_t espl__cuda_fp32_rule_work(espl_rule rule, const espl_rule_tensor *tensor, int threads) {
    (void)threads;
    return espl__rule_work(rule, tensor, sizeof(float), ESPL_GEMM_WORK);
}

size_t espl__cuda_bf16_rule_work(espl_rule rule, const espl_rule_tensor *tensor, int threads) {
    (void)threads;
    return espl__rule_work(rule, tensor, sizeof(espl_bf16), ESPL_GEMM_WORK);
}
