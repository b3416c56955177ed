#include "kernels/ref/ref.h"

/* The row of the prefix that a token takes, or -1. */
static int64_t prefix_of(const espl_args *args, int64_t token) {
    int32_t position = args->batch->positions[token];
    return position < args->attrs->prompt ? position : -1;
}

/* kv[t] = P[pos_t] where there is one */
void REF(prefix_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *prefix = args->param[0];
    real *out = args->out[0];
    int64_t column = attrs->part[0].column, width = attrs->part[0].width;
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t c = 0; c < width && prefix_of(args, t) >= 0; c++)
            out[(t + 1) * attrs->n_out - width + c] = prefix[prefix_of(args, t) * attrs->n_in + column + c];
}

/* dP[pos_t] += dkv[t], which is then 0 */
void REF(prefix_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    real *dout = args->dout[0], *dprefix = args->dparam[0];
    int64_t column = attrs->part[0].column, width = attrs->part[0].width;
    if (dprefix)
        ref_clear(dprefix, attrs->prompt * attrs->n_in, args->dparam_add[0]);
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t c = 0; c < width && prefix_of(args, t) >= 0; c++) {
            real *from = dout + (t + 1) * attrs->n_out - width + c;
            if (dprefix)
                dprefix[prefix_of(args, t) * attrs->n_in + column + c] += *from;
            *from = 0;
        }
}
