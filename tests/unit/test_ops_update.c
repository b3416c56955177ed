// test: libs=kernels,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* AdamW, sums of squares, additions and parts of sums over ranks of the reference; stochastic rounding, and what it is for on the CPU. */

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
    espl_rule_range all = {
        .begin = 0, .end = to - from, .lr = 0.01f, .decay = 0.1f, .c1 = (float)(1 - pow(beta1, t)), .c2 = (float)(1 - pow(beta2, t))};
    espl_rule_step step = {.weight = s->weight + from,
                           .master = s->master + from,
                           .state = {s->m + from, s->v + from},
                           .grad = grad + from,
                           .ranges = &all,
                           .n_ranges = 1,
                           .beta1 = beta1,
                           .beta2 = beta2,
                           .grad_scale = 0.5f,
                           .eps = 1e-8f};
    espl_kernels_ref(ESPL_F64)->update[ESPL_RULE_ADAMW](&step);
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

/* ---- Rounding to bf16 without masters. */

typedef espl_bf16 round_fn(float x, uint32_t noise);
static espl_bf16 to_nearest(float x, uint32_t noise) { return (void)noise, espl_bf16_from_float(x); }
static espl_bf16 towards_zero(float x, uint32_t noise) { return (void)noise, espl_bf16_from_float_noisy(x, 0); }

enum { ROUNDINGS = 20000 };

/* How far the mean of many roundings of x is from x, in standard deviations of that mean: of a coin that falls on the upper neighbour with
 * the probability p of x's place between the two, each ulp wide. */
static double deviations(round_fn *round, float x, uint32_t stream) {
    espl_rng_key key = {.seed = 4, .purpose = ESPL_RNG_ROUND, .op = stream};
    double low = espl_bf16_to_float(espl_bf16_from_float_noisy(x, 0)), high = espl_bf16_to_float(espl_bf16_from_float_noisy(x, 0xFFFF));
    double p = (x - low) / (high - low), sum = 0;
    for (int i = 0; i < ROUNDINGS; i++)
        sum += espl_bf16_to_float(round(x, espl_rng_u16(&key, (uint64_t)i))) - (double)x;
    return fabs(sum) / (fabs(high - low) * sqrt(ROUNDINGS * p * (1 - p)));
}

/* Of 200 fair means the farthest is beyond 5 deviations once in ten thousand tries (and the noise is a fixed one). What always falls on one
 * side is off by ulp min(p, 1 - p) at least, which is sqrt(ROUNDINGS / 99) = 14 deviations where both are above 1 %. */
static void stochastic_rounding_is_fair(void **state) {
    (void)state;
    double worst = 0, nearest = INFINITY, cut = INFINITY;
    for (uint32_t i = 0; i < 200; i++) {
        float x = (float)normal(20, i) * exp2f((float)(i % 40) - 20.0f), kept = espl_bf16_to_float(espl_bf16_from_float_noisy(x, 0));
        double place = fabs(x - kept) / fabs(espl_bf16_to_float(espl_bf16_from_float_noisy(x, 0xFFFF)) - kept);
        if (place < 0.01 || place > 0.99)
            continue;
        worst = fmax(worst, deviations(espl_bf16_from_float_noisy, x, i));
        nearest = fmin(nearest, deviations(to_nearest, x, i));
        cut = fmin(cut, deviations(towards_zero, x, i));
    }
    print_message("the mean is off by at most %.2f deviations; to nearest by at least %.1f, towards zero %.1f\n", worst, nearest, cut);
    assert_true(worst < 5);
    assert_true(nearest > 5 && cut > 5); /* controls */
}

