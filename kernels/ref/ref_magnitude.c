#include "kernels/ref/ref.h"

/* norm of row j of W + scale B A, W's row being an output's. */
static real norm_of(const espl_args *args, const espl_lora_part *part, const real *a, const real *b, int64_t j) {
    const espl_attrs *attrs = args->attrs;
    const real *w = args->param[0];
    real sum = 0;
    for (int64_t k = 0; k < attrs->n_in; k++) {
        real x = w[ref_weight_at(attrs->layout, attrs->n_in, attrs->n_out, k, part->column + j)];
        for (int64_t r = 0; r < part->rank; r++)
            x += (real)part->scale * b[j * part->rank + r] * a[r * attrs->n_in + k];
        sum += x * x;
    }
    return MATH(sqrt)(sum);
}

void REF(weight_norm_forward)(const espl_args *args) {
    const real *a = args->param[1], *b = args->param[2];
    real *out = args->out[0];
    for (int p = 0; p < args->attrs->n_parts; p++) {
        const espl_lora_part *part = &args->attrs->part[p];
        for (int64_t j = 0; j < part->width; j++)
            *out++ = norm_of(args, part, a, b, j);
        a += part->rank * args->attrs->n_in;
        b += part->rank * part->width;
    }
}

/* The number of column c among those of the parts; -1: it is in none. */
static int64_t place_of(const espl_attrs *attrs, int64_t c) {
    int64_t at = 0;
    for (int p = 0; p < attrs->n_parts; p++) {
        const espl_lora_part *part = &attrs->part[p];
        if (c >= part->column && c < part->column + part->width)
            return at + c - part->column;
        at += part->width;
    }
    return -1;
}

static real gain_of(const espl_args *args, int64_t c) {
    int64_t at = place_of(args->attrs, c);
    return at < 0 ? 1 : ((const real *)args->param[0])[at] / ((const real *)args->in[1])[at];
}

/* y[t][c] = gain[c] v[t][c] + b[c] */
void REF(magnitude_forward)(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    const real *v = args->in[0], *bias = args->param[1];
    real *out = args->out[0];
    for (int64_t e = 0; e < args->batch->n * width; e++)
        out[e] = gain_of(args, e % width) * v[e] + (bias ? bias[e % width] : 0);
}

/* dm[c] = sum over t of dy[t][c] v[t][c] / norm[c]; db[c] = sum over t of dy[t][c] */
static void parameter_gradients(const espl_args *args, int64_t c) {
    int64_t width = args->attrs->n_out, at = place_of(args->attrs, c);
    const real *v = args->in[0], *dout = args->dout[0];
    real dm = 0, db = 0;
    for (int64_t t = 0; t < args->batch->n; t++) {
        dm += args->dparam[0] ? dout[t * width + c] * v[t * width + c] : 0;
        db += dout[t * width + c];
    }
    if (args->dparam[0] && at >= 0)
        ref_put((real *)args->dparam[0] + at, dm / ((const real *)args->in[1])[at], args->dparam_add[0]);
    if (args->dparam[1])
        ref_put((real *)args->dparam[1] + c, db, args->dparam_add[1]);
}

void REF(magnitude_backward)(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    for (int64_t c = 0; c < width; c++)
        parameter_gradients(args, c);
    for (int64_t e = 0; e < args->batch->n * width && args->din[0]; e++)
        ref_put((real *)args->din[0] + e, gain_of(args, e % width) * ((const real *)args->dout[0])[e], args->din_add[0]);
}
