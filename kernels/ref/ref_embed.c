#include "kernels/ref/ref.h"

static int32_t type_of(const espl_batch *batch, int64_t token) { return batch->types ? batch->types[token] : 0; }

/* y[t] = drop(scale E[id_t] + P[pos_t + offset] + T[type_t]), where the rows of the prompt follow those of E */
void REF(embed_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl_batch *batch = args->batch;
    const real *tokens = args->param[0], *positions = args->param[1], *types = args->param[2], *prompt = args->param[3];
    real *out = args->out[0];
    int64_t width = attrs->n_out;
    for (int64_t t = 0; t < batch->n; t++)
        for (int64_t c = 0; c < width; c++) {
            const real *row =
                batch->ids[t] < attrs->vocab ? tokens + batch->ids[t] * width : prompt + (batch->ids[t] - attrs->vocab) * width;
            real sum = row[c] * (real)attrs->scale;
            if (positions)
                sum += positions[(batch->positions[t] + attrs->position_offset) * width + c];
            if (types)
                sum += types[type_of(batch, t) * width + c];
            out[t * width + c] = sum * ref_keep(args, (uint64_t)(t * width + c));
        }
}

/* to[row] += scale drop'(dy[t]) */
static void add_token(const espl_args *args, real *to, int64_t row, int64_t t, real scale) {
    const real *dout = args->dout[0];
    int64_t width = args->attrs->n_out;
    for (int64_t c = 0; to && c < width; c++)
        to[row * width + c] += scale * (dout[t * width + c] * ref_keep(args, (uint64_t)(t * width + c)));
}

/* dE[id_t], or the prompt's, += scale drop'(dy[t]);  dP[pos_t + offset] += drop'(dy[t]);  dT[type_t] += drop'(dy[t]) */
void REF(embed_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl_batch *batch = args->batch;
    const int64_t rows[] = {attrs->vocab, attrs->positions, attrs->types, attrs->prompt};
    for (int p = 0; p < 4; p++)
        if (args->dparam[p])
            ref_clear(args->dparam[p], rows[p] * attrs->n_out, args->dparam_add[p]);
    for (int64_t t = 0; t < batch->n; t++) {
        bool own = batch->ids[t] < attrs->vocab;
        add_token(args, args->dparam[own ? 0 : 3], batch->ids[t] - (own ? 0 : attrs->vocab), t, (real)attrs->scale);
        add_token(args, args->dparam[1], batch->positions[t] + attrs->position_offset, t, 1);
        add_token(args, args->dparam[2], type_of(batch, t), t, 1);
    }
}