static void stochastic_rounding_keeps_what_needs_none(void **state) {
    (void)state;
    static const float exact[] = {0.0f, -0.0f, 1.0f, -3.5f, 0x1p-133f, 0x1.fep127f, INFINITY, -INFINITY};
    static const uint32_t noises[] = {0, 1, 0x8000, 0xFFFF};
    for (size_t n = 0; n < 4; n++) {
        for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
            assert_int_equal(espl_bf16_from_float_noisy(exact[i], noises[n]), espl_bf16_from_float(exact[i]));
        assert_true(isnan(espl_bf16_to_float(espl_bf16_from_float_noisy(NAN, noises[n]))));
        assert_true(isnan(espl_bf16_to_float(espl_bf16_from_float_noisy(-NAN, noises[n]))));
    }
    uint32_t all_ones = 0x7FFFFFFFu; /* a NaN whose bits overflow when noise is added */
    float full;
    memcpy(&full, &all_ones, sizeof full);
    assert_true(isnan(espl_bf16_to_float(espl_bf16_from_float_noisy(full, 0xFFFF))));
}

enum { WEIGHTS = 4096, DRIFT_STEPS = 200 };

/* Steps that each take a fiftieth of a bf16 ulp off weights of 1.5 (with m = v = g = c = 1, w falls by lr). A weight falls by an ulp in one
 * step of fifty: DRIFT_STEPS coins, so the mean of all is off by 5 of its deviations in one of two million tries. */
static void small_updates_count_without_masters(void **state) {
    (void)state;
    static espl_bf16 weight[WEIGHTS];
    static float m[WEIGHTS], v[WEIGHTS], grad[WEIGHTS];
    const double ulp = 0x1p-7, p = 1.0 / 50;
    const float lr = (float)(ulp * p);
    const espl_rule_range all = {.begin = 0, .end = WEIGHTS, .lr = lr, .c1 = 1, .c2 = 1};
    double sum = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        weight[i] = espl_bf16_from_float(1.5f);
        m[i] = v[i] = grad[i] = 1;
    }
    for (uint32_t t = 1; t <= DRIFT_STEPS; t++) {
        espl_rule_step step = {
            .weight = weight, .state = {m, v}, .grad = grad, .ranges = &all, .n_ranges = 1, .beta1 = beta1, .beta2 = beta2};
        step.grad_scale = 1;
        step.rng = (espl_rng_key){.seed = 4, .purpose = ESPL_RNG_ROUND, .step = t};
        espl_kernels_cpu(ESPL_BF16)->update[ESPL_RULE_ADAMW](&step);
    }
    for (int i = 0; i < WEIGHTS; i++)
        sum += 1.5 - espl_bf16_to_float(weight[i]);
    double off = fabs(sum / WEIGHTS - DRIFT_STEPS * (double)lr), deviation = ulp * sqrt(DRIFT_STEPS * p * (1 - p) / WEIGHTS);
    print_message("the mean fell by %.4f ulp, %.2f deviations off\n", sum / WEIGHTS / ulp, off / deviation);
    assert_true(off < 5 * deviation);
    assert_int_equal(espl_bf16_from_float(1.5f - lr), espl_bf16_from_float(1.5f)); /* control: rounding to nearest never moves */
}

