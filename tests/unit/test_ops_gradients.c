// test: libs=kernels,core ranks=1 tier=short timeout=300
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/op_run.h"

/* Every gradient of the reference in fp64 against central differences of L = sum of dout . out (LINEAR_XENT: loss_scale sum of out0), for
 * single elements and along whole directions.
 *
 * D(h) = (8 (L(h) - L(-h)) - (L(2h) - L(-2h))) / 12h is off by h^4 / 30 |L'''''| and by the rounding of four values of L. With S the root
 * of the sum of (dout max|out|)^2 over the outputs that move: rounding: each output is a sum of at most K terms, so S K 2^-53, errors of
 * independent outputs in quadrature, 8 of their deviations, and 18 / 12h from the stencil; truncation: |L'''''| <= 5! S / r^5 for a
 * function analytic within r = 1/2 of its inputs (Cauchy), 128 h^4 S; and the gradient under test has its own rounding, K 2^-53 of its
 * largest element. */
static const double step = 1e-3;

static double tolerance(const op_case *c, double spread) {
    return spread * (8 * op_longest_sum(c) * 0x1p-53 * 18 / (12 * step) + 128 * pow(step, 4));
}

enum { MAX_POINTS = 256 };

/* One derivative: along `direction`, or for one element when that is NULL. */
typedef struct point {
    double *direction;
    int64_t element;
    double numeric, tolerance;
} point;

typedef struct gradient {
    const op_case *c;
    int slot;         /* of the input or parameter */
    double *analytic; /* its gradient by the backward kernel */
    int64_t size;
    int n_points;
    point points[MAX_POINTS];
} gradient;

static op_backend truth(void) { return op_backend_of(espl_kernels_ref(ESPL_F64), 1); }

static double weight_of(const op_case *c, const op_values *v, int out, int64_t e) {
    if (c->op == ESPL_OP_LINEAR_XENT)
        return v->batch.loss_scale;
    const double *dout = v->slot[OP_DOUT0 + out];
    return dout ? dout[e] : 0;
}

/* The outputs with slot `g->slot` moved by t along the point. */
static void outputs_at(const gradient *g, const point *p, const double *base, double t, op_values *v) {
    op_backend backend = truth();
    for (int64_t e = 0; e < g->size; e++)
        v->slot[g->slot][e] = base[e] + (p->direction ? t * p->direction[e] : e == p->element ? t : 0);
    op_run_forward(&backend, g->c, v);
    memcpy(v->slot[g->slot], base, (size_t)g->size * sizeof *base);
}

/* L(t) - L(-t), element by element; adds what moves to *spread. */
static double loss_difference(const gradient *g, const point *p, double t, op_values *up, op_values *down, const double *base,
                              double *spread) {
    double sum = 0;
    outputs_at(g, p, base, t, up);
    outputs_at(g, p, base, -t, down);
    for (int o = 0; o < 3; o++) {
        double top = op_max(up->slot[OP_OUT0 + o], up->size[OP_OUT0 + o]);
        for (int64_t e = 0; e < up->size[OP_OUT0 + o]; e++) {
            double w = weight_of(g->c, up, o, e), difference = up->slot[OP_OUT0 + o][e] - down->slot[OP_OUT0 + o][e];
            sum += w * difference;
            *spread += difference != 0 ? w * top * w * top : 0;
        }
    }
    return sum;
}

static void measure(const gradient *g, point *p) {
    op_values up = op_values_make(g->c, ESPL_F64), down = op_values_make(g->c, ESPL_F64);
    double *base = malloc((size_t)g->size * sizeof *base), spread = 0;
    memcpy(base, up.slot[g->slot], (size_t)g->size * sizeof *base);
    double near = loss_difference(g, p, step, &up, &down, base, &spread), ignored = 0;
    double far = loss_difference(g, p, 2 * step, &up, &down, base, &ignored);
    p->numeric = (8 * near - far) / (12 * step);
    p->tolerance = tolerance(g->c, sqrt(spread)) + op_longest_sum(g->c) * 0x1p-53 * op_max(g->analytic, g->size);
    free(base);
    op_values_free(&up);
    op_values_free(&down);
}

/* A direction of length 1: `uphill` along the signs of the gradient, so that nothing cancels, else random. */
static double *direction(const gradient *g, bool uphill) {
    espl_rng_key key = {.seed = 9, .purpose = ESPL_RNG_TEST, .step = (uint32_t)g->slot, .op = uphill};
    double *d = malloc((size_t)g->size * sizeof *d), square = 0;
    for (int64_t e = 0; e < g->size; e++) {
        double x = espl_rng_normal(&key, (uint64_t)e);
        d[e] = uphill && g->analytic[e] != 0 ? copysign(0.5 + fabs(x), g->analytic[e]) : x;
        square += d[e] * d[e];
    }
    for (int64_t e = 0; e < g->size; e++)
        d[e] /= sqrt(square);
    return d;
}

