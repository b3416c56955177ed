#include "kernels/cpu/act.h"
#include "kernels/cpu/table.h"

typedef void forward_fn(const real *gate, const real *up, real *y, int64_t n);
typedef void backward_fn(const real *gate, const real *up, const real *dy, float *dgate, float *dup, int64_t n);

#define ROW(KIND, name)                                                                                                                    \
    static void forward_##name(const real *gate, const real *up, real *y, int64_t n) {                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) store(y + i, act_##name(load(gate + i)) * load(up + i));                       \
    }                                                                                                                                      \
    static void backward_##name(const real *gate, const real *up, const real *dy, float *restrict dgate, float *restrict dup, int64_t n) { \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) {                                                                              \
            dgate[i] = load(dy + i) * load(up + i) * slope_##name(load(gate + i));                                                         \
            dup[i] = load(dy + i) * act_##name(load(gate + i));                                                                            \
        }                                                                                                                                  \
    }
FOR_EACH_ACT(ROW)
#undef ROW

#define ROW(KIND, name) [KIND] = forward_##name,
static forward_fn *const forward_of[] = {FOR_EACH_ACT(ROW)};
#undef ROW
#define ROW(KIND, name) [KIND] = backward_##name,
static backward_fn *const backward_of[] = {FOR_EACH_ACT(ROW)};
#undef ROW

/* A row of in0 is gate [F], then up [F]. */
void CPU(glu_forward)(const espl_args *args) {
    int64_t F = args->attrs->n_out;
    const real *x = args->in[0];
    real *y = args->out[0];
    forward_fn *forward = forward_of[args->attrs->kind];
#pragma omp parallel for
    for (int64_t i = 0; i < args->batch->n; i++)
        forward(x + 2 * i * F, x + (2 * i + 1) * F, y + i * F, F);
}

static void backward_row(const espl_args *args, int64_t row) {
    int64_t F = args->attrs->n_out;
    const real *gate = (const real *)args->in[0] + 2 * row * F, *dy = (const real *)args->dout[0] + row * F;
    real *dx = (real *)args->din[0] + 2 * row * F;
    for (int64_t i = 0; i < F; i += CPU_STRETCH) {
        float dgate[CPU_STRETCH], dup[CPU_STRETCH];
        int64_t n = min64(CPU_STRETCH, F - i);
        backward_of[args->attrs->kind](gate + i, gate + F + i, dy + i, dgate, dup, n);
        put_row(dx + i, dgate, n, args->din_add[0]);
        put_row(dx + F + i, dup, n, args->din_add[0]);
    }
}

void CPU(glu_backward)(const espl_args *args) {
#pragma omp parallel for
    for (int64_t row = 0; row < args->batch->n; row++)
        backward_row(args, row);
}