/* The bytes of gaps are in no checkpoint: what they were must not reach the scale of their block. */
static void gaps_of_a_block_have_no_moments(void **state) {
    (void)state;
    float weight[ESPL_STATE_BLOCK] = {0}, grad[ESPL_STATE_BLOCK];
    const espl_rule_range ranges[] = {{.begin = 10, .end = 20, .lr = 1, .c1 = 1, .c2 = 1},
                                      {.begin = 30, .end = 250, .lr = 1, .c1 = 1, .c2 = 1}};
    for (int i = 0; i < ESPL_STATE_BLOCK; i++)
        grad[i] = 1;
    for (int cpu = 0; cpu < 2; cpu++) {
        uint8_t m[2][ESPL_STATE_BLOCK] = {0}, v[2][ESPL_STATE_BLOCK] = {0};
        float m_scale[2] = {2, 2}, v_scale[2] = {2, 2};
        for (int k = 0; k < 2; k++) {
            for (int i = 0; i < ESPL_STATE_BLOCK; i++)
                m[k][i] = v[k][i] = (uint8_t)((i >= 10 && i < 20) || (i >= 30 && i < 250) ? 100 : 255 * k);
            espl_rule_step step = {.weight = weight,
                                   .state = {m[k], v[k], &m_scale[k], &v_scale[k]},
                                   .grad = grad,
                                   .ranges = ranges,
                                   .n_ranges = 2,
                                   .beta1 = beta1,
                                   .beta2 = beta2,
                                   .grad_scale = 1,
                                   .eps = 1};
            (cpu ? espl_kernels_cpu(ESPL_F32) : espl_kernels_ref(ESPL_F32))->update[ESPL_RULE_ADAMW8BIT](&step);
        }
        assert_memory_equal(m[0], m[1], sizeof m[0]);
        assert_memory_equal(v[0], v[1], sizeof v[0]);
        assert_true(m_scale[0] == m_scale[1] && v_scale[0] == v_scale[1] && m[0][0] == m[0][25] && m[0][0] == m[0][255]);
        assert_int_not_equal(m[0][0], m[0][10]); /* control: what is in a range keeps its moments */
    }
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

enum { PARTS = 3, PLACE = 1000, HELD = 777 }; /* ranks, elements between their parts, and of each */

/* No bf16 is nearer to x, and of two that are as near it is the even one. */
static bool is_nearest(espl_bf16 rounded, float x) {
    double off = fabs((double)espl_bf16_to_float(rounded) - x);
    double below = fabs((double)espl_bf16_to_float((espl_bf16)(rounded - 1)) - x),
           above = fabs((double)espl_bf16_to_float((espl_bf16)(rounded + 1)) - x);
    return off <= below && off <= above && ((off < below && off < above) || rounded % 2 == 0);
}

static void parts_are_rounded_for_others(void **state) {
    (void)state;
    static float from[PARTS * (HELD + 5)];
    static espl_bf16 stage[PARTS * PLACE];
    const espl_rank_parts to = {.data = stage, .stride = PLACE, .n = HELD, .rank = 1, .size = PARTS};
    for (int i = 0; i < PARTS * (HELD + 5); i++)
        from[i] = i % 3 ? (float)normal(30, i) : 1 + (float)(2 * i + 1) * 0x1p-8f; /* of which many lie midway */
    espl_kernels_ref(ESPL_F32)->round_parts(&to, from, HELD + 5);
    for (int r = 0; r < PARTS; r++)
        for (int i = 0; i < PLACE; i++) {
            bool filled = r != 1 && i < HELD;
            assert_true(filled ? is_nearest(stage[r * PLACE + i], from[r * (HELD + 5) + i]) : stage[r * PLACE + i] == 0);
            assert_true(!filled || !is_nearest((espl_bf16)(stage[r * PLACE + i] + 1), from[r * (HELD + 5) + i])); /* control */
        }
}

static void parts_are_added_in_order(void **state) {
    (void)state;
    static espl_bf16 stage[PARTS * PLACE];
    static float own[PLACE];
    int other_order = 0;
    for (int i = 0; i < PARTS * PLACE; i++)
        stage[i] = espl_bf16_from_float((float)normal(31, i));
    for (int i = 0; i < PLACE; i++)
        own[i] = (float)normal(32, i);
    const espl_rank_parts from = {.data = stage, .stride = PLACE, .n = HELD, .rank = 1, .size = PARTS};
    espl_kernels_ref(ESPL_F32)->add_parts(own, &from);
    for (int i = 0; i < PLACE; i++) {
        float a = espl_bf16_to_float(stage[i]), b = (float)normal(32, i), c = espl_bf16_to_float(stage[2 * PLACE + i]);
        assert_true(own[i] == (i < HELD ? (a + b) + c : b));
        other_order += i < HELD && own[i] != a + (b + c);
    }
    assert_true(other_order > 0); /* control */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_follows_the_formula),
        cmocka_unit_test(adamw_may_be_cut_anywhere),
        cmocka_unit_test(sum_squares_has_no_cuts),
        cmocka_unit_test(sum_squares_counts_what_is_not_finite),
        cmocka_unit_test(add_adds_and_zero_clears),
        cmocka_unit_test(parts_are_rounded_for_others),
        cmocka_unit_test(parts_are_added_in_order),
        cmocka_unit_test(stochastic_rounding_is_fair),
        cmocka_unit_test(stochastic_rounding_keeps_what_needs_none),
        cmocka_unit_test(small_updates_count_without_masters),
        cmocka_unit_test(gaps_of_a_block_have_no_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
