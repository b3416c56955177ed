/* What tests of rules of whole tensors start from, and the steps they take: tensors of many shapes in one stretch of memory. */
#ifndef ESPL_TESTS_UNIT_WHOLE_STEPS_H
#define ESPL_TESTS_UNIT_WHOLE_STEPS_H

#include "tests/unit/rule_steps.h"

/* Wide, tall, of few rows, with more rows than lanes, square, and none; columns in several pieces and stretches. */
static const struct {
    int64_t rows, columns;
    bool matrix;
} whole_shapes[] = {{70, 90, true}, {1, 700, false}, {150, 40, true}, {5, 1300, true}, {1, 3, false}, {1100, 3, true}, {33, 33, true}};

enum { WHOLE_TENSORS = sizeof whole_shapes / sizeof *whole_shapes, WHOLE_GAP = 5 };

/* All tensors, and where they are. */
typedef struct whole_layout {
    espl_rule_tensor tensor[WHOLE_TENSORS];
    espl_rule_range range[WHOLE_TENSORS];
    int64_t n, states[ESPL_MAX_STATES];
} whole_layout;

static inline void whole_lay_out(espl_rule rule, int t, whole_layout *all) {
    *all = (whole_layout){.n = 3};
    for (int i = 0; i < WHOLE_TENSORS; i++) {
        espl_rule_tensor *tensor = &all->tensor[i];
        *tensor = (espl_rule_tensor){whole_shapes[i].rows, whole_shapes[i].columns, whole_shapes[i].matrix, 0.5f, {0}};
        for (int k = 0; k < espl_rules[rule].n_states; k++) {
            tensor->state[k] = all->states[k];
            all->states[k] += espl_rule_state_count(&espl_rules[rule].states[k], tensor) + 64;
        }
        espl_rule_range *r = &all->range[i];
        *r = step_range(all->n, all->n + tensor->rows * tensor->columns, t, 0, 1e-3f / (float)(1 + i % 3), 0.1f * (float)(i % 2));
        r->tensor = tensor;
        if (rule == ESPL_RULE_ADAFACTOR)
            r->c2 = powf((float)(t + i % 2), -0.8f);
        all->n = r->end + WHOLE_GAP;
    }
}

/* Weights, states and gradients of all of them. */
typedef struct whole {
    espl_rule rule;
    weight_way way;
    int64_t n;
    void *weight;
    float *master, *grad, *state[ESPL_MAX_STATES];
    size_t state_bytes[ESPL_MAX_STATES];
} whole;

static inline whole whole_make(espl_rule rule, weight_way way) {
    whole_layout all;
    whole_lay_out(rule, 1, &all);
    whole s = {.rule = rule, .way = way, .n = all.n, .master = numbers(2, all.n), .grad = numbers(3, all.n)};
    s.weight = malloc((size_t)all.n * espl_dtype_size(way_real(way)));
    espl_dtype_convert(s.weight, way_real(way), s.master, ESPL_F32, (size_t)all.n);
    for (int64_t i = 0; i < all.n; i++)
        s.grad[i] *= powf(10, (float)(i % 7 - 3));
    for (int k = 0; k < espl_rules[rule].n_states; k++) {
        s.state_bytes[k] = (size_t)all.states[k] * sizeof(float);
        s.state[k] = numbers(4 + (uint32_t)k, all.states[k]);
        for (int64_t i = 0; i < all.states[k]; i++)
            s.state[k][i] *= s.state[k][i];
    }
    if (way != WAY_MASTER) {
        free(s.master);
        s.master = NULL;
    }
    return s;
}

static inline void whole_free(whole *s) {
    free(s->weight);
    free(s->master);
    free(s->grad);
    for (int k = 0; k < ESPL_MAX_STATES; k++)
        free(s->state[k]);
}

static inline size_t whole_bytes(const whole *s) { return (size_t)s->n * espl_dtype_size(way_real(s->way)); }

