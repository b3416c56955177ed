#include "kernels/ref/ref.h"

/* Where B[j][i] of a part stands. */
static int64_t weight_at(const espl_attrs *attrs, const espl_lora_part *part, int64_t j, int64_t i) {
    return ref_weight_at(attrs->layout, part->rank, part->width, i, j);
}

static real product(const espl_attrs *attrs, const espl_lora_part *part, const real *u, const real *weight, int64_t j) {
    real sum = 0;
    for (int64_t i = 0; i < part->rank; i++)
        sum += u[i] * weight[weight_at(attrs, part, j, i)];
    return sum;
}

/* y[t][c + j] += scale sum over i of u[t][at + i] B[j][i], for each part. */
void REF(lora_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *weight = args->param[0];
    int64_t at = 0;
    for (int p = 0; p < attrs->n_parts; p++) {
        const espl_lora_part *part = &attrs->part[p];
        for (int64_t t = 0; t < args->batch->n; t++)
            for (int64_t j = 0; j < part->width; j++) {
                const real *u = (const real *)args->in[0] + t * attrs->n_in + at;
                ((real *)args->out[0])[t * attrs->n_out + part->column + j] += (real)part->scale * product(attrs, part, u, weight, j);
            }
        at += part->rank;
        weight += part->width * part->rank;
    }
}

/* du[t][at + i] = scale sum over j of dy[t][c + j] B[j][i] */
static void input_gradient(const espl_args *args, const espl_lora_part *part, int64_t at, const real *weight) {
    const espl_attrs *attrs = args->attrs;
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t i = 0; i < part->rank; i++) {
            const real *dout = (const real *)args->dout[0] + t * attrs->n_out + part->column;
            real sum = 0;
            for (int64_t j = 0; j < part->width; j++)
                sum += dout[j] * weight[weight_at(attrs, part, j, i)];
            ref_put((real *)args->din[0] + t * attrs->n_in + at + i, (real)part->scale * sum, args->din_add[0]);
        }
}

/* dB[j][i] = scale sum over t of dy[t][c + j] u[t][at + i] */
static void weight_gradient(const espl_args *args, const espl_lora_part *part, int64_t at, real *to) {
    const espl_attrs *attrs = args->attrs;
    for (int64_t j = 0; j < part->width; j++)
        for (int64_t i = 0; i < part->rank; i++) {
            real sum = 0;
            for (int64_t t = 0; t < args->batch->n; t++)
                sum += ((const real *)args->dout[0])[t * attrs->n_out + part->column + j] *
                       ((const real *)args->in[0])[t * attrs->n_in + at + i];
            ref_put(&to[weight_at(attrs, part, j, i)], (real)part->scale * sum, args->dparam_add[0]);
        }
}

void REF(lora_backward)(const espl_args *args) {
    const real *weight = args->param[0];
    real *to = args->dparam[0];
    int64_t at = 0;
    for (int p = 0; p < args->attrs->n_parts; p++) {
        const espl_lora_part *part = &args->attrs->part[p];
        if (args->din[0])
            input_gradient(args, part, at, weight);
        if (to)
            weight_gradient(args, part, at, to);
        at += part->rank;
        weight += part->width * part->rank;
        to = to ? to + part->width * part->rank : NULL;
    }
}
