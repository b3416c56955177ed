// test: libs=kernels,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* AdamW, sums of squares and additions of the reference. */

enum { N = 1000, STEPS = 20 };

static double normal(uint32_t stream, int64_t element) {
    espl_rng_key key = {.seed = 4, .purpose = ESPL_RNG_TEST, .op = stream};
    return espl_rng_normal(&key, (uint64_t)element);
}

typedef struct adam_state {
    float master[N], m[N], v[N];
    double weight[N];
} adam_state;

static const double beta1 = 0.9, beta2 = 0.999;

/* One step over [from, to). */
static void float_step(adam_state *s, int t, int from, int to) {
    static float grad[N];
    for (int i = from; i < to; i++)
        grad[i] = (float)normal((uint32_t)t, i);
    espl_adamw_range all = {0, to - from, 0.1f};
    espl_adamw step = {.weight = s->weight + from,
                       .master = s->master + from,
                       .m = s->m + from,
                       .v = s->v + from,
                       .grad = grad + from,
                       .ranges = &all,
                       .n_ranges = 1,
                       .beta1 = beta1,
                       .beta2 = beta2,
                       .grad_scale = 0.5f,
                       .lr = 0.01f,
                       .eps = 1e-8f,
                       .c1 = (float)(1 - pow(beta1, t)),
                       .c2 = (float)(1 - pow(beta2, t))};
    espl_kernels_ref(ESPL_F64)->adamw(&step);
}

static void float_start(adam_state *s) {
    memset(s, 0, sizeof *s);
    for (int i = 0; i < N; i++)
        s->master[i] = (float)normal(0, i);
}

/* Loshchilov & Hutter 2019, algorithm 2, in double, with `decay` to spoil. */
static void double_run(double weight[N], double decay) {
    static double m[N], v[N];
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    for (int i = 0; i < N; i++)
        weight[i] = (float)normal(0, i);
    for (int t = 1; t <= STEPS; t++)
        for (int i = 0; i < N; i++) {
            double g = 0.5 * (float)normal((uint32_t)t, i);
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            double corrected_m = m[i] / (1 - pow(beta1, t)), corrected_v = v[i] / (1 - pow(beta2, t));
            weight[i] -= 0.01f * (corrected_m / (sqrt(corrected_v) + 1e-8f) + decay * weight[i]);
        }
}

/* A step rounds the weight once, and its change (at most lr times about 1 + decay |w|) some 8 times; m and v carry 3 roundings a step. */
static double adam_error(const adam_state *s, const double *want) {
    double worst = 0;
    for (int i = 0; i < N; i++) {
        double bound = STEPS * 0x1p-24 * (fabs(want[i]) + 0.01 * (1 + 0.1 * fabs(want[i])) * (8 + 3 * STEPS));
        worst = fmax(worst, fabs(s->master[i] - want[i]) / bound);
    }
    return worst;
}

static void adamw_follows_the_formula(void **state) {
    (void)state;
    static adam_state s;
    static double want[N];
    float_start(&s);
    for (int t = 1; t <= STEPS; t++)
        float_step(&s, t, 0, N);
    double_run(want, 0.1f);
    assert_true(adam_error(&s, want) <= 1);
    for (int i = 0; i < N; i++)
        assert_true(s.weight[i] == s.master[i]);
    double_run(want, 0.101); /* control: 1 % on the decay */
    assert_true(adam_error(&s, want) > 1);
}

static void adamw_may_be_cut_anywhere(void **state) {
    (void)state;
    static adam_state whole, cut;
    float_start(&whole);
    float_start(&cut);
    for (int t = 1; t <= STEPS; t++) {
        int a = (t * 37) % N, b = a + (t * 101) % (N - a);
        float_step(&whole, t, 0, N);
        float_step(&cut, t, 0, a);
        float_step(&cut, t, a, b);
        float_step(&cut, t, b, N);
    }
    assert_memory_equal(&whole, &cut, sizeof whole);
}

enum { SQUARES = 256 * 9 + 77 };

static espl_exact sum_of(const float *x, const int64_t *cuts, int n_cuts) {
    espl_exact sum = {{0}, 0};
    for (int i = 0; i < n_cuts; i++)
        espl_kernels_ref(ESPL_F32)->sum_squares(x + cuts[i], cuts[i + 1] - cuts[i], &sum);
    espl_exact_normalise(&sum);
    return sum;
}

/* The whole accumulators are compared, below what a double shows. */
static void sum_squares_has_no_cuts(void **state) {
    (void)state;
    static float x[SQUARES];
    static const int64_t whole[] = {0, SQUARES}, cuts[] = {0, 256, 256, 1024, 256 * 9, SQUARES}, off[] = {0, 100, SQUARES};
    long double want = 0;
    for (int i = 0; i < SQUARES; i++) {
        x[i] = (float)(normal(7, i) * pow(10, i % 7 - 3));
        want += (long double)x[i] * x[i];
    }
    espl_exact a = sum_of(x, whole, 1), b = sum_of(x, cuts, 5), c = sum_of(x, off, 2);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a, &c, sizeof a); /* control: a cut that is not allowed shows */
    assert_true(fabsl(espl_exact_value(&a) - want) <= 256 * 0x1p-53L * want);
    assert_int_equal(a.n_nonfinite, 0);
}

/* 3e38 squared is finite in double; NaN and infinity are counted one by one. */
static void sum_squares_counts_what_is_not_finite(void **state) {
    (void)state;
    static float x[SQUARES];
    static const int64_t whole[] = {0, SQUARES};
    x[5] = 3e38f;
    espl_exact finite = sum_of(x, whole, 1);
    x[6] = NAN;
    x[7] = INFINITY;
    x[SQUARES - 1] = -INFINITY;
    espl_exact counted = sum_of(x, whole, 1);
    assert_true(espl_exact_value(&finite) == (double)3e38f * 3e38f);
    assert_true(espl_exact_value(&counted) == (double)3e38f * 3e38f);
    assert_int_equal(finite.n_nonfinite, 0);
    assert_int_equal(counted.n_nonfinite, 3);
}

static void add_adds_and_zero_clears(void **state) {
    (void)state;
    static float to[N], from[N];
    const espl_kernels *k = espl_kernels_ref(ESPL_F32);
    for (int i = 0; i < N; i++) {
        to[i] = (float)normal(8, i);
        from[i] = (float)normal(9, i);
    }
    k->add(to, from, N - 1);
    for (int i = 0; i < N; i++)
        assert_true(to[i] == (i < N - 1 ? (float)normal(8, i) + (float)normal(9, i) : (float)normal(8, i)));
    k->zero(to, (N - 1) * sizeof *to);
    assert_true(to[0] == 0 && to[N - 2] == 0 && to[N - 1] != 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_follows_the_formula), cmocka_unit_test(adamw_may_be_cut_anywhere),
        cmocka_unit_test(sum_squares_has_no_cuts),   cmocka_unit_test(sum_squares_counts_what_is_not_finite),
        cmocka_unit_test(add_adds_and_zero_clears),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
