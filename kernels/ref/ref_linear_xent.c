#include "kernels/ref/ref.h"

static real weight_of(const espl_batch *batch, int64_t t) { return batch->weights ? (real)batch->weights[t] : 1; }

/* Fills `logits` [V] of token t and returns its loss: z_v = scale x . W_v + b_v;  loss = weight (log(sum over v of exp(z_v)) - z_target).
 */
static real token_loss(const espl_args *args, int64_t t, real *logits, real *lse) {
    const espl_attrs *attrs = args->attrs;
    const real *x = (const real *)args->in[0] + t * attrs->n_in, *weight = args->param[0], *bias = args->param[1];
    real top = -INFINITY, sum = 0;
    for (int64_t v = 0; v < attrs->vocab; v++) {
        logits[v] = (real)attrs->scale * ref_dot(x, weight + v * attrs->n_in, attrs->n_in) + (bias ? bias[v] : 0);
        top = MATH(fmax)(top, logits[v]);
    }
    for (int64_t v = 0; v < attrs->vocab; v++)
        sum += MATH(exp)(logits[v] - top);
    *lse = top + MATH(log)(sum);
    return weight_of(args->batch, t) * (*lse - logits[args->batch->targets[t]]);
}

void REF(linear_xent_forward)(const espl_args *args) {
    real lse, *loss = args->out[0];
    for (int64_t t = 0; t < args->batch->n; t++)
        loss[t] = args->batch->targets[t] < 0 ? 0 : token_loss(args, t, args->work, &lse);
}

/* g_v = loss_scale weight (softmax(z)_v - [v = target]);  dx = scale sum over v of g_v W_v;  dW_v += scale g_v x;  db_v += g_v */
static void token_gradient(const espl_args *args, int64_t t, const real *logits, real lse) {
    const espl_attrs *attrs = args->attrs;
    const real *x = (const real *)args->in[0] + t * attrs->n_in, *weight = args->param[0];
    real *dx = args->din[0], *dweight = args->dparam[0], *dbias = args->dparam[1];
    for (int64_t v = 0; v < attrs->vocab; v++) {
        real error = MATH(exp)(logits[v] - lse) - (v == args->batch->targets[t] ? 1 : 0);
        real g = (real)args->batch->loss_scale * weight_of(args->batch, t) * error, scaled = (real)attrs->scale * g;
        if (dbias)
            dbias[v] += g;
        for (int64_t k = 0; k < attrs->n_in; k++) {
            if (dx)
                dx[t * attrs->n_in + k] += scaled * weight[v * attrs->n_in + k];
            if (dweight)
                dweight[v * attrs->n_in + k] += scaled * x[k];
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
    if (args->dparam[1])
        ref_clear(args->dparam[1], attrs->vocab, args->dparam_add[1]);
    for (int64_t t = 0; t < args->batch->n; t++) {
        loss[t] = 0;
        if (args->batch->targets[t] < 0)
            continue;
        loss[t] = token_loss(args, t, logits, &lse);
        token_gradient(args, t, logits, lse);
    }
}
