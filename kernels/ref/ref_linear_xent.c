#include "kernels/ref/ref.h"

/* Fills `logits` [V] of token t and returns its loss: z_v = scale x . W_v;  loss = log(sum over v of exp(z_v)) - z_target. */
static real token_loss(const espl_args *args, int64_t t, real *logits, real *lse) {
    const espl_attrs *attrs = args->attrs;
    const real *x = (const real *)args->in[0] + t * attrs->n_in, *weight = args->param[0];
    real top = -INFINITY, sum = 0;
    for (int64_t v = 0; v < attrs->vocab; v++) {
        logits[v] = (real)attrs->scale * ref_dot(x, weight + v * attrs->n_in, attrs->n_in);
        top = MATH(fmax)(top, logits[v]);
    }
    for (int64_t v = 0; v < attrs->vocab; v++)
        sum += MATH(exp)(logits[v] - top);
    *lse = top + MATH(log)(sum);
    return *lse - logits[args->batch->targets[t]];
}

void REF(linear_xent_forward)(const espl_args *args) {
    real lse, *loss = args->out[0];
    for (int64_t t = 0; t < args->batch->n; t++)
        loss[t] = args->batch->targets[t] < 0 ? 0 : token_loss(args, t, args->work, &lse);
}

/* g_v = loss_scale scale (softmax(z)_v - [v = target]);  dx = sum over v of g_v W_v;  dW_v += g_v x */
static void token_gradient(const espl_args *args, int64_t t, const real *logits, real lse) {
    const espl_attrs *attrs = args->attrs;
    const real *x = (const real *)args->in[0] + t * attrs->n_in, *weight = args->param[0];
    real *dx = args->din[0], *dweight = args->dparam[0];
    for (int64_t v = 0; v < attrs->vocab; v++) {
        real error = MATH(exp)(logits[v] - lse) - (v == args->batch->targets[t] ? 1 : 0);
        real g = (real)args->batch->loss_scale * (real)attrs->scale * error;
        for (int64_t k = 0; k < attrs->n_in; k++) {
            if (dx)
                dx[t * attrs->n_in + k] += g * weight[v * attrs->n_in + k];
            if (dweight)
                dweight[v * attrs->n_in + k] += g * x[k];
        }
    }
}

void REF(linear_xent_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    real lse, *loss = args->out[0], *logits = args->work;
    if (args->din[0])
        ref_clear(args->din[0], args->batch->n * attrs->n_in, args->din_add[0]);
    if (args->dparam[0])
        ref_clear(args->dparam[0], attrs->vocab * attrs->n_in, args->dparam_add[0]);
    for (int64_t t = 0; t < args->batch->n; t++) {
        loss[t] = 0;
        if (args->batch->targets[t] < 0)
            continue;
        loss[t] = token_loss(args, t, logits, &lse);
        token_gradient(args, t, logits, lse);
    }
}