static inline bool whole_same(const whole *a, const whole *b) {
    bool same = memcmp(a->weight, b->weight, whole_bytes(a)) == 0 &&
                (a->master == NULL || memcmp(a->master, b->master, (size_t)a->n * sizeof(float)) == 0);
    for (int k = 0; k < espl_rules[a->rule].n_states; k++)
        same = same && memcmp(a->state[k], b->state[k], a->state_bytes[k]) == 0;
    return same;
}

/* Work for the largest of them. */
static inline size_t whole_work(const espl_kernels *kernels, espl_rule rule) {
    whole_layout all;
    size_t most = 0;
    whole_lay_out(rule, 1, &all);
    for (int i = 0; i < WHOLE_TENSORS; i++) {
        size_t bytes = kernels->rule_work(rule, &all.tensor[i], espl_kernels_threads());
        most = bytes > most ? bytes : most;
    }
    return most;
}

static inline espl_rule_step whole_step(const whole *s, const whole_layout *all, int t, void *work) {
    espl_rule_step step = {.weight = s->weight,
                           .master = s->master,
                           .grad = s->grad,
                           .ranges = all->range,
                           .n_ranges = WHOLE_TENSORS,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .grad_scale = 0.5f,
                           .eps = 1e-8f,
                           .momentum = 0.95f,
                           .clip = 1.0f,
                           .nesterov = t % 2 == 0,
                           .rng = {.seed = 7, .purpose = ESPL_RNG_ROUND, .step = (uint32_t)t, .op = 3},
                           .first = STEP_PLACE,
                           .work = work};
    for (int k = 0; k < espl_rules[s->rule].n_states; k++)
        step.state[k] = s->state[k];
    return step;
}

/* Two steps. All that `s` and `work` point to lies where the kernels want it. */
static inline void whole_steps(const espl_kernels *kernels, const whole *s, void *work) {
    for (int t = 1; t <= 2; t++) {
        whole_layout all;
        whole_lay_out(s->rule, t, &all);
        espl_rule_step step = whole_step(s, &all, t, work);
        kernels->update[s->rule](&step);
    }
}

/* The same by the reference in fp32, rounded by the contract. */
static inline whole whole_truth(espl_rule rule, weight_way way) {
    const espl_kernels *ref = espl_kernels_ref(ESPL_F32);
    whole s = whole_make(rule, way), wide = s;
    void *work = malloc(whole_work(ref, rule));
    float *weight = wide.weight = malloc((size_t)s.n * sizeof *weight);
    espl_dtype_convert(weight, ESPL_F32, s.weight, way_real(way), (size_t)s.n);
    for (int t = 1; t <= 2; t++) {
        whole_layout all;
        whole_lay_out(rule, t, &all);
        espl_rule_step step = whole_step(&wide, &all, t, work);
        ref->update[rule](&step);
        for (int64_t i = 0; i < s.n && way == WAY_ALONE; i++)
            weight[i] = espl_bf16_to_float(espl_bf16_from_float_noisy(weight[i], espl_rng_u16(&step.rng, step.first + (uint64_t)i)));
    }
    espl_dtype_convert(s.weight, way_real(way), weight, ESPL_F32, (size_t)s.n);
    free(weight);
    free(work);
    return s;
}

/* ---- Muon's direction, from the formula. */

static inline double in_fp32(double x) { return (float)x; }
static inline double in_bf16(double x) { return espl_bf16_to_float(espl_bf16_from_float((float)x)); }
static inline double in_fp64(double x) { return x; }
typedef double round_to(double x);

/* c = a b [m,n], a [m,k]; or a b^T. Every sum is rounded by `sum_to`. */
static inline void plain_product(const double *a, const double *b, bool transposed, int64_t m, int64_t n, int64_t k, round_to *sum_to,
                                 double *c) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum = sum_to(sum + a[i * k + l] * b[transposed ? j * k + l : l * n + j]);
            c[i * n + j] = sum;
        }
}

/* x [rows, columns], rows <= columns, becomes what Newton and Schulz make of it, every result rounded, sums to fp32
 * unless the truth is asked for. */
