#include "kernels/cuda/entries.h"
#include "kernels/cuda/linear_lt.h"

/* A part with its places: u's column, and B's. */
typedef struct place {
    const espl_args *args;
    espl_dtype real;
    const espl_lora_part *part;
    int64_t at, weight;
} place;

static const char *in_reals(const place *p, const void *base, int64_t element) {
    return (const char *)base + element * espl__real_size(p->real);
}

static espl__gemm product(const place *p) {
    return (espl__gemm){.in = p->real, .out = p->real, .alpha = p->part->scale, .work = p->args->work};
}

static bool out_in(const place *p) { return p->args->attrs->layout == ESPL_OUT_IN; }

/* y[:, part] += scale u_part B^T */
static void apply(const place *p) {
    const espl_args *args = p->args;
    espl__gemm g = product(p);
    g.m = espl__rows_of(args)->tokens, g.n = p->part->width, g.k = p->part->rank;
    g.a = in_reals(p, args->in[0], p->at), g.lda = args->attrs->n_in;
    g.b = in_reals(p, args->param[0], p->weight), g.trans_b = out_in(p), g.ldb = g.trans_b ? p->part->rank : p->part->width;
    g.c = (void *)(uintptr_t)in_reals(p, args->out[0], p->part->column), g.ldc = args->attrs->n_out, g.add = true;
    espl__cuda_gemm(&g);
}

/* du_part = scale dy_part B */
static void input_gradient(const place *p) {
    const espl_args *args = p->args;
    espl__gemm g = product(p);
    g.m = espl__rows_of(args)->tokens, g.n = p->part->rank, g.k = p->part->width;
    g.a = in_reals(p, args->dout[0], p->part->column), g.lda = args->attrs->n_out;
    g.b = in_reals(p, args->param[0], p->weight), g.trans_b = !out_in(p), g.ldb = g.trans_b ? p->part->width : p->part->rank;
    g.c = (void *)(uintptr_t)in_reals(p, args->din[0], p->at), g.ldc = args->attrs->n_in, g.add = args->din_add[0];
    espl__cuda_gemm(&g);
}

/* dB = scale dy_part^T u_part, or its transpose. */
static void weight_gradient(const place *p) {
    const espl_args *args = p->args;
    espl__gemm g = product(p);
    g.out = ESPL_F32;
    const char *dy = in_reals(p, args->dout[0], p->part->column), *u = in_reals(p, args->in[0], p->at);
    bool is_out_in = out_in(p);
    g.m = is_out_in ? p->part->width : p->part->rank, g.n = is_out_in ? p->part->rank : p->part->width;
    g.k = espl__rows_of(args)->tokens;
    g.a = is_out_in ? dy : u, g.lda = is_out_in ? args->attrs->n_out : args->attrs->n_in, g.trans_a = true;
    g.b = is_out_in ? u : dy, g.ldb = is_out_in ? args->attrs->n_in : args->attrs->n_out;
    g.c = (float *)args->dparam[0] + p->weight, g.ldc = g.n, g.add = args->dparam_add[0];
    espl__cuda_gemm(&g);
}

static void gradients(const place *p) {
    if (p->args->din[0] != NULL)
        input_gradient(p);
    if (p->args->dparam[0] != NULL)
        weight_gradient(p);
}

static void for_parts(const espl_args *args, espl_dtype real, void (*run)(const place *)) {
    place p = {.args = args, .real = real};
    for (int i = 0; i < args->attrs->n_parts; i++) {
        p.part = &args->attrs->part[i];
        run(&p);
        p.at += p.part->rank;
        p.weight += p.part->width * p.part->rank;
    }
}

void espl__cuda_fp32_lora_forward(const espl_args *args) { for_parts(args, ESPL_F32, apply); }
void espl__cuda_bf16_lora_forward(const espl_args *args) { for_parts(args, ESPL_BF16, apply); }
void espl__cuda_fp32_lora_backward(const espl_args *args) { for_parts(args, ESPL_F32, gradients); }
void espl__cuda_bf16_lora_backward(const espl_args *args) { for_parts(args, ESPL_BF16, gradients); }
