#include "kernels/cuda/entries.h"
#include "kernels/cuda/linear_lt.h"

/* Two LINEARs with an ACT between them. The tanh form of GELU rides on the products (cuBLASLt's GELU is that form, and its auxiliary output
 * is what GELU was taken of); other activations take a pass of their own. The bias's gradient is summed by LINEAR's kernel, not by an
 * epilogue, which would round it to C's format and could not add. Work: that of products, then [N,F] of f(out1), and in backward, where
 * its last reader is done, of dh in the same place. */
typedef struct parts {
    espl_dtype real;
    espl_attrs first_attrs, act_attrs, second_attrs;
    espl_args first, act, second;
} parts;

static void parts_of(const espl_args *args, espl_dtype real, parts *p) {
    void *hidden = (char *)args->work + espl__mlp_products_work(args->attrs);
    p->real = real;
    p->first_attrs = p->act_attrs = p->second_attrs = *args->attrs;
    p->first_attrs.n_out = p->act_attrs.n_in = p->act_attrs.n_out = p->second_attrs.n_in = args->attrs->ffn;
    p->first = (espl_args){.attrs = &p->first_attrs,
                           .batch = args->batch,
                           .in = {args->in[0]},
                           .out = {args->out[1]},
                           .param = {args->param[0], args->param[1]},
                           .din = {args->din[0]},
                           .din_add = {args->din_add[0]},
                           .dout = {hidden},
                           .dparam = {args->dparam[0], args->dparam[1]},
                           .dparam_add = {args->dparam_add[0], args->dparam_add[1]},
                           .work = args->work};
    p->act =
        (espl_args){.attrs = &p->act_attrs, .batch = args->batch, .in = {args->out[1]}, .out = {hidden}, .dout = {hidden}, .din = {hidden}};
    p->second = (espl_args){.attrs = &p->second_attrs,
                            .batch = args->batch,
                            .in = {hidden},
                            .out = {args->out[0]},
                            .param = {args->param[2], args->param[3]},
                            .dout = {args->dout[0]},
                            .dparam = {args->dparam[2], args->dparam[3]},
                            .dparam_add = {args->dparam_add[2], args->dparam_add[3]},
                            .work = args->work};
}

/* What cuBLASLt asks of an auxiliary matrix: whole and aligned pieces of 16 bytes. */
static bool rides_on_products(const parts *p) {
    uintptr_t bits = (uintptr_t)p->first.out[0] | (uintptr_t)p->act.out[0];
    return p->act_attrs.kind == ESPL_ACT_GELU_TANH && p->act_attrs.n_in % 8 == 0 && bits % 16 == 0;
}

static void first_with_gelu(const parts *p) {
    espl__gemm g = espl__cuda_linear_product(&p->first, p->real);
    g.epilogue = p->first.param[1] != NULL ? ESPL__GELU_BIAS : ESPL__GELU;
    g.c = p->act.out[0];
    g.aux = p->first.out[0];
    g.ld_aux = p->first_attrs.n_out;
    espl__cuda_gemm(&g);
}

static void activate(const parts *p) { (p->real == ESPL_F32 ? espl__cuda_fp32_act_forward : espl__cuda_bf16_act_forward)(&p->act); }

static void forward(const espl_args *args, espl_dtype real) {
    parts p;
    parts_of(args, real, &p);
    bool rides = rides_on_products(&p);
    if (rides) /* also where out1 is asked for alone: another epilogue may have another algorithm, and so other bits */
        first_with_gelu(&p);
    else
        espl__cuda_linear_apply(&p.first, real);
    if (args->out[0] == NULL)
        return;
    if (!rides)
        activate(&p);
    espl__cuda_linear_apply(&p.second, real);
}

/* dh = (dout0 W2^T) f'(out1) */
static void hidden_gradient(parts *p) {
    p->second.din[0] = p->act.dout[0];
    espl__gemm g = espl__cuda_linear_input_product(&p->second, p->real);
    if (rides_on_products(p)) {
        g.epilogue = ESPL__DGELU;
        g.aux = p->first.out[0];
        g.ld_aux = p->first_attrs.n_out;
        espl__cuda_gemm(&g);
    } else {
        espl__cuda_gemm(&g);
        (p->real == ESPL_F32 ? espl__cuda_fp32_act_backward : espl__cuda_bf16_act_backward)(&p->act);
    }
}

static void backward(const espl_args *args, espl_dtype real) {
    parts p;
    parts_of(args, real, &p);
    if (args->dparam[2] != NULL)
        activate(&p);
    espl__cuda_linear_gradients(&p.second, real); /* of the parameters */
    if (args->din[0] == NULL && args->dparam[0] == NULL && args->dparam[1] == NULL)
        return;
    hidden_gradient(&p);
    espl__cuda_linear_gradients(&p.first, real);
}

void espl__cuda_fp32_mlp_forward(const espl_args *args) { forward(args, ESPL_F32); }
void espl__cuda_bf16_mlp_forward(const espl_args *args) { forward(args, ESPL_BF16); }
void espl__cuda_fp32_mlp_backward(const espl_args *args) { backward(args, ESPL_F32); }
void espl__cuda_bf16_mlp_backward(const espl_args *args) { backward(args, ESPL_BF16); }
