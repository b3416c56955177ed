#include "kernels/cpu/act.h"
#include "kernels/cpu/table.h"

typedef void forward_fn(const real *x, real *y, int64_t n);
typedef void backward_fn(const real *x, const real *dy, float *dx, int64_t n);

#define ROW(KIND, name)                                                                                                                    \
    static void forward_##name(const real *x, real *y, int64_t n) {                                                                        \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) store(y + i, act_##name(load(x + i)));                                         \
    }                                                                                                                                      \
    static void backward_##name(const real *x, const real *dy, float *dx, int64_t n) {                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) dx[i] = load(dy + i) * slope_##name(load(x + i));                              \
    }
FOR_EACH_ACT(ROW)
#undef ROW

#define ROW(KIND, name) [KIND] = forward_##name,
static forward_fn *const forward_of[] = {FOR_EACH_ACT(ROW)};
#undef ROW
#define ROW(KIND, name) [KIND] = backward_##name,
static backward_fn *const backward_of[] = {FOR_EACH_ACT(ROW)};
#undef ROW

void CPU(act_row)(int32_t kind, const real *x, real *y, int64_t n) { forward_of[kind](x, y, n); }

void CPU(act_row_gradient)(int32_t kind, const real *x, const real *dy, real *dx, int64_t n, bool add) {
    float stretch[CPU_STRETCH];
    backward_of[kind](x, dy, stretch, n);
    put_row(dx, stretch, n, add);
}

void CPU(act_forward)(const espl_args *args) {
    int64_t n = args->batch->n * args->attrs->n_in;
    const real *x = args->in[0];
    real *y = args->out[0];
#pragma omp parallel for
    for (int64_t i = 0; i < n; i += CPU_CHUNK)
        CPU(act_row)(args->attrs->kind, x + i, y + i, min64(CPU_CHUNK, n - i));
}

void CPU(act_backward)(const espl_args *args) {
    int64_t n = args->batch->n * args->attrs->n_in;
    const real *x = args->in[0], *dy = args->dout[0];
    real *dx = args->din[0];
#pragma omp parallel for
    for (int64_t i = 0; i < n; i += CPU_STRETCH)
        CPU(act_row_gradient)(args->attrs->kind, x + i, dy + i, dx + i, min64(CPU_STRETCH, n - i), args->din_add[0]);
}
