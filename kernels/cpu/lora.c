#include "kernels/cpu/gemm.h"
#include "kernels/cpu/table.h"

/* A part with its places: u's column, and B's. */
typedef struct place {
    const espl_lora_part *part;
    int64_t at, weight;
} place;

/* y[:, part] += scale u_part B^T */
static void apply(const espl_args *args, const place *p) {
    const espl_attrs *attrs = args->attrs;
    bool out_in = attrs->layout == ESPL_OUT_IN;
    CPU(gemm)
    (&(gemm){.m = args->batch->n,
             .n = p->part->width,
             .k = p->part->rank,
             .a = (const real *)args->in[0] + p->at,
             .lda = attrs->n_in,
             .b = (const real *)args->param[0] + p->weight,
             .ldb = out_in ? p->part->rank : p->part->width,
             .trans_b = out_in,
             .c = (real *)args->out[0] + p->part->column,
             .ldc = attrs->n_out,
             .c_dtype = REAL_DTYPE,
             .alpha = p->part->scale,
             .add = true,
             .work = args->work});
}

/* du_part = scale dy_part B */
static void input_gradient(const espl_args *args, const place *p) {
    const espl_attrs *attrs = args->attrs;
    bool out_in = attrs->layout == ESPL_OUT_IN;
    CPU(gemm)
    (&(gemm){.m = args->batch->n,
             .n = p->part->rank,
             .k = p->part->width,
             .a = (const real *)args->dout[0] + p->part->column,
             .lda = attrs->n_out,
             .b = (const real *)args->param[0] + p->weight,
             .ldb = out_in ? p->part->rank : p->part->width,
             .trans_b = !out_in,
             .c = (real *)args->din[0] + p->at,
             .ldc = attrs->n_in,
             .c_dtype = REAL_DTYPE,
             .alpha = p->part->scale,
             .add = args->din_add[0],
             .work = args->work});
}

/* dB = scale dy_part^T u_part, or its transpose. */
static void weight_gradient(const espl_args *args, const place *p) {
    const espl_attrs *attrs = args->attrs;
    const real *dy = (const real *)args->dout[0] + p->part->column, *u = (const real *)args->in[0] + p->at;
    bool out_in = attrs->layout == ESPL_OUT_IN;
    CPU(gemm)
    (&(gemm){.m = out_in ? p->part->width : p->part->rank,
             .n = out_in ? p->part->rank : p->part->width,
             .k = args->batch->n,
             .a = out_in ? dy : u,
             .lda = out_in ? attrs->n_out : attrs->n_in,
             .trans_a = true,
             .b = out_in ? u : dy,
             .ldb = out_in ? attrs->n_in : attrs->n_out,
             .c = (float *)args->dparam[0] + p->weight,
             .ldc = out_in ? p->part->rank : p->part->width,
             .c_dtype = ESPL_F32,
             .alpha = p->part->scale,
             .add = args->dparam_add[0],
             .work = args->work});
}

static void gradients(const espl_args *args, const place *p) {
    if (args->din[0])
        input_gradient(args, p);
    if (args->dparam[0])
        weight_gradient(args, p);
}

static void for_parts(const espl_args *args, void (*run)(const espl_args *, const place *)) {
    place p = {0};
    for (int i = 0; i < args->attrs->n_parts; i++) {
        p.part = &args->attrs->part[i];
        run(args, &p);
        p.at += p.part->rank;
        p.weight += p.part->width * p.part->rank;
    }
}

void CPU(lora_forward)(const espl_args *args) { for_parts(args, apply); }

void CPU(lora_backward)(const espl_args *args) { for_parts(args, gradients); }
