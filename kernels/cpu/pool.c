#include "kernels/cpu/table.h"

/* The token that stands for segment s. */
static int64_t token_of(const espl_args *args, int64_t s) {
    const int32_t *segments = args->batch->segments;
    return args->attrs->kind == ESPL_POOL_FIRST ? segments[s] + args->attrs->prompt : segments[s + 1] - 1;
}

void CPU(pool_forward)(const espl_args *args) {
    size_t D = (size_t)args->attrs->n_in;
    const real *x = args->in[0];
    real *y = args->out[0];
    for (int64_t s = 0; s < args->batch->n_segments; s++)
        memcpy(y + (size_t)s * D, x + (size_t)token_of(args, s) * D, D * sizeof(real));
}

void CPU(pool_backward)(const espl_args *args) {
    int64_t D = args->attrs->n_in;
    const real *dy = args->dout[0];
    real *dx = args->din[0];
    if (!args->din_add[0])
        CPU(zero)(dx, (size_t)(args->batch->n * D) * sizeof(real));
    for (int64_t s = 0; s < args->batch->n_segments; s++) {
        real *to = dx + token_of(args, s) * D;
#pragma omp simd
        for (int64_t c = 0; c < D; c++)
            store(to + c, load(to + c) + load(dy + s * D + c));
    }
}
