#include "kernels/ref/ref.h"

/* Layer norm: mean m, rstd r = 1 / sqrt(mean (x - m)^2 + eps). RMS norm: m = 0, r = 1 / sqrt(mean x^2 + eps). */
static void row_stats(const espl_attrs *attrs, const real *x, real stats[2]) {
    int64_t width = attrs->n_in;
    real mean = 0, square = 0;
    for (int64_t c = 0; c < width && attrs->kind == ESPL_NORM_LAYER; c++)
        mean += x[c];
    mean /= (real)width;
    for (int64_t c = 0; c < width; c++)
        square += (x[c] - mean) * (x[c] - mean);
    stats[0] = mean;
    stats[1] = 1 / MATH(sqrt)(square / (real)width + (real)attrs->eps);
}

/* x = a + drop(b);  y = (x - m) r gain + bias */
void REF(resnorm_forward)(const espl_args *args) {
    int64_t width = args->attrs->n_in;
    const real *gain = args->param[0], *bias = args->param[1];
    for (int64_t t = 0; t < args->batch->n; t++) {
        const real *a = (const real *)args->in[0] + t * width, *b = args->in[1];
        real *x = (real *)args->out[0] + t * width, *y = (real *)args->out[1] + t * width, *stats = (real *)args->out[2] + t * 2;
        for (int64_t c = 0; c < width; c++)
            x[c] = b ? a[c] + b[t * width + c] * ref_keep(args, (uint64_t)(t * width + c)) : a[c];
        row_stats(args->attrs, x, stats);
        for (int64_t c = 0; c < width; c++)
            y[c] = (x[c] - stats[0]) * stats[1] * gain[c] + (bias ? bias[c] : 0);
    }
}

/* With n = (x - m) r and s = dy gain:  dx = r (s - mean(s) - n mean(s n)), without mean(s) for RMS norm;
 * da = dx + the gradient that reaches x itself;  db = drop'(da). */
static void input_row(const espl_args *args, int64_t t) {
    int64_t width = args->attrs->n_in, at = t * width;
    const real *x = (const real *)args->out[0] + at, *stats = (const real *)args->out[2] + t * 2;
    const real *gain = args->param[0], *dx = args->dout[0], *dy = (const real *)args->dout[1] + at;
    real *da = args->din[0], *db = args->din[1], mean_s = 0, mean_sn = 0;
    for (int64_t c = 0; c < width; c++) {
        mean_s += dy[c] * gain[c];
        mean_sn += dy[c] * gain[c] * (x[c] - stats[0]) * stats[1];
    }
    mean_s = args->attrs->kind == ESPL_NORM_LAYER ? mean_s / (real)width : 0;
    mean_sn /= (real)width;
    for (int64_t c = 0; c < width; c++) {
        real g = stats[1] * (dy[c] * gain[c] - mean_s - (x[c] - stats[0]) * stats[1] * mean_sn);
        g += dx ? dx[at + c] : 0;
        if (da)
            ref_put(&da[at + c], g, args->din_add[0]);
        if (db)
            ref_put(&db[at + c], g * ref_keep(args, (uint64_t)(at + c)), args->din_add[1]);
    }
}

/* dgain = sum over tokens of dy n;  dbias = sum over tokens of dy */
static void param_row(const espl_args *args, int64_t t) {
    int64_t width = args->attrs->n_in, at = t * width;
    const real *x = (const real *)args->out[0] + at, *stats = (const real *)args->out[2] + t * 2, *dy = (const real *)args->dout[1] + at;
    real *dgain = args->dparam[0], *dbias = args->dparam[1];
    for (int64_t c = 0; c < width; c++) {
        if (dgain)
            dgain[c] += dy[c] * (x[c] - stats[0]) * stats[1];
        if (dbias)
            dbias[c] += dy[c];
    }
}

void REF(resnorm_backward)(const espl_args *args) {
    for (int p = 0; p < 2; p++)
        if (args->dparam[p])
            ref_clear(args->dparam[p], args->attrs->n_in, args->dparam_add[p]);
    for (int64_t t = 0; t < args->batch->n; t++) {
        param_row(args, t);
        input_row(args, t);
    }
}