static inline void plain_orthogonalise(double *x, int64_t rows, int64_t columns, round_to *to) {
    round_to *sum_to = to == in_fp64 ? in_fp64 : in_fp32;
    int64_t n = rows * columns;
    double *gram = malloc((size_t)(rows * rows) * sizeof *gram), *held = malloc((size_t)n * sizeof *held);
    for (int step = 0; step < 5; step++) {
        plain_product(x, x, true, rows, rows, columns, sum_to, gram);
        for (int64_t i = 0; i < rows * rows; i++)
            gram[i] = to(gram[i]);
        plain_product(gram, gram, false, rows, rows, rows, sum_to, held);
        for (int64_t i = 0; i < rows * rows; i++)
            gram[i] = to(-4.7750 * gram[i] + 2.0315 * held[i]);
        plain_product(gram, x, false, rows, columns, rows, sum_to, held);
        for (int64_t i = 0; i < n; i++)
            x[i] = to(3.4445 * x[i] + held[i]);
    }
    free(gram);
    free(held);
}

/* The direction of a matrix with gradient g and momentum m before the step, every result rounded; the caller frees it. */
static inline double *plain_direction(const float *g, const float *m, int64_t rows, int64_t columns, bool nesterov, round_to *to) {
    int64_t n = rows * columns;
    bool tall = rows > columns;
    double *x = malloc((size_t)n * sizeof *x), *result = malloc((size_t)n * sizeof *result), squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double scaled = 0.5 * g[i], momentum = 0.95 * m[i] + 0.05 * scaled;
        double value = to(nesterov ? 0.05 * scaled + 0.95 * momentum : momentum);
        x[tall ? i % columns * rows + i / columns : i] = value;
        squares += value * value;
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = to(x[i] / sqrt(squares));
    plain_orthogonalise(x, tall ? columns : rows, tall ? rows : columns, to);
    for (int64_t i = 0; i < n; i++)
        result[i] = x[tall ? i % columns * rows + i / columns : i];
    free(x);
    return result;
}

/* Distance of a from b, relative to b. */
static inline double direction_error(const double *a, const double *b, int64_t n) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        off += (a[i] - b[i]) * (a[i] - b[i]);
        all += b[i] * b[i];
    }
    return sqrt(off / all);
}

/* One step from weights of 0 with rate 1, without decay: what is left is minus the scaled direction. */
static inline void whole_bare(whole *s) {
    memset(s->weight, 0, whole_bytes(s));
    if (s->master != NULL)
        memset(s->master, 0, (size_t)s->n * sizeof *s->master);
}

static inline espl_rule_step bare_step(const whole *s, whole_layout *all, bool nesterov, void *work) {
    whole_lay_out(s->rule, 1, all);
    espl_rule_step step = whole_step(s, all, 1, work);
    step.nesterov = nesterov;
    for (int i = 0; i < WHOLE_TENSORS; i++) {
        all->range[i].lr = 1;
        all->range[i].decay = 0;
    }
    return step;
}

/* How far the directions in `weight` are from the formula's, in units of what plain loops in the format lose; the worst of all
 * matrices. `before` is the run before the step. */
static inline double directions_off(const whole *before, const float *weight, bool nesterov, espl_dtype real) {
    whole_layout all;
    double worst = 0;
    whole_lay_out(before->rule, 1, &all);
    for (int i = 0; i < WHOLE_TENSORS; i++) {
        const espl_rule_tensor *t = &all.tensor[i];
        const float *g = before->grad + all.range[i].begin, *m = before->state[0] + t->state[0];
        int64_t n = t->rows * t->columns;
        if (!t->matrix)
            continue;
        double *truth = plain_direction(g, m, t->rows, t->columns, nesterov, in_fp64), *found = malloc((size_t)n * sizeof *found);
        double *plain = plain_direction(g, m, t->rows, t->columns, nesterov, real == ESPL_BF16 ? in_bf16 : in_fp32);
        for (int64_t k = 0; k < n; k++)
            found[k] = -(double)weight[all.range[i].begin + k] / (double)t->scale;
        worst = fmax(worst, direction_error(found, truth, n) / direction_error(plain, truth, n));
        free(truth);
        free(plain);
        free(found);
    }
    return worst;
}

#endif
