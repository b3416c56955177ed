#include "kernels/ref/ref.h"

/* y[t] = drop(scale E[id_t] + P[pos_t]) */
void REF(embed_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *tokens = args->param[0], *positions = args->param[1];
    real *out = args->out[0];
    int64_t width = attrs->n_out;
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t c = 0; c < width; c++) {
            real sum = tokens[args->batch->ids[t] * width + c] * (real)attrs->scale;
            if (positions)
                sum += positions[args->batch->positions[t] * width + c];
            out[t * width + c] = sum * ref_keep(args, (uint64_t)(t * width + c));
        }
}

/* dE[id_t] += scale drop'(dy[t]);  dP[pos_t] += drop'(dy[t]) */
static void scatter(const espl_args *args, int which, const int32_t *rows, int64_t n_rows, real scale) {
    real *to = args->dparam[which];
    const real *dout = args->dout[0];
    int64_t width = args->attrs->n_out;
    if (!to)
        return;
    ref_clear(to, n_rows * width, args->dparam_add[which]);
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t c = 0; c < width; c++)
            to[rows[t] * width + c] += scale * (dout[t * width + c] * ref_keep(args, (uint64_t)(t * width + c)));
}

void REF(embed_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    scatter(args, 0, args->batch->ids, attrs->vocab, (real)attrs->scale);
    scatter(args, 1, args->batch->positions, attrs->positions, 1);
}
