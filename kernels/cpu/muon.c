#include "kernels/cpu/gemm.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/update.h"
#include "kernels/cpu/whole_sums.h"

#include <math.h>

/* A matrix' update; a floats_fn gets it by its first member. */
typedef struct muon {
    espl_rule_step step;
    const espl_rule_tensor *tensor;
    espl__muon_work work;
} muon;

static int64_t size_of(const muon *m) { return m->tensor->rows * m->tensor->columns; }

/* ---- What is made orthogonal. */

static void momentum_part(const muon *m, int64_t from, int64_t n) {
    const espl_rule_step *s = &m->step;
    float b = s->momentum, a = 1.0f - b, grad_scale = s->grad_scale, *held = (float *)s->state[0] + from;
    const float *grad = s->grad + from;
    real *x = (real *)m->work.x + from;
    bool nesterov = s->nesterov;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * grad_scale, mi = b * held[i] + a * g;
        held[i] = mi;
        store(x + i, nesterov ? a * g + b * mi : mi);
    }
}

static void x_row(const void *of, int64_t row, int64_t from, int64_t n, float *x) {
    const muon *m = of;
    const real *at = (const real *)m->work.x + row * ESPL_PART + from;
    for (int64_t i = 0; i < n; i++)
        x[i] = load(at + i);
}

/* x = a x + b p, element by element, as real. */
static void combine(real *x, float a, float b, const float *p, int64_t n) {
#pragma omp parallel for
    for (int64_t from = 0; from < n; from += CPU_CHUNK)
#pragma omp simd
        for (int64_t i = from; i < min64(from + CPU_CHUNK, n); i++)
            store(x + i, a * load(x + i) + b * p[i]);
}

static void normalise(real *x, float norm, int64_t n) {
#pragma omp parallel for
    for (int64_t from = 0; from < n; from += CPU_CHUNK)
#pragma omp simd
        for (int64_t i = from; i < min64(from + CPU_CHUNK, n); i++)
            store(x + i, load(x + i) / norm);
}

static void begin(const muon *m) {
    int64_t n = size_of(m), parts = espl__parts(m->tensor);
#pragma omp parallel for
    for (int64_t p = 0; p < parts; p++) {
        int64_t count = min64(ESPL_PART, n - p * ESPL_PART);
        momentum_part(m, p * ESPL_PART, count);
        m->work.sums[p] = row_squares(x_row, m, p, count);
    }
    normalise(m->work.x, fmaxf((float)sqrt(long_sum(m->work.sums, parts)), ESPL_MUON_EPS), n);
}

/* ---- Newton and Schulz. */

/* c[m,n] = a b, where a and b are matrices of the work. */
static gemm product_of(const muon *m, const real *a, const real *b, int64_t rows, int64_t columns, int64_t k) {
    return (gemm){.m = rows,
                  .n = columns,
                  .k = k,
                  .a = a,
                  .b = b,
                  .lda = k,
                  .ldb = columns,
                  .ldc = columns,
                  .alpha = 1,
                  .c = m->work.product,
                  .c_dtype = ESPL_F32,
                  .work = m->work.of_matmul};
}

static void make_gram(const muon *m) {
    const espl_rule_tensor *t = m->tensor;
    bool wide = t->rows <= t->columns;
    int64_t side = espl__side(t), k = wide ? t->columns : t->rows;
    gemm g = product_of(m, m->work.x, m->work.x, side, side, k);
    g.lda = g.ldb = t->columns;
    g.trans_a = !wide;
    g.trans_b = wide;
    g.c = m->work.gram;
    g.c_dtype = REAL_DTYPE;
    CPU(gemm)(&g);
}

static void orthogonalise(const muon *m) {
    const espl_rule_tensor *t = m->tensor;
    bool wide = t->rows <= t->columns;
    int64_t side = espl__side(t);
    real *x = m->work.x, *gram = m->work.gram;
    gemm square = product_of(m, gram, gram, side, side, side);
    gemm turn = wide ? product_of(m, gram, x, t->rows, t->columns, side) : product_of(m, x, gram, t->rows, t->columns, side);
    for (int step = 0; step < ESPL_MUON_STEPS; step++) {
        make_gram(m);
        CPU(gemm)(&square);
        combine(gram, ESPL_MUON_B, ESPL_MUON_C, m->work.product, side * side);
        CPU(gemm)(&turn);
        combine(x, ESPL_MUON_A, 1.0f, m->work.product, size_of(m));
    }
}

static void apply_floats(const espl_rule_step *s, const espl_rule_range *r, float *restrict weight, int64_t from, int64_t n) {
    const muon *m = (const muon *)(const void *)s;
    const real *x = (const real *)m->work.x + from;
    float lr = r->lr, decay = r->decay, scale = m->tensor->scale;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        weight[i] -= lr * (scale * load(x + i) + decay * weight[i]);
}

static void update_matrix(muon *m, const espl_rule_range *r) {
    espl__muon_layout(m->tensor, sizeof(real), CPU(gemm_work)(espl_kernels_threads()), m->step.work, &m->work);
    begin(m);
    orthogonalise(m);
#pragma omp parallel for
    for (int64_t from = 0; from < size_of(m); from += CPU_CHUNK)
        CPU(update_stretch)(&m->step, apply_floats, r, from, min64(from + CPU_CHUNK, size_of(m)));
}

void CPU(muon)(const espl_rule_step *step) {
    for (const espl_rule_range *r = step->ranges; r < step->ranges + step->n_ranges; r++) {
        muon m = {.step = espl__tensor_step(step, r, sizeof(real)), .tensor = r->tensor};
        if (m.tensor->matrix) {
            update_matrix(&m, r);
            continue;
        }
        espl_rule_range all;
        espl__make_adamw(&m.step, r, &all);
        CPU(adamw)(&m.step);
    }
}
