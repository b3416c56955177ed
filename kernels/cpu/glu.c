#include "kernels/cpu/act.h"
#include "kernels/cpu/table.h"

/* A row: gate in x[0 .. F), up in x[F .. 2F). */
typedef void forward_fn(const real *x, real *y, int64_t F);
typedef void backward_fn(const real *x, const real *dy, real *dx, int64_t F, bool add);

#define ROW(KIND, name)                                                                                                                    \
    static void forward_##name(const real *x, real *y, int64_t F) {                                                                        \
        _Pragma("omp simd") for (int64_t i = 0; i < F; i++) store(y + i, act_##name(load(x + i)) * load(x + F + i));                       \
    }                                                                                                                                      \
    static void backward_##name(const real *x, const real *dy, real *dx, int64_t F, bool add) {                                            \
        _Pragma("omp simd") for (int64_t i = 0; i < F; i++) {                                                                              \
            float gate = load(x + i), up = load(x + F + i), g = load(dy + i);                                                              \
            put(dx + i, g * up * slope_##name(gate), add);                                                                                 \
            put(dx + F + i, g * act_##name(gate), add);                                                                                    \
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

void CPU(glu_forward)(const espl_args *args) {
    int64_t F = args->attrs->n_out;
    const real *x = args->in[0];
    real *y = args->out[0];
    forward_fn *forward = forward_of[args->attrs->kind];
#pragma omp parallel for
    for (int64_t i = 0; i < args->batch->n; i++)
        forward(x + 2 * i * F, y + i * F, F);
}

void CPU(glu_backward)(const espl_args *args) {
    int64_t F = args->attrs->n_out;
    const real *x = args->in[0], *dy = args->dout[0];
    real *dx = args->din[0];
    backward_fn *backward = backward_of[args->attrs->kind];
#pragma omp parallel for
    for (int64_t i = 0; i < args->batch->n; i++)
        backward(x + 2 * i * F, dy + i * F, dx + 2 * i * F, F, args->din_add[0]);
}
