#include "kernels/cpu/dropout.h"
#include "kernels/cpu/table.h"

#include <math.h>

enum { PANEL = 64 /* columns that one thread sums, token by token */ };

void CPU(embed_forward)(const espl_args *args) {
    const espl_batch *batch = args->batch;
    const real *tokens = args->param[0], *places = args->param[1];
    int64_t D = args->attrs->n_out;
    float scale = args->attrs->scale;
    dropout drop = CPU(dropout_of)(args);
    real *out = args->out[0];
#pragma omp parallel for
    for (int64_t i = 0; i < batch->n; i++) {
        const real *token = tokens + batch->ids[i] * D, *place = places ? places + batch->positions[i] * D : NULL;
        for (int64_t c = 0; c < D; c += PANEL) {
            int64_t width = min64(PANEL, D - c);
            float x[PANEL], mask[PANEL];
            for (int64_t j = 0; j < width; j++)
                x[j] = load(token + c + j) * scale;
            for (int64_t j = 0; place && j < width; j++)
                x[j] += load(place + c + j);
            if (drop.on) {
                CPU(dropout_mask)(&drop, (uint64_t)(i * D + c), width, mask);
                for (int64_t j = 0; j < width; j++)
                    x[j] *= mask[j];
            }
            for (int64_t j = 0; j < width; j++)
                store(out + i * D + c + j, x[j]);
        }
    }
}

/* Rows of one column panel, in token order. */
static void backward_panel(const espl_args *args, const dropout *drop, int64_t column, int64_t width) {
    const espl_batch *batch = args->batch;
    int64_t D = args->attrs->n_out;
    float scale = args->attrs->scale;
    const real *dout = args->dout[0];
    float *dtokens = args->dparam[0], *dplaces = args->dparam[1];
    for (int64_t i = 0; i < batch->n; i++) {
        float g[PANEL], mask[PANEL];
        for (int64_t j = 0; j < width; j++)
            g[j] = load(dout + i * D + column + j);
        if (drop->on) {
            CPU(dropout_mask)(drop, (uint64_t)(i * D + column), width, mask);
            for (int64_t j = 0; j < width; j++)
                g[j] *= mask[j];
        }
        float *to = dtokens ? dtokens + batch->ids[i] * D + column : NULL;
        for (int64_t j = 0; to && j < width; j++)
            to[j] += g[j] * scale;
        to = dplaces ? dplaces + batch->positions[i] * D + column : NULL;
        for (int64_t j = 0; to && j < width; j++)
            to[j] += g[j];
    }
}

void CPU(embed_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    int64_t D = attrs->n_out, rows[2] = {attrs->vocab, attrs->positions};
    dropout drop = CPU(dropout_of)(args);
    for (int p = 0; p < 2; p++)
        if (args->dparam[p] && !args->dparam_add[p])
            CPU(zero)(args->dparam[p], (size_t)(rows[p] * D) * sizeof(float));
#pragma omp parallel for
    for (int64_t c = 0; c < D; c += PANEL)
        backward_panel(args, &drop, c, min64(PANEL, D - c));
}