/* The gradient of the slot by backward, without what it was added to; NULL when the case has none. */
static double *analytic_gradient(const op_case *c, int slot) {
    op_backend backend = truth();
    op_values v = op_values_make(c, ESPL_F64), prior = op_values_make(c, ESPL_F64);
    int from = slot < OP_OUT0 ? slot - OP_IN0 + OP_DIN0 : slot - OP_PARAM0 + OP_DPARAM0;
    if (slot == OP_IN1 && c->flags & OP_SHARED)
        from = OP_DIN0;
    if (slot == OP_IN1 && c->op == ESPL_OP_LORA)
        from = OP_DOUT0; /* which it is */
    double *g = NULL;
    if (v.slot[slot] && v.slot[from]) {
        op_run(&backend, c, &v);
        g = malloc((size_t)v.size[from] * sizeof *g);
        for (int64_t e = 0; e < v.size[from]; e++)
            g[e] = v.slot[from][e] - (c->flags & OP_ADD && from != OP_DOUT0 ? prior.slot[from][e] : 0);
    }
    op_values_free(&v);
    op_values_free(&prior);
    return g;
}

/* Two directions and single elements, all of them where they are few; under sanitizers a few. */
static void measure_all(gradient *g) {
    int64_t singles = g->c->flags & OP_LARGE ? 4 : getenv("ESPL_TEST_LIGHT") != NULL ? 8 : 96;
    singles = singles < g->size ? singles : g->size;
    for (int i = 0; i < 2; i++)
        g->points[g->n_points++] = (point){.direction = direction(g, i == 0)};
    for (int64_t i = 0; i < singles; i++)
        g->points[g->n_points++] = (point){.element = i * g->size / singles};
    for (int i = 0; i < g->n_points; i++)
        measure(g, &g->points[i]);
}

/* error / tolerance, worst of all points, of a candidate for the gradient. */
static double worst(const gradient *g, const double *candidate) {
    double top = 0;
    for (int i = 0; i < g->n_points; i++) {
        const point *p = &g->points[i];
        double derivative = 0;
        for (int64_t e = 0; e < g->size && p->direction; e++)
            derivative += candidate[e] * p->direction[e];
        double error = fabs((p->direction ? derivative : candidate[p->element]) - p->numeric);
        double ratio = error <= p->tolerance ? (error > 0 ? error / p->tolerance : 0) : INFINITY;
        top = ratio > top ? ratio : top;
    }
    return top;
}

static int by_size(const void *a, const void *b) {
    double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
    return (x > y) - (x < y);
}

/* The median size of the elements that are more than the noise of a zero. */
static double median(const double *x, int64_t n, double floor) {
    double *sorted = malloc((size_t)n * sizeof *sorted);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabs(x[i]) > floor)
            sorted[kept++] = x[i];
    qsort(sorted, (size_t)kept, sizeof *sorted, by_size);
    double result = fabs(sorted[kept / 2]);
    free(sorted);
    return result;
}

/* Negative controls: 1 % on the whole gradient, and 1 % of the median on each single element in turn, must not pass. */
static bool planted_errors_are_caught(const gradient *g) {
    double top = op_max(g->analytic, g->size), *bad = malloc((size_t)g->size * sizeof *bad);
    double typical = top > 1e-9 ? median(g->analytic, g->size, 1e-3 * top) : 0;
    bool caught = true;
    for (int64_t e = 0; e < g->size; e++)
        bad[e] = g->analytic[e] * 1.01;
    caught = caught && worst(g, bad) > 1;
    memcpy(bad, g->analytic, (size_t)g->size * sizeof *bad);
    for (int64_t i = 0; i < 64; i++) {
        int64_t e = i * g->size / 64;
        bad[e] += 0.01 * typical;
        caught = caught && worst(g, bad) > 1;
        bad[e] = g->analytic[e];
    }
    free(bad);
    return caught;
}

/* Returns whether the case has this gradient and it is not zero by nature, so that the negative controls ran. */
static bool check_gradient(const op_case *c, int slot) {
    gradient *g = calloc(1, sizeof *g);
    g->c = c;
    g->slot = slot;
    g->analytic = analytic_gradient(c, slot);
    g->size = op_slot_size(c, slot);
    bool checked = g->analytic != NULL && op_max(g->analytic, g->size) > 1e-9;
    if (g->analytic) {
        measure_all(g);
        double ratio = worst(g, g->analytic);
        if (!(ratio <= 1))
            fail_msg("%s: gradient of %s is not that of finite differences", c->name, op_slot_names[slot]);
        if (checked && !planted_errors_are_caught(g))
            fail_msg("%s: an error of 1 %% planted in the gradient of %s was not found", c->name, op_slot_names[slot]);
    }
    for (int i = 0; i < g->n_points; i++)
        free(g->points[i].direction);
    free(g->analytic);
    free(g);
    return checked;
}

/* Every (op, input or parameter) of ops.def must have been seen with a gradient that is not zero. */
static void gradients_match_finite_differences(void **state) {
    (void)state;
    static const int slots[] = {OP_IN0, OP_IN1, OP_PARAM0, OP_PARAM1, OP_PARAM2, OP_PARAM3};
    enum { N = sizeof slots / sizeof *slots };
    int seen[ESPL_N_OPS][N] = {{0}};
    for (int i = 0; i < OP_N_CASES; i++)
        for (int s = 0; s < N; s++)
            seen[op_cases[i].op][s] += check_gradient(&op_cases[i], slots[s]);
    for (int op = 0; op < ESPL_N_OPS; op++) {
        if (espl_ops[op].flags & ESPL_OP_FORWARD)
            continue;
        for (int s = 0; s < N; s++)
            if (op == ESPL_OP_MAGNITUDE && slots[s] == OP_IN1) /* norms are constants */
                assert_int_equal(seen[op][s], 0);
            else if (s < 2 ? s < espl_ops[op].n_in : s - 2 < espl_ops[op].n_param)
                assert_true(seen[op][s] >= 2);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_match_finite_differences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
