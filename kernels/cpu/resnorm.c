#include "kernels/cpu/dropout.h"
#include "kernels/cpu/table.h"

enum { PIECES = 32 /* of tokens, whose parameter gradients are summed apart and then added in order */ };

/* Sum of x[i] * y[i] (y NULL: of x[i]) in 16 lanes, so that it vectorises in a fixed order. */
static float dot(const float *x, const float *y, int64_t n) {
    float lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++)
            lane[l] = y ? fma1(x[i + l], y[i + l], lane[l]) : lane[l] + x[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] = y ? fma1(x[i + l], y[i + l], lane[l]) : lane[l] + x[i + l];
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

/* s (float, on its way to out0) = in0 + drop(in1). */
static void add_row(const espl_args *args, const dropout *drop, int64_t row, float *s) {
    int64_t D = args->attrs->n_in;
    const real *a = (const real *)args->in[0] + row * D, *b = args->in[1] ? (const real *)args->in[1] + row * D : NULL;
    if (b && drop->on) {
        CPU(dropout_mask)(drop, (uint64_t)(row * D), D, s);
        for (int64_t j = 0; j < D; j++)
            s[j] = load(a + j) + s[j] * load(b + j);
    } else {
        for (int64_t j = 0; j < D; j++)
            s[j] = b ? load(a + j) + load(b + j) : load(a + j);
    }
}

/* Mean and 1 / sqrt(var + eps), in two passes over the row. */
static void statistics(const espl_attrs *attrs, float *s, float *centred, float *stat) {
    int64_t D = attrs->n_in;
    float mean = attrs->kind == ESPL_NORM_LAYER ? dot(s, NULL, D) / (float)D : 0.0f;
    for (int64_t j = 0; j < D; j++)
        centred[j] = s[j] - mean;
    stat[0] = mean;
    stat[1] = 1.0f / __builtin_sqrtf(dot(centred, centred, D) / (float)D + attrs->eps);
}

static void forward_row(const espl_args *args, const dropout *drop, int64_t row, float *s) {
    int64_t D = args->attrs->n_in;
    const real *gain = args->param[0], *bias = args->param[1];
    real *sum = (real *)args->out[0] + row * D, *y = (real *)args->out[1] + row * D;
    float *stat = (float *)args->out[2] + 2 * row, *centred = s + D;
    add_row(args, drop, row, s);
    for (int64_t j = 0; (args->in[1] || sum != (const real *)args->in[0] + row * D) && j < D; j++) {
        store(sum + j, s[j]);
        s[j] = load(sum + j); /* what backward and RENEW will see */
    }
    statistics(args->attrs, s, centred, stat);
    float r = stat[1];
    if (bias)
        for (int64_t j = 0; j < D; j++)
            store(y + j, fma1(centred[j] * r, load(gain + j), load(bias + j)));
    else
        for (int64_t j = 0; j < D; j++)
            store(y + j, centred[j] * r * load(gain + j));
}

void CPU(resnorm_forward)(const espl_args *args) {
    dropout drop = CPU(dropout_of)(args);
    int64_t n = args->batch->n, piece = pieces(n, PIECES);
    float *work = args->work;
#pragma omp parallel for
    for (int64_t p = 0; p < PIECES; p++)
        for (int64_t row = p * piece; row < min64((p + 1) * piece, n); row++)
            forward_row(args, &drop, row, work + p * 4 * args->attrs->n_in);
}

/* With h = (x - mean) r and u = gain dy:  dx = r (u - mean(u) - h mean(u h)), RMS without mean(u); dgain += dy h; dbias += dy. */
static void backward_row(const espl_args *args, const dropout *drop, int64_t row, float *work) {
    const espl_attrs *attrs = args->attrs;
    int64_t D = attrs->n_in;
    const real *x = (const real *)args->out[0] + row * D, *dy = (const real *)args->dout[1] + row * D, *gain = args->param[0];
    const real *dsum = args->dout[0] ? (const real *)args->dout[0] + row * D : NULL;
    const float *stat = (const float *)args->out[2] + 2 * row;
    float *restrict dgain = work, *restrict dbias = work + D, *restrict u = work + 2 * D, *restrict h = work + 3 * D;
    float mean = stat[0], r = stat[1];
#pragma omp simd
    for (int64_t j = 0; j < D; j++) {
        float g = load(dy + j);
        h[j] = (load(x + j) - mean) * r;
        dgain[j] = fma1(g, h[j], dgain[j]);
        dbias[j] += g;
        u[j] = g * load(gain + j);
    }
    float mean_u = attrs->kind == ESPL_NORM_LAYER ? dot(u, NULL, D) / (float)D : 0.0f, mean_uh = dot(u, h, D) / (float)D;
#pragma omp simd
    for (int64_t j = 0; j < D; j++)
        u[j] = r * (u[j] - fma1(h[j], mean_uh, mean_u));
    for (int64_t j = 0; dsum && j < D; j++)
        u[j] += load(dsum + j);
    real *d0 = args->din[0] ? (real *)args->din[0] + row * D : NULL, *d1 = args->din[1] ? (real *)args->din[1] + row * D : NULL;
    if (d0)
        put_row(d0, u, D, args->din_add[0]);
    if (d1 && drop->on) {
        CPU(dropout_mask)(drop, (uint64_t)(row * D), D, h);
        for (int64_t j = 0; j < D; j++)
            u[j] *= h[j];
    }
    if (d1)
        put_row(d1, u, D, args->din_add[1]);
}

/* Adds the pieces' sums, column by column, in order. */
static void combine(const espl_args *args, int which) {
    int64_t D = args->attrs->n_in;
    const float *work = (const float *)args->work + which * D;
    float *to = args->dparam[which];
#pragma omp parallel for
    for (int64_t c = 0; c < D; c += 64)
        for (int64_t j = c; j < min64(c + 64, D); j++) {
            float sum = 0.0f;
            for (int64_t p = 0; p < PIECES; p++)
                sum += work[p * 4 * D + j];
            to[j] = args->dparam_add[which] ? to[j] + sum : sum;
        }
}

void CPU(resnorm_backward)(const espl_args *args) {
    dropout drop = CPU(dropout_of)(args);
    int64_t n = args->batch->n, D = args->attrs->n_in, piece = pieces(n, PIECES);
#pragma omp parallel for
    for (int64_t p = 0; p < PIECES; p++) {
        float *work = (float *)args->work + p * 4 * D;
        memset(work, 0, (size_t)(2 * D) * sizeof(float));
        for (int64_t row = p * piece; row < min64((p + 1) * piece, n); row++)
            backward_row(args, &drop, row, work);
    }
    for (int which = 0; which < 2; which++)
        if (args->dparam[which])
            combine(args, which);
}

/* A piece holds the sums of dP0 and dP1 and two rows of scratch. */
size_t CPU(resnorm_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)n, (void)threads, (void)backward;
    return (size_t)(PIECES * 4 * attrs->n_in) * sizeof(float);
}
