#include "kernels/ref/ref.h"

/* The token that stands for segment s. */
static int64_t token_of(const espl_args *args, int64_t s) {
    const int32_t *segments = args->batch->segments;
    return args->attrs->kind == ESPL_POOL_FIRST ? segments[s] + args->attrs->prompt : segments[s + 1] - 1;
}

/* y[s] = x[token of s] */
void REF(pool_forward)(const espl_args *args) {
    int64_t width = args->attrs->n_in;
    const real *in = args->in[0];
    real *out = args->out[0];
    for (int64_t s = 0; s < args->batch->n_segments; s++)
        for (int64_t c = 0; c < width; c++)
            out[s * width + c] = in[token_of(args, s) * width + c];
}

/* dx[token of s] = dy[s], 0 elsewhere */
void REF(pool_backward)(const espl_args *args) {
    int64_t width = args->attrs->n_in;
    const real *dout = args->dout[0];
    real *din = args->din[0];
    ref_clear(din, args->batch->n * width, args->din_add[0]);
    for (int64_t s = 0; s < args->batch->n_segments; s++)
        for (int64_t c = 0; c < width; c++)
            din[token_of(args, s) * width + c] += dout[s * width + c];
}
