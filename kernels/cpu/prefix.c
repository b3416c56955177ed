#include "kernels/cpu/table.h"

enum { PANEL = 64 /* columns that one thread sums, segment by segment */ };

void CPU(prefix_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const int32_t *positions = args->batch->positions;
    const real *prefix = args->param[0];
    real *out = args->out[0];
    int64_t width = attrs->part[0].width;
#pragma omp parallel for
    for (int64_t t = 0; t < args->batch->n; t++)
        if (positions[t] < attrs->prompt)
            memcpy(out + (t + 1) * attrs->n_out - width, prefix + positions[t] * attrs->n_in + attrs->part[0].column,
                   (size_t)width * sizeof(real));
}

/* Columns column .. + n of what PREFIX has put into the rows of position p: there may be thousands of segments, so sums are double. */
static void backward_panel(const espl_args *args, int64_t p, int64_t column, int64_t n) {
    const espl_attrs *attrs = args->attrs;
    const int32_t *segments = args->batch->segments;
    float *to = args->dparam[0];
    double sum[PANEL] = {0};
    for (int32_t s = 0; s < args->batch->n_segments; s++) {
        int64_t t = segments[s] + p;
        if (t >= segments[s + 1])
            continue;
        real *from = (real *)args->dout[0] + (t + 1) * attrs->n_out - attrs->part[0].width + column;
        for (int64_t c = 0; c < n; c++)
            sum[c] += (double)load(from + c);
        memset(from, 0, (size_t)n * sizeof(real));
    }
    if (!to)
        return;
    to += p * attrs->n_in + attrs->part[0].column + column;
    for (int64_t c = 0; c < n; c++)
        to[c] = (float)(args->dparam_add[0] ? (double)to[c] + sum[c] : sum[c]);
}

void CPU(prefix_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    int64_t width = attrs->part[0].width, panels = pieces(width, PANEL);
    if (args->dparam[0] && !args->dparam_add[0])
        CPU(zero)(args->dparam[0], (size_t)(attrs->prompt * attrs->n_in) * sizeof(float));
#pragma omp parallel for
    for (int64_t unit = 0; unit < attrs->prompt * panels; unit++) {
        int64_t column = unit % panels * PANEL;
        backward_panel(args, unit / panels, column, min64(PANEL, width - column));
    }
}
