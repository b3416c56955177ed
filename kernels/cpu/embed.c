#include "kernels/cpu/dropout.h"
#include "kernels/cpu/table.h"

#include <math.h>

enum { PANEL = 64 /* columns that one thread sums, token by token */ };

/* The row of P1 and of P2 that a token takes. */
static int64_t place_of(const espl_args *args, int64_t token) { return args->batch->positions[token] + args->attrs->position_offset; }
static int64_t type_of(const espl_batch *batch, int64_t token) { return batch->types ? batch->types[token] : 0; }

/* Whether a token is one of the prompt, and the row of P0 or P3 that it takes. */
static bool is_prompt(const espl_args *args, int64_t token) { return args->batch->ids[token] >= args->attrs->vocab; }
static int64_t row_of(const espl_args *args, int64_t token) {
    return args->batch->ids[token] - (is_prompt(args, token) ? args->attrs->vocab : 0);
}

static void add_reals(float *x, const real *y, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        x[j] += load(y + j);
}

static void add_floats(float *to, const float *x, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        to[j] += x[j];
}

void CPU(embed_forward)(const espl_args *args) {
    const espl_batch *batch = args->batch;
    const real *places = args->param[1], *types = args->param[2];
    int64_t D = args->attrs->n_out;
    float scale = args->attrs->scale;
    dropout drop = CPU(dropout_of)(args);
    real *out = args->out[0];
#pragma omp parallel for
    for (int64_t i = 0; i < batch->n; i++) {
        const real *token = (const real *)args->param[is_prompt(args, i) ? 3 : 0] + row_of(args, i) * D;
        for (int64_t c = 0; c < D; c += PANEL) {
            int64_t width = min64(PANEL, D - c);
            float x[PANEL], mask[PANEL];
            for (int64_t j = 0; j < width; j++)
                x[j] = load(token + c + j) * scale;
            if (places)
                add_reals(x, places + place_of(args, i) * D + c, width);
            if (types)
                add_reals(x, types + type_of(batch, i) * D + c, width);
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
    float *dplaces = args->dparam[1], *dtypes = args->dparam[2];
    for (int64_t i = 0; i < batch->n; i++) {
        float g[PANEL], mask[PANEL];
        for (int64_t j = 0; j < width; j++)
            g[j] = load(dout + i * D + column + j);
        if (drop->on) {
            CPU(dropout_mask)(drop, (uint64_t)(i * D + column), width, mask);
            for (int64_t j = 0; j < width; j++)
                g[j] *= mask[j];
        }
        float *table = args->dparam[is_prompt(args, i) ? 3 : 0], *to = table ? table + row_of(args, i) * D + column : NULL;
        for (int64_t j = 0; to && j < width; j++)
            to[j] += g[j] * scale;
        if (dplaces)
            add_floats(dplaces + place_of(args, i) * D + column, g, width);
        if (dtypes)
            add_floats(dtypes + type_of(batch, i) * D + column, g, width);
    }
}

void CPU(embed_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    int64_t D = attrs->n_out, rows[4] = {attrs->vocab, attrs->positions, attrs->types, attrs->prompt};
    dropout drop = CPU(dropout_of)(args);
    for (int p = 0; p < 4; p++)
        if (args->dparam[p] && !args->dparam_add[p])
            CPU(zero)(args->dparam[p], (size_t)(rows[p] * D) * sizeof(float));
#pragma omp parallel for
    for (int64_t c = 0; c < D; c += PANEL)
        backward_panel(args, &drop, c, min64(PANEL, D - c));
}
