#include "kernels/cpu/linear.h"
#include "kernels/cpu/table.h"

enum { PANEL = 64, ROWS = 32 /* of a column sum that are added before they join the total */ };

typedef struct context {
    const espl_args *args;
    linear_finish *finish;
} context;

static void finish_tile(const gemm *g, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const context *with = g->finish_with;
    const real *bias = with->args->param[1];
    for (int64_t i = row; bias && i < row + rows; i++) {
        real *y = (real *)g->c + i * g->ldc;
#pragma omp simd
        for (int64_t j = column; j < column + columns; j++)
            store(y + j, load(y + j) + load(bias + j));
    }
    if (with->finish)
        with->finish(with->args, row, rows, column, columns);
}

static const espl_quant *quant_of(const espl_args *args) {
    const espl_quant *quant = &args->attrs->quant[0];
    return quant->format != ESPL_QUANT_NONE ? quant : NULL;
}

void CPU(linear_apply)(const espl_args *args, int64_t unit, linear_finish *finish) {
    int64_t K = args->attrs->n_in, M = args->attrs->n_out;
    bool out_in = args->attrs->layout == ESPL_OUT_IN;
    context with = {args, finish};
    CPU(gemm)
    (&(gemm){.m = args->batch->n,
             .n = M,
             .k = K,
             .a = args->in[0],
             .lda = K,
             .b = args->param[0],
             .quant = quant_of(args),
             .quantised = quant_of(args) ? args->param[0] : NULL,
             .ldb = out_in ? K : M,
             .trans_b = out_in,
             .c = args->out[0],
             .ldc = M,
             .c_dtype = REAL_DTYPE,
             .alpha = 1.0f,
             .unit = unit,
             .finish = args->param[1] || finish ? finish_tile : NULL,
             .finish_with = &with,
             .work = args->work});
}

void CPU(linear_forward)(const espl_args *args) { CPU(linear_apply)(args, 1, NULL); }

/* dx = dy W^T, in the terms of the layout. */
static void backward_input(const espl_args *args) {
    int64_t K = args->attrs->n_in, M = args->attrs->n_out;
    bool out_in = args->attrs->layout == ESPL_OUT_IN;
    CPU(gemm)
    (&(gemm){.m = args->batch->n,
             .n = K,
             .k = M,
             .a = args->dout[0],
             .lda = M,
             .b = args->param[0],
             .quant = quant_of(args),
             .quantised = quant_of(args) ? args->param[0] : NULL,
             .ldb = out_in ? K : M,
             .trans_b = !out_in,
             .c = args->din[0],
             .ldc = K,
             .c_dtype = REAL_DTYPE,
             .alpha = 1.0f,
             .add = args->din_add[0],
             .work = args->work});
}

/* dW = dy^T x as [M,K], or x^T dy as [K,M]. */
static void backward_weight(const espl_args *args) {
    int64_t K = args->attrs->n_in, M = args->attrs->n_out;
    bool out_in = args->attrs->layout == ESPL_OUT_IN;
    CPU(gemm)
    (&(gemm){.m = out_in ? M : K,
             .n = out_in ? K : M,
             .k = args->batch->n,
             .a = out_in ? args->dout[0] : args->in[0],
             .lda = out_in ? M : K,
             .trans_a = true,
             .b = out_in ? args->in[0] : args->dout[0],
             .ldb = out_in ? K : M,
             .c = args->dparam[0],
             .ldc = out_in ? K : M,
             .c_dtype = ESPL_F32,
             .alpha = 1.0f,
             .add = args->dparam_add[0],
             .work = args->work});
}

/* sum[j] += row[j], or row[j] times[j] */
static void add_row(const real *row, const real *times, int64_t n, float *sum) {
    if (times) {
        for (int64_t j = 0; j < n; j++)
            sum[j] += load(row + j) * load(times + j);
    } else {
        for (int64_t j = 0; j < n; j++)
            sum[j] += load(row + j);
    }
}

static void sum_panel(const column_sums *s, int64_t c, int64_t width, float *to, bool add) {
    float total[PANEL] = {0};
    for (int64_t r = 0; r < s->rows; r += ROWS) {
        float sum[PANEL] = {0};
        for (int64_t i = r; i < min64(r + ROWS, s->rows); i++)
            add_row(s->x + i * s->ld + c, s->times ? s->times + i * s->ld + c : NULL, width, sum);
        for (int64_t j = 0; j < width; j++)
            total[j] += sum[j];
    }
    for (int64_t j = 0; j < width; j++) {
        float value = s->over ? total[j] / s->over[c + j] : total[j];
        to[c + j] = add ? to[c + j] + value : value;
    }
}

void CPU(sum_columns)(const column_sums *sums, float *to, bool add) {
#pragma omp parallel for
    for (int64_t c = 0; c < sums->columns; c += PANEL)
        sum_panel(sums, c, min64(PANEL, sums->columns - c), to, add);
}

static void backward_bias(const espl_args *args) {
    int64_t M = args->attrs->n_out;
    CPU(sum_columns)
    (&(column_sums){.x = args->dout[0], .rows = args->batch->n, .columns = M, .ld = M}, args->dparam[1], args->dparam_add[1]);
}

void CPU(linear_backward)(const espl_args *args) {
    if (args->din[0])
        backward_input(args);
    if (args->dparam[0])
        backward_weight(args);
    if (args->dparam[1])
        backward_bias(args);
}

size_t CPU(linear_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)n;
    if (attrs->quant[0].format == ESPL_QUANT_NONE)
        return CPU(gemm_work)(threads);
    return CPU(gemm_quant_work)(threads, backward ? attrs->n_out : attrs->n_in, backward ? 1 : attrs->head_dim);
}
