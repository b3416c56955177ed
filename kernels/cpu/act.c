#include "kernels/cpu/act.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/table.h"

typedef void forward_fn(const real *x, real *y, int64_t n);
typedef void dropped_fn(const real *x, const float *mask, real *y, int64_t n);
typedef void backward_fn(const real *x, const real *dy, float *dx, int64_t n);

#define ROW(KIND, name)                                                                                                                    \
    static void forward_##name(const real *x, real *y, int64_t n) {                                                                        \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) store(y + i, act_##name(load(x + i)));                                         \
    }                                                                                                                                      \
    static void dropped_##name(const real *x, const float *mask, real *y, int64_t n) {                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) store(y + i, act_##name(load(x + i)) * mask[i]);                               \
    }                                                                                                                                      \
    static void backward_##name(const real *x, const real *dy, float *dx, int64_t n) {                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) dx[i] = load(dy + i) * slope_##name(load(x + i));                              \
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

/* The function of a kind; that of `rest` is in its factors. */
static int32_t function_of(const espl_args *args) { return args->attrs->kind == ESPL_ACT_REST ? ESPL_ACT_NONE : args->attrs->kind; }

static bool has_factors(const espl_args *args, const dropout *drop) { return drop->on || args->attrs->kind == ESPL_ACT_REST; }

/* What elements are multiplied with: dropout's mask, or of `rest` what that takes away. */
static void factors(const espl_args *args, const dropout *drop, int64_t first, int64_t n, float *mask) {
    for (int64_t i = 0; i < n && !drop->on; i++)
        mask[i] = 1.0f;
    if (drop->on)
        CPU(dropout_mask)(drop, (uint64_t)first, n, mask);
    for (int64_t i = 0; i < n && args->attrs->kind == ESPL_ACT_REST; i++)
        mask[i] = 1.0f - mask[i];
}

static void act_row_gradient(int32_t kind, const real *x, const real *dy, real *dx, int64_t n, bool add) {
    float stretch[CPU_STRETCH];
    backward_of[kind](x, dy, stretch, n);
    put_row(dx, stretch, n, add);
}

/* Elements first .. first + n - 1, at most CPU_CHUNK. */
static void dropped_row(const espl_args *args, const dropout *drop, int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; i += CPU_STRETCH) {
        float mask[CPU_STRETCH];
        int64_t count = min64(CPU_STRETCH, first + n - i);
        factors(args, drop, i, count, mask);
        dropped_of[function_of(args)]((const real *)args->in[0] + i, mask, (real *)args->out[0] + i, count);
    }
}

static void dropped_gradient(const espl_args *args, const dropout *drop, int64_t first, int64_t n) {
    float stretch[CPU_STRETCH], mask[CPU_STRETCH];
    factors(args, drop, first, n, mask);
    backward_of[function_of(args)]((const real *)args->in[0] + first, (const real *)args->dout[0] + first, stretch, n);
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        stretch[i] *= mask[i];
    put_row((real *)args->din[0] + first, stretch, n, args->din_add[0]);
}

void CPU(act_forward)(const espl_args *args) {
    int64_t n = args->batch->n * args->attrs->n_in;
    const real *x = args->in[0];
    real *y = args->out[0];
    dropout drop = CPU(dropout_of)(args);
#pragma omp parallel for
    for (int64_t i = 0; i < n; i += CPU_CHUNK)
        if (has_factors(args, &drop))
            dropped_row(args, &drop, i, min64(CPU_CHUNK, n - i));
        else
            forward_of[args->attrs->kind](x + i, y + i, min64(CPU_CHUNK, n - i));
}

void CPU(act_backward)(const espl_args *args) {
    int64_t n = args->batch->n * args->attrs->n_in;
    const real *x = args->in[0], *dy = args->dout[0];
    real *dx = args->din[0];
    dropout drop = CPU(dropout_of)(args);
#pragma omp parallel for
    for (int64_t i = 0; i < n; i += CPU_STRETCH)
        if (has_factors(args, &drop))
            dropped_gradient(args, &drop, i, min64(CPU_STRETCH, n - i));
        else
            act_row_gradient(args->attrs->kind, x + i, dy + i, dx + i, min64(CPU_STRETCH, n - i), args->din_add[0]);
}
