#include "kernels/ref/ref.h"

/* y = drop(f(gate) up) */
void REF(glu_forward)(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    for (int64_t t = 0; t < args->batch->n; t++) {
        const real *gate = (const real *)args->in[0] + t * 2 * width, *up = gate + width;
        real *out = (real *)args->out[0] + t * width;
        for (int64_t c = 0; c < width; c++)
            out[c] = REF(act)(args->attrs->kind, gate[c]) * up[c] * ref_keep(args, (uint64_t)(t * width + c));
    }
}

/* dgate = drop'(dy) up f'(gate);  dup = drop'(dy) f(gate) */
void REF(glu_backward)(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    int32_t kind = args->attrs->kind;
    for (int64_t t = 0; t < args->batch->n; t++) {
        const real *gate = (const real *)args->in[0] + t * 2 * width, *up = gate + width, *dout = (const real *)args->dout[0] + t * width;
        real *dgate = (real *)args->din[0] + t * 2 * width, *dup = dgate + width;
        for (int64_t c = 0; c < width; c++) {
            real dy = dout[c] * ref_keep(args, (uint64_t)(t * width + c));
            ref_put(&dgate[c], dy * up[c] * REF(act_slope)(kind, gate[c]), args->din_add[0]);
            ref_put(&dup[c], dy * REF(act)(kind, gate[c]), args->din_add[0]);
        }
    }
}
