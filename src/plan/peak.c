#include "src/plan/peak.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <math.h>
#include <stdlib.h>

enum { SIDE = 2048 };

/* The fastest run: a peak is what is reached when nothing disturbs. */
static double least_seconds(const espl_kernels *kernels, const espl_args *args, double seconds) {
    double least = INFINITY;
    kernels->forward[ESPL_OP_LINEAR](args);
    for (double start = espl_now(); !isfinite(least) || espl_now() - start < seconds;) {
        double before = espl_now();
        kernels->forward[ESPL_OP_LINEAR](args);
        least = fmin(least, espl_now() - before);
    }
    return least;
}

double espl_peak_measure(const espl_kernels *kernels, int threads, double seconds) {
    espl_attrs attrs = {.n_in = SIDE, .n_out = SIDE, .layout = ESPL_OUT_IN};
    int32_t segments[2] = {0, SIDE};
    espl_batch batch = {.n = SIDE, .n_segments = 1, .segments = segments};
    size_t bytes = (size_t)SIDE * SIDE * espl_dtype_size(kernels->real);
    char *x = espl_calloc(1, bytes), *w = espl_calloc(1, bytes), *y = espl_calloc(1, bytes);
    void *work = espl_malloc(kernels->work_bytes(ESPL_OP_LINEAR, &attrs, SIDE, threads, 0));
    espl_args args = {.attrs = &attrs, .batch = &batch, .in = {x}, .out = {y}, .param = {w}, .work = work};
    double flops = espl_op_flops(ESPL_OP_LINEAR, &attrs, SIDE, 0.0) / least_seconds(kernels, &args, seconds);
    free(x);
    free(w);
    free(y);
    free(work);
    return flops;
}
