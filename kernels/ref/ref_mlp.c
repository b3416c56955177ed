#include "kernels/ref/ref.h"

/* Work: two rows of the hidden layer, then matrices that are expanded, which each call does anew for each token. */
static const real *first_matrix(const espl_args *args) { return REF(matrix)(args, 0, (real *)args->work + 2 * args->attrs->ffn); }

static const real *second_matrix(const espl_args *args) {
    const espl_attrs *a = args->attrs;
    return REF(matrix)(args, 2, (real *)args->work + 2 * a->ffn + a->n_in * a->ffn);
}

/* h[t][j] = b1[j] + sum over k of x[t][k] W1[k][j] */
static void token_hidden(const espl_args *args, int64_t t) {
    const espl_attrs *a = args->attrs;
    const real *x = (const real *)args->in[0] + t * a->n_in, *weight = first_matrix(args), *bias = args->param[1];
    real *hidden = (real *)args->out[1] + t * a->ffn;
    for (int64_t j = 0; j < a->ffn; j++) {
        real sum = 0;
        for (int64_t k = 0; k < a->n_in; k++)
            sum += x[k] * weight[ref_weight_at(a->layout, a->n_in, a->ffn, k, j)];
        hidden[j] = sum + (bias ? bias[j] : 0);
    }
}

/* f(h) of a token. */
static void token_activation(const espl_args *args, int64_t t, real *active) {
    int64_t width = args->attrs->ffn;
    const real *hidden = (const real *)args->out[1] + t * width;
    for (int64_t j = 0; j < width; j++)
        active[j] = REF(act)(args->attrs->kind, hidden[j]);
}

/* y[t][m] = b2[m] + sum over j of f(h[t][j]) W2[j][m] (+ x[t][m]) */
static void token_output(const espl_args *args, int64_t t, const real *active) {
    const espl_attrs *a = args->attrs;
    const real *weight = second_matrix(args), *bias = args->param[3];
    real *out = (real *)args->out[0] + t * a->n_out;
    for (int64_t m = 0; m < a->n_out; m++) {
        real sum = 0;
        for (int64_t j = 0; j < a->ffn; j++)
            sum += active[j] * weight[ref_weight_at(a->layout, a->ffn, a->n_out, j, m)];
        out[m] = sum + (bias ? bias[m] : 0) + (a->residual ? ((const real *)args->in[0])[t * a->n_in + m] : 0);
    }
}

void REF(mlp_forward)(const espl_args *args) {
    for (int64_t t = 0; t < args->batch->n; t++) {
        token_hidden(args, t);
        if (!args->out[0])
            continue;
        token_activation(args, t, args->work);
        token_output(args, t, args->work);
    }
}

/* dh[j] = f'(h[t][j]) sum over m of dy[t][m] W2[j][m] */
static void token_hidden_gradient(const espl_args *args, int64_t t, real *gradient) {
    const espl_attrs *a = args->attrs;
    const real *hidden = (const real *)args->out[1] + t * a->ffn, *dout = (const real *)args->dout[0] + t * a->n_out,
               *weight = second_matrix(args);
    for (int64_t j = 0; j < a->ffn; j++) {
        real sum = 0;
        for (int64_t m = 0; m < a->n_out; m++)
            sum += dout[m] * weight[ref_weight_at(a->layout, a->ffn, a->n_out, j, m)];
        gradient[j] = sum * REF(act_slope)(a->kind, hidden[j]);
    }
}

/* dW[k][m] += x[k] dy[m], db[m] += dy[m] */
static void add_token(const espl_args *args, const real *x, int64_t n_in, const real *dout, int64_t n_out, real *dweight, real *dbias) {
    for (int64_t m = 0; m < n_out; m++) {
        for (int64_t k = 0; k < n_in && dweight; k++)
            dweight[ref_weight_at(args->attrs->layout, n_in, n_out, k, m)] += x[k] * dout[m];
        if (dbias)
            dbias[m] += dout[m];
    }
}

/* dx[t][k] = sum over j of dh[j] W1[k][j] (+ dy[t][k]) */
static void token_input_gradient(const espl_args *args, int64_t t, const real *gradient) {
    const espl_attrs *a = args->attrs;
    const real *weight = first_matrix(args);
    real *din = args->din[0];
    for (int64_t k = 0; k < a->n_in && din; k++) {
        real sum = a->residual ? ((const real *)args->dout[0])[t * a->n_out + k] : 0;
        for (int64_t j = 0; j < a->ffn; j++)
            sum += gradient[j] * weight[ref_weight_at(a->layout, a->n_in, a->ffn, k, j)];
        ref_put(&din[t * a->n_in + k], sum, args->din_add[0]);
    }
}

void REF(mlp_backward)(const espl_args *args) {
    const espl_attrs *a = args->attrs;
    real *active = args->work, *gradient = active + a->ffn;
    const int64_t sizes[] = {a->n_in * a->ffn, a->ffn, a->ffn * a->n_out, a->n_out};
    for (int i = 0; i < 4; i++)
        if (args->dparam[i])
            ref_clear(args->dparam[i], sizes[i], args->dparam_add[i]);
    for (int64_t t = 0; t < args->batch->n; t++) {
        token_activation(args, t, active);
        token_hidden_gradient(args, t, gradient);
        add_token(args, active, a->ffn, (const real *)args->dout[0] + t * a->n_out, a->n_out, args->dparam[2], args->dparam[3]);
        const real *x = args->in[0] ? (const real *)args->in[0] + t * a->n_in : NULL; /* absent without dW1 */
        add_token(args, x, a->n_in, gradient, a->ffn, args->dparam[0], args->dparam[1]);
        token_input_gradient(args, t, gradient);
    }
}
