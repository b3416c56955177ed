#include "kernels/cpu/act.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/table.h"

/* Two LINEARs with an activation between them: of the first, in0 W1 + b1 to out1, and of the second, f(out1) W2 + b2. Work holds [N,F]
 * reals, then that of products: f(out1), and in backward, where its last reader is done, dh in the same place. */
typedef struct halves {
    espl_attrs first_attrs, second_attrs;
    espl_args first, second;
} halves;

static size_t hidden_bytes(const espl_attrs *attrs, int64_t n) { return (size_t)round_up(n * attrs->ffn * (int64_t)sizeof(real), 64); }

static void halves_of(const espl_args *args, halves *h) {
    h->first_attrs = h->second_attrs = *args->attrs;
    h->first_attrs.n_out = h->second_attrs.n_in = args->attrs->ffn;
    void *work = (char *)args->work + hidden_bytes(args->attrs, args->batch->n);
    h->first = (espl_args){.attrs = &h->first_attrs,
                           .batch = args->batch,
                           .in = {args->in[0]},
                           .out = {args->out[1], args->work},
                           .param = {args->param[0], args->param[1]},
                           .din = {args->din[0]},
                           .din_add = {args->din_add[0]},
                           .dout = {args->work},
                           .dparam = {args->dparam[0], args->dparam[1]},
                           .dparam_add = {args->dparam_add[0], args->dparam_add[1]},
                           .work = work};
    h->second = (espl_args){.attrs = &h->second_attrs,
                            .batch = args->batch,
                            .in = {args->work},
                            .out = {args->out[0], args->out[1]},
                            .param = {args->param[2], args->param[3]},
                            .dout = {args->dout[0]},
                            .dparam = {args->dparam[2], args->dparam[3]},
                            .dparam_add = {args->dparam_add[2], args->dparam_add[3]},
                            .work = work};
}

/* f of a finished tile of out1, while it is in the cache. */
static void activate_tile(const espl_args *first, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; i++) {
        int64_t at = i * first->attrs->n_out + column;
        CPU(act_row)(first->attrs->kind, (const real *)first->out[0] + at, (real *)first->out[1] + at, columns);
    }
}

void CPU(mlp_forward)(const espl_args *args) {
    halves h;
    halves_of(args, &h);
    CPU(linear_apply)(&h.first, 1, args->out[0] ? activate_tile : NULL);
    if (args->out[0])
        CPU(linear_apply)(&h.second, 1, NULL);
}

/* f(out1) again, into work. */
static void activate(const halves *h) {
    espl_attrs attrs = h->second_attrs;
    espl_args act = {.attrs = &attrs, .batch = h->first.batch, .in = {h->first.out[0]}, .out = {h->first.out[1]}};
    attrs.n_out = attrs.n_in;
    CPU(act_forward)(&act);
}

/* A finished tile of dout0 W2^T becomes one of dh. */
static void slope_tile(const espl_args *second, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; i++)
        for (int64_t j = column; j < column + columns; j += CPU_STRETCH) {
            int64_t at = i * second->attrs->n_in + j, n = min64(CPU_STRETCH, column + columns - j);
            real *gradient = (real *)second->din[0] + at;
            CPU(act_row_gradient)(second->attrs->kind, (const real *)second->out[1] + at, gradient, gradient, n, false);
        }
}

void CPU(mlp_backward)(const espl_args *args) {
    halves h;
    halves_of(args, &h);
    if (args->dparam[2])
        activate(&h);
    CPU(linear_backward)(&h.second); /* of the parameters */
    if (!args->din[0] && !args->dparam[0] && !args->dparam[1])
        return;
    h.second.din[0] = args->work;
    CPU(linear_input_gradient)(&h.second, slope_tile);
    CPU(linear_backward)(&h.first);
}

size_t CPU(mlp_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)backward;
    return hidden_bytes(attrs, n) + CPU(gemm_work)(threads);
}
