#include "kernels/mlp_parts.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/table.h"

/* [N,F], in front of the work of products. */
static size_t hidden_bytes(const espl_attrs *attrs, int64_t n) { return (size_t)round_up(n * attrs->ffn * (int64_t)sizeof(real), 64); }

static void parts_of(const espl_args *args, espl__mlp_parts *p) {
    espl__mlp_parts_of(args, args->work, (char *)args->work + hidden_bytes(args->attrs, args->batch->n), p);
}

void CPU(mlp_forward)(const espl_args *args) {
    espl__mlp_parts p;
    parts_of(args, &p);
    CPU(linear_forward)(&p.first);
    if (!args->out[0])
        return;
    CPU(act_forward)(&p.act);
    CPU(linear_forward)(&p.second);
    if (args->attrs->residual) {
        espl__mlp_pass_of(args, false, &p);
        CPU(act_backward)(&p.pass);
    }
}

void CPU(mlp_backward)(const espl_args *args) {
    espl__mlp_parts p;
    parts_of(args, &p);
    if (args->dparam[2])
        CPU(act_forward)(&p.act);
    CPU(linear_backward)(&p.second); /* of the parameters */
    if (!espl__mlp_needs_hidden_gradient(args))
        return;
    p.second.din[0] = p.act.dout[0];
    p.second.dparam[0] = p.second.dparam[1] = NULL;
    CPU(linear_backward)(&p.second);
    CPU(act_backward)(&p.act);
    if (args->attrs->residual && args->din[0]) {
        espl__mlp_pass_of(args, true, &p);
        CPU(act_backward)(&p.pass);
    }
    CPU(linear_backward)(&p.first);
}

size_t CPU(mlp_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)backward;
    bool quantised = attrs->quant[0].format != ESPL_QUANT_NONE || attrs->quant[1].format != ESPL_QUANT_NONE;
    size_t products =
        quantised ? CPU(gemm_quant_work)(threads, max64(attrs->ffn, max64(attrs->n_in, attrs->n_out)), 1) : CPU(gemm_work)(threads);
    return hidden_bytes(attrs, n) + products;
}
