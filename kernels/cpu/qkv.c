#include "kernels/cpu/linear.h"
#include "kernels/cpu/table.h"

/* (a, b) becomes (a cos - b sin, b cos + a sin); with sign -1 it turns back. */
static void rotate_head(real *x, const float *angle, int64_t half, float sign) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = load(x + i), b = load(x + half + i), c = angle[i], s = sign * angle[half + i];
        store(x + i, fma1(a, c, -(b * s)));
        store(x + half + i, fma1(b, c, a * s));
    }
}

/* Heads in columns column .. column + columns - 1 of one row; v is left alone. */
static void rotate_row(const espl_args *args, real *row, int64_t token, int64_t column, int64_t columns, float sign) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, end = min64(column + columns, (attrs->heads + attrs->kv_heads) * d);
    const float *angle = args->rope + (int64_t)args->batch->positions[token] * attrs->rope_dim;
    for (int64_t c = column; c < end; c += d)
        rotate_head(row + c, angle, attrs->rope_dim / 2, sign);
}

static void rotate_tile(const espl_args *args, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; i++)
        rotate_row(args, (real *)args->out[0] + i * args->attrs->n_out, i, column, columns, 1.0f);
}

static bool rotates(const espl_args *args) { return args->rope && args->attrs->rope_dim > 0; }

void CPU(qkv_forward)(const espl_args *args) { CPU(linear_apply)(args, args->attrs->head_dim, rotates(args) ? rotate_tile : NULL); }

static void rotate_rows(const espl_args *args, real *rows, float sign) {
    int64_t M = args->attrs->n_out;
#pragma omp parallel for
    for (int64_t i = 0; i < args->batch->n; i++)
        rotate_row(args, rows + i * M, i, 0, M, sign);
}

void CPU(qkv_backward)(const espl_args *args) {
    if (rotates(args))
        rotate_rows(args, args->dout[0], -1.0f);
    CPU(linear_backward)(args);
}

void CPU(rope_forward)(const espl_args *args) { rotate_rows(args, args->out[0], 1.0f); }

void CPU(rope_backward)(const espl_args *args) { rotate_rows(args, args->dout[0], -1.0f); }
