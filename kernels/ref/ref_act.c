#include "kernels/ref/ref.h"

/* gelu(x) = x (1 + erf(x / sqrt 2)) / 2; its tanh form (Hendrycks & Gimpel 2016) x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3);
 * silu(x) = x sigma(x), sigma(x) = 1 / (1 + exp(-x)). */
static const real sqrt_half = (real)0.70710678118654752440;
static const real sqrt_2_over_pi = (real)0.79788456080286535588;
static const real inv_sqrt_2_pi = (real)0.39894228040143267794;
static const real cubic = (real)0.044715;

real REF(act)(int32_t kind, real x) {
    switch (kind) {
    case ESPL_ACT_GELU_TANH: return x / 2 * (1 + MATH(tanh)(sqrt_2_over_pi * (x + cubic * x * x * x)));
    case ESPL_ACT_GELU: return x / 2 * MATH(erfc)(-x * sqrt_half);
    case ESPL_ACT_RELU: return x > 0 ? x : 0;
    case ESPL_ACT_SILU: return x / (1 + MATH(exp)(-x));
    case ESPL_ACT_REST:
    case ESPL_ACT_NONE: return x;
    default: return MATH(tanh)(x);
    }
}

/* tanh form: (1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) u';  gelu: Phi(x) + x phi(x);  silu: sigma (1 + x (1 - sigma));  tanh: 1 - tanh^2 */
real REF(act_slope)(int32_t kind, real x) {
    real t, sigma;
    switch (kind) {
    case ESPL_ACT_GELU_TANH:
        t = MATH(tanh)(sqrt_2_over_pi * (x + cubic * x * x * x));
        return (1 + t) / 2 + x / 2 * (1 - t * t) * sqrt_2_over_pi * (1 + 3 * cubic * x * x);
    case ESPL_ACT_GELU: return MATH(erfc)(-x * sqrt_half) / 2 + x * inv_sqrt_2_pi * MATH(exp)(-x * x / 2);
    case ESPL_ACT_RELU: return x > 0 ? 1 : 0;
    case ESPL_ACT_SILU: sigma = 1 / (1 + MATH(exp)(-x)); return sigma * (1 + x * (1 - sigma));
    case ESPL_ACT_REST:
    case ESPL_ACT_NONE: return 1;
    default: t = MATH(tanh)(x); return 1 - t * t;
    }
}

/* What dropout puts on an element, or what it takes away. */
static real factor(const espl_args *args, int64_t e) {
    real keep = ref_keep(args, (uint64_t)e);
    return args->attrs->kind == ESPL_ACT_REST ? 1 - keep : keep;
}

/* y = drop(f(x)) */
void REF(act_forward)(const espl_args *args) {
    const real *in = args->in[0];
    real *out = args->out[0];
    for (int64_t e = 0; e < args->batch->n * args->attrs->n_in; e++)
        out[e] = REF(act)(args->attrs->kind, in[e]) * factor(args, e);
}

/* dx = drop'(dy) f'(x) */
void REF(act_backward)(const espl_args *args) {
    const real *in = args->in[0], *dout = args->dout[0];
    real *din = args->din[0];
    for (int64_t e = 0; e < args->batch->n * args->attrs->n_in; e++)
        ref_put(&din[e], dout[e] * factor(args, e) * REF(act_slope)(args->attrs->kind, in[e]), args->din_add[0]);
}
