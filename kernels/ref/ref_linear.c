#include "kernels/ref/ref.h"

static int64_t weight_at(const espl_attrs *attrs, int64_t k, int64_t m) {
    return ref_weight_at(attrs->layout, attrs->n_in, attrs->n_out, k, m);
}

/* Floats are expanded to the upper end of the room, and widened from below. */
const real *REF(matrix)(const espl_args *args, int param, real *room) {
    const espl_quant *quant = &args->attrs->quant[param / 2];
    const char *from = args->param[param];
    if (quant->format == ESPL_QUANT_NONE)
        return args->param[param];
    int64_t n = espl_quant_numel(quant), at = 0;
    char *floats = (char *)room + (size_t)n * (sizeof(real) - sizeof(float));
    for (int part = 0; part < quant->n_parts; part++) {
        espl_quant_places places = espl_quant_places_of(quant, part);
        espl_dequantise(quant, part, from, (float *)(void *)floats + at);
        at += places.n;
        from += places.bytes;
    }
    for (int64_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, floats + (size_t)i * sizeof value, sizeof value);
        room[i] = value;
    }
    return room;
}

/* y[t][m] = b[m] + sum over k of x[t][k] W[k][m] */
void REF(linear_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *in = args->in[0], *weight = REF(matrix)(args, 0, args->work), *bias = args->param[1];
    real *out = args->out[0];
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t m = 0; m < attrs->n_out; m++) {
            real sum = 0;
            for (int64_t k = 0; k < attrs->n_in; k++)
                sum += in[t * attrs->n_in + k] * weight[weight_at(attrs, k, m)];
            out[t * attrs->n_out + m] = sum + (bias ? bias[m] : 0);
        }
}

/* dx[t][k] = sum over m of dy[t][m] W[k][m] */
static void input_gradient(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *weight = REF(matrix)(args, 0, args->work), *dout = args->dout[0];
    real *din = args->din[0];
    for (int64_t t = 0; t < args->batch->n && din; t++)
        for (int64_t k = 0; k < attrs->n_in; k++) {
            real sum = 0;
            for (int64_t m = 0; m < attrs->n_out; m++)
                sum += dout[t * attrs->n_out + m] * weight[weight_at(attrs, k, m)];
            ref_put(&din[t * attrs->n_in + k], sum, args->din_add[0]);
        }
}

/* dW[k][m] = sum over t of x[t][k] dy[t][m] */
static void weight_gradient(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *in = args->in[0], *dout = args->dout[0];
    real *to = args->dparam[0];
    for (int64_t k = 0; k < attrs->n_in && to; k++)
        for (int64_t m = 0; m < attrs->n_out; m++) {
            real sum = 0;
            for (int64_t t = 0; t < args->batch->n; t++)
                sum += in[t * attrs->n_in + k] * dout[t * attrs->n_out + m];
            ref_put(&to[weight_at(attrs, k, m)], sum, args->dparam_add[0]);
        }
}

/* db[m] = sum over t of dy[t][m] */
static void bias_gradient(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    const real *dout = args->dout[0];
    real *to = args->dparam[1];
    for (int64_t m = 0; m < width && to; m++) {
        real sum = 0;
        for (int64_t t = 0; t < args->batch->n; t++)
            sum += dout[t * width + m];
        ref_put(&to[m], sum, args->dparam_add[1]);
    }
}

void REF(linear_backward)(const espl_args *args) {
    input_gradient(args);
    weight_gradient(args);
    bias_gradient(args);
}
