#include "kernels/cpu/act.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/table.h"

typedef void forward_fn(const real *gate, const real *up, real *y, int64_t n);
typedef void dropped_fn(const real *gate, const real *up, const float *mask, real *y, int64_t n);
typedef void backward_fn(const real *gate, const real *up, const real *dy, float *dgate, float *dup, int64_t n);

#define ROW(KIND, name)                                                                                                                    \
    static void forward_##name(const real *gate, const real *up, real *y, int64_t n) {                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) store(y + i, act_##name(load(gate + i)) * load(up + i));                       \
    }                                                                                                                                      \
    static void dropped_##name(const real *gate, const real *up, const float *mask, real *y, int64_t n) {                                  \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) store(y + i, act_##name(load(gate + i)) * load(up + i) * mask[i]);             \
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
#define ROW(KIND, name) [KIND] = dropped_##name,
static dropped_fn *const dropped_of[] = {FOR_EACH_ACT(ROW)};
#undef ROW
#define ROW(KIND, name) [KIND] = backward_##name,
static backward_fn *const backward_of[] = {FOR_EACH_ACT(ROW)};
#undef ROW

/* A row of in0 is gate [F], then up [F]. */
static void forward_row(const espl_args *args, const dropout *drop, int64_t row) {
    int64_t F = args->attrs->n_out;
    const real *gate = (const real *)args->in[0] + 2 * row * F;
    real *y = (real *)args->out[0] + row * F;
    if (!drop->on) {
        forward_of[args->attrs->kind](gate, gate + F, y, F);
        return;
    }
    for (int64_t i = 0; i < F; i += CPU_STRETCH) {
        float mask[CPU_STRETCH];
        int64_t n = min64(CPU_STRETCH, F - i);
        CPU(dropout_mask)(drop, (uint64_t)(row * F + i), n, mask);
        dropped_of[args->attrs->kind](gate + i, gate + F + i, mask, y + i, n);
    }
}

void CPU(glu_forward)(const espl_args *args) {
    dropout drop = CPU(dropout_of)(args);
#pragma omp parallel for
    for (int64_t row = 0; row < args->batch->n; row++)
        forward_row(args, &drop, row);
}

static void drop_both(const dropout *drop, uint64_t first, int64_t n, float *dgate, float *dup) {
    float mask[CPU_STRETCH];
    CPU(dropout_mask)(drop, first, n, mask);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        dgate[i] *= mask[i];
        dup[i] *= mask[i];
    }
}

static void backward_row(const espl_args *args, const dropout *drop, int64_t row) {
    int64_t F = args->attrs->n_out;
    const real *gate = (const real *)args->in[0] + 2 * row * F, *dy = (const real *)args->dout[0] + row * F;
    real *dx = (real *)args->din[0] + 2 * row * F;
    for (int64_t i = 0; i < F; i += CPU_STRETCH) {
        float dgate[CPU_STRETCH], dup[CPU_STRETCH];
        int64_t n = min64(CPU_STRETCH, F - i);
        backward_of[args->attrs->kind](gate + i, gate + F + i, dy + i, dgate, dup, n);
        if (drop->on)
            drop_both(drop, (uint64_t)(row * F + i), n, dgate, dup);
        put_row(dx + i, dgate, n, args->din_add[0]);
        put_row(dx + F + i, dup, n, args->din_add[0]);
    }
}

void CPU(glu_backward)(const espl_args *args) {
    dropout drop = CPU(dropout_of)(args);
#pragma omp parallel for
    for (int64_t row = 0; row < args->batch->n; row++)
        backward_row(args, &drop, row);
}
