#include "kernels/cuda/entries.h"
#include "kernels/cuda/linear_lt.h"
#include "kernels/mlp_parts.h"

/* The tanh form of GELU rides on the products (cuBLASLt's GELU is that form, and its auxiliary output is what GELU was taken of); other
 * activations take a pass of their own. The bias's gradient is summed by LINEAR's kernel, not by an epilogue, which would round it to C's
 * format and could not add. */
typedef struct mlp {
    espl_dtype real;
    espl__mlp_parts parts;
} mlp;

/* Work: that of products, then [N,F]. */
static void mlp_of(const espl_args *args, espl_dtype real, mlp *m) {
    m->real = real;
    espl__mlp_parts_of(args, (char *)args->work + espl__mlp_products_work(args->attrs, real), args->work, &m->parts);
}

/* What cuBLASLt asks of an auxiliary matrix: whole and aligned pieces of 16 bytes. */
static bool rides_on_products(const mlp *m) {
    const espl_args *act = &m->parts.act;
    uintptr_t bits = (uintptr_t)act->in[0] | (uintptr_t)act->out[0];
    return act->attrs->kind == ESPL_ACT_GELU_TANH && act->attrs->n_in % 8 == 0 && bits % 16 == 0;
}

static void set_aux(const mlp *m, espl__gemm *g) {
    g->aux = m->parts.first.out[0];
    g->ld_aux = m->parts.first_attrs.n_out;
}

static void first_with_gelu(const mlp *m) {
    espl__gemm g = espl__cuda_linear_product(&m->parts.first, m->real);
    g.epilogue = m->parts.first.param[1] != NULL ? ESPL__GELU_BIAS : ESPL__GELU;
    g.c = m->parts.act.out[0];
    set_aux(m, &g);
    espl__cuda_gemm(&g);
}

static void activate(const mlp *m) { (m->real == ESPL_F32 ? espl__cuda_fp32_act_forward : espl__cuda_bf16_act_forward)(&m->parts.act); }

static void slope(const espl_args *act, espl_dtype real) {
    (real == ESPL_F32 ? espl__cuda_fp32_act_backward : espl__cuda_bf16_act_backward)(act);
}

static void add_residual(mlp *m, const espl_args *args, bool backward) {
    espl__mlp_pass_of(args, backward, &m->parts);
    slope(&m->parts.pass, m->real);
}

static void forward(const espl_args *args, espl_dtype real) {
    mlp m;
    mlp_of(args, real, &m);
    bool rides = rides_on_products(&m);
    if (rides) /* also where out1 is asked for alone: another epilogue may have another algorithm, and so other bits */
        first_with_gelu(&m);
    else
        espl__cuda_linear_apply(&m.parts.first, real);
    if (args->out[0] == NULL)
        return;
    if (!rides)
        activate(&m);
    espl__cuda_linear_apply(&m.parts.second, real);
    if (args->attrs->residual)
        add_residual(&m, args, false);
}

/* dh = (dout0 W2^T) f'(out1) */
static void hidden_gradient(mlp *m) {
    m->parts.second.din[0] = m->parts.act.dout[0];
    espl__gemm g = espl__cuda_linear_input_product(&m->parts.second, m->real);
    if (rides_on_products(m)) {
        g.epilogue = ESPL__DGELU;
        set_aux(m, &g);
        espl__cuda_gemm(&g);
    } else {
        espl__cuda_gemm(&g);
        slope(&m->parts.act, m->real);
    }
}

static void backward(const espl_args *args, espl_dtype real) {
    mlp m;
    mlp_of(args, real, &m);
    if (args->dparam[2] != NULL)
        activate(&m);
    espl__cuda_linear_gradients(&m.parts.second, real); /* of the parameters */
    if (!espl__mlp_needs_hidden_gradient(args))
        return;
    hidden_gradient(&m);
    if (args->attrs->residual && args->din[0] != NULL)
        add_residual(&m, args, true);
    espl__cuda_linear_gradients(&m.parts.first, real);
}

void espl__cuda_fp32_mlp_forward(const espl_args *args) { forward(args, ESPL_F32); }
void espl__cuda_bf16_mlp_forward(const espl_args *args) { forward(args, ESPL_BF16); }
void espl__cuda_fp32_mlp_backward(const espl_args *args) { backward(args, ESPL_F32); }
void espl__cuda_bf16_mlp_backward(const espl_args *args) { backward(args, ESPL_BF16); }
