// test: libs=kernels,core ranks=1 tier=default timeout=600
/* The CPU backend against the reference: every case, instruction set and format by the 2x rule; the same bits for any number of threads. */
#include "tests/unit/rule_steps.h"
#include "tests/unit/op_run.h"

#include "kernels/matmul.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) /* each set is the same source: one of them shows what sanitizers look for */
static const char *const sets[] = {"avx2"};
#else
static const char *const sets[] = {"portable", "avx2", "avx512"};
#endif

enum { N_SETS = sizeof sets / sizeof *sets };

#define OP_MANY_TOKENS                                                                                                                     \
    { 0, 290, 291, 330 }
#define OP_FOUR_TOKENS                                                                                                                     \
    { 0, 4 }
#define OP_SIXTEEN_TOKENS                                                                                                                  \
    { 0, 7, 16 }
#define sqrt_of_80 8.94427191f

/* Where the kernels of this backend change their way: few rows, several chunks, stretches and tiles. */
static const op_case more_cases[] = {
    OP_LINEAR_ROW("linear out-in one token", OP_BIAS, OP_ONE_TOKEN, 75, 150, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out one token", OP_BIAS, OP_ONE_TOKEN, 75, 150, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear in-out four tokens", OP_BIAS, OP_FOUR_TOKENS, 75, 150, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear out-in sixteen tokens", OP_BIAS, OP_SIXTEEN_TOKENS, 75, 150, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out sixteen tokens", OP_BIAS, OP_SIXTEEN_TOKENS, 275, 150, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear out-in five tokens", 0, OP_LONE_TOKENS, 275, 150, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear out-in tiles", OP_BIAS | OP_ADD, OP_MANY_TOKENS, 600, 700, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out tiles", OP_BIAS, OP_MANY_TOKENS, 600, 700, ESPL_IN_OUT),
    OP_MLP_ROW("mlp gelu tanh one token", OP_BIAS, OP_ONE_TOKEN, 75, 150, 70, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu four tokens", OP_BIAS, OP_FOUR_TOKENS, 75, 150, 70, ESPL_OUT_IN, ESPL_ACT_GELU),
    OP_MLP_ROW("mlp gelu tanh tiles", OP_BIAS | OP_ADD, OP_MANY_TOKENS, 150, 600, 200, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp silu tiles", 0, OP_MANY_TOKENS, 150, 600, 200, ESPL_OUT_IN, ESPL_ACT_SILU),
    OP_QKV_ROW("qkv rope one token", OP_BIAS, OP_ONE_TOKEN, 40, 4, 2, 24, ESPL_OUT_IN, 24),
    OP_QKV_ROW("qkv rope in-out four tokens", OP_BIAS, OP_FOUR_TOKENS, 40, 4, 2, 24, ESPL_IN_OUT, 16),
    OP_ATTENTION_ROW("attention causal d80", 0, OP_MANY_TOKENS, 2, 1, 80, 1, 0, 0.1f),
    OP_ATTENTION_ROW("attention full d80", 0, OP_MANY_TOKENS, 2, 1, 80, 0, 0, 0),
    OP_ATTENTION_ROW("attention window 100", 0, OP_MANY_TOKENS, 2, 2, 16, 1, 100, 0),
    OP_BIASED_ROW("attention bias full d32", 0, OP_MANY_TOKENS, 2, 1, 32, 0, 0, 0, 0.25f, 32, 60),
    OP_BIASED_ROW("attention bias causal d80", OP_ADD, OP_MANY_TOKENS, 2, 2, 80, 1, 0, 0.1f, 0.1f, 32, 128),
    OP_CROSS_ROW("cross d80", 0, 2, 1, 80, 0.1f, 0.1f, 0, 290, 291, 330, 0, 70, 570, 571),
    OP_CROSS_ROW("cross d40 add", OP_ADD, 2, 2, 40, 0.1f, 0, 0, 290, 291, 330, 0, 1, 300, 365),
    OP_CROSS_ROW("cross chosen d64", OP_CHOSEN | OP_FORWARD, 4, 2, 64, 0.125f, 0, 0, 3, 8, 9, 16, 17, 29, 0, 200, 290),
    OP_RESNORM_ROW("resnorm many", OP_BIAS, OP_MANY_TOKENS, 130, ESPL_NORM_LAYER, 0.1f),
    OP_XENT_ROW("xent prompts", OP_PROMPTS, OP_MANY_TOKENS, 72, 211, 1),
    OP_XENT_ROW("xent prompts add", OP_PROMPTS | OP_ADD, OP_MANY_TOKENS, 72, 211, 1),
    OP_XENT_ROW("xent prompts alone", OP_PROMPTS, OP_ONE_SEGMENT, 72, 211, 1),
    OP_XENT_ROW("xent bias masked chunks", OP_BIAS | OP_WEIGHTS | OP_MASKED | OP_ADD, OP_MANY_TOKENS, 72, 211, 0.5f),
    OP_XENT_ROW("xent thousand labels", OP_BIAS, OP_SIXTEEN_TOKENS, 72, 1000, 1),
    OP_XENT_ROW("xent bias chunks", OP_BIAS | OP_WEIGHTS, OP_MANY_TOKENS, 72, 2, 1),
    OP_EMBED_ROW("embed types many", OP_BIAS | OP_TYPES, OP_MANY_TOKENS, 130, 40, 300, 2, 2, 1, 0.1f),
    OP_ACT_DROP_ROW("relu dropout many", OP_ADD, OP_MANY_TOKENS, 130, ESPL_ACT_RELU, 0.1f),
    OP_GLU_DROP_ROW("glu gelu dropout wide", 0, OP_SIXTEEN_TOKENS, 1030, ESPL_ACT_GELU, 0.1f),
    OP_POOL_ROW("pool last many", OP_ADD, OP_MANY_TOKENS, 130, ESPL_POOL_LAST),
    OP_XENT_ROW("xent chunks", OP_IGNORE, OP_MANY_TOKENS, 72, 2100, 1),
};

enum { N_CASES = OP_N_CASES + sizeof more_cases / sizeof *more_cases };

static const op_case *case_of(int i) { return i < OP_N_CASES ? &op_cases[i] : &more_cases[i - OP_N_CASES]; }

/* Cases that break the 2x rule. */
static int count_broken(const espl_kernels *kernels) {
    op_backend fast = op_backend_of(kernels, 2);
    int broken = 0;
    for (int i = 0; i < N_CASES; i++)
        broken += !(op_worst_2x(&fast, case_of(i), stdout) <= 1);
    return broken;
}

static void check_rule(espl_dtype real) {
    espl_kernels_set_threads(2);
    for (int i = 0; i < N_SETS; i++) {
        const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i], real);
        if (!kernels)
            printf("skipped: this machine lacks %s\n", sets[i]);
        else
            assert_int_equal(count_broken(kernels), 0);
    }
}

static void fp32_keeps_the_rule(void **state) {
    (void)state;
    check_rule(ESPL_F32);
}

static void bf16_keeps_the_rule(void **state) {
    (void)state;
    check_rule(ESPL_BF16);
}

static void bf16_by_conversion_keeps_the_rule(void **state) {
    (void)state;
    espl__matmul_forbid_bf16(true);
    check_rule(ESPL_BF16);
    espl__matmul_forbid_bf16(false);
}

/* The outputs of `threads` threads. */
static op_values run_with(const espl_kernels *kernels, const op_case *c, int threads) {
    op_backend backend = op_backend_of(kernels, threads);
    op_values v = op_values_make(c, kernels->real);
    espl_kernels_set_threads(threads);
    op_run(&backend, c, &v);
    return v;
}

/* Under sanitizers one number of threads, which divides nothing evenly. */
static void check_threads(const espl_kernels *kernels, const op_case *c) {
    const bool light = getenv("ESPL_TEST_LIGHT") != NULL;
    op_values one = run_with(kernels, c, 1);
    for (int threads = light ? 3 : 2; threads <= (light ? 3 : 4); threads++) {
        op_values many = run_with(kernels, c, threads);
        for (int s = 0; s < OP_SLOTS; s++)
            if (one.slot[s] && memcmp(one.slot[s], many.slot[s], (size_t)one.size[s] * sizeof(double)) != 0)
                fail_msg("%s: %s: %s differs between 1 and %d threads", kernels->name, c->name, op_slot_names[s], threads);
        op_values_free(&many);
    }
    op_values_free(&one);
}

static void threads_change_no_bits(void **state) {
    (void)state;
    for (int i = 0; i < N_SETS; i++)
        for (int c = 0; c < N_CASES; c++)
            for (int bf16 = 0; bf16 < 2; bf16++)
                if (espl_kernels_cpu_isa(sets[i], bf16 ? ESPL_BF16 : ESPL_F32))
                    check_threads(espl_kernels_cpu_isa(sets[i], bf16 ? ESPL_BF16 : ESPL_F32), case_of(c));
}

enum { FEW_TARGETS = 30 };

/* The first tokens' losses and din0 have the same bits whether later ones have targets or not; returns the tokens compared. (A token that
 * others come before stands in another row of the product, and libraries may sum rows of one product in different orders.) */
static int compare_targets(const espl_kernels *kernels, const op_case *c) {
    op_backend backend = op_backend_of(kernels, 2);
    op_values some = op_values_make(c, kernels->real), more = op_values_make(c, kernels->real);
    int64_t n = some.batch.n, width = some.attrs.n_in;
    int32_t *targets = some.tokens + 2 * n;
    int compared = 0;
    for (int64_t t = 0; t < n; t++)
        targets[t] = t < FEW_TARGETS ? targets[t] : -1;
    op_run(&backend, c, &some);
    op_run(&backend, c, &more);
    for (int64_t t = 0; t < n; t++) {
        compared += targets[t] >= 0;
        if (targets[t] >= 0 &&
            (some.slot[OP_OUT0][t] != more.slot[OP_OUT0][t] ||
             memcmp(some.slot[OP_DIN0] + t * width, more.slot[OP_DIN0] + t * width, (size_t)width * sizeof(double)) != 0))
            fail_msg("%s: %s: token %lld has other bits where fewer tokens have targets", kernels->name, c->name, (long long)t);
    }
    op_values_free(&some);
    op_values_free(&more);
    return compared;
}

static void absent_targets_change_no_bits(void **state) {
    (void)state;
    static const op_case cases[] = {
        OP_XENT_ROW("xent all or few", OP_BIAS | OP_WEIGHTS, OP_MANY_TOKENS, 72, 2100, 1),
        OP_XENT_ROW("xent all or few by 800", OP_BIAS, OP_MANY_TOKENS, 800, 700, 1),
        OP_XENT_ROW("xent all or few labels", OP_BIAS | OP_ADD, OP_MANY_TOKENS, 96, 3, 0.5f),
    };
    espl_kernels_set_threads(2);
    for (int i = 0; i < N_SETS; i++)
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
            for (int bf16 = 0; bf16 < 2; bf16++) {
                const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i], bf16 ? ESPL_BF16 : ESPL_F32);
                if (kernels)
                    assert_int_equal(compare_targets(kernels, &cases[c]), FEW_TARGETS);
            }
}

/* A cached run against the fp64 reference of plain attention; allowed: twice the error of the reference in fp32 and one rounding. */
static void check_cached(const espl_kernels *kernels, const op_case *c) {
    op_backend fast = op_backend_of(kernels, 2), truth = op_backend_of(espl_kernels_ref(ESPL_F64), 1);
    op_backend plain = op_backend_of(espl_kernels_ref(ESPL_F32), 1);
    op_values t = op_values_make(c, kernels->real), p = op_values_make(c, kernels->real);
    int64_t n = t.size[OP_OUT0];
    double *out = malloc((size_t)n * sizeof *out);
    plain.round = kernels->real;
    op_run(&truth, c, &t);
    op_run(&plain, c, &p);
    op_run_cached(&fast, c, &t, out);
    double error = op_error(out, t.slot[OP_OUT0], n);
    double allowed = 2 * op_error(p.slot[OP_OUT0], t.slot[OP_OUT0], n) + op_unit(kernels->real) * op_max(t.slot[OP_OUT0], n);
    if (!(error <= allowed))
        fail_msg("%s: cached %s: error %.3g, allowed %.3g", kernels->name, c->name, error, allowed);
    free(out);
    op_values_free(&t);
    op_values_free(&p);
}

static void cached_attention_is_attention(void **state) {
    (void)state;
    espl_kernels_set_threads(2);
    for (int i = 0; i < N_SETS; i++)
        for (int k = 0; k < N_CASES; k++)
            for (int bf16 = 0; bf16 < 2; bf16++) {
                const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i], bf16 ? ESPL_BF16 : ESPL_F32);
                const op_case *c = case_of(k);
                if (kernels && c->op == ESPL_OP_ATTENTION && c->attrs.causal && c->attrs.dropout == 0)
                    check_cached(kernels, c);
            }
}

static void what_is_asked_for_changes_no_bits(void **state) {
    (void)state;
    espl_kernels_set_threads(2);
    for (int i = 0; i < 2 * N_CASES; i++) {
        op_backend backend = op_backend_of(espl_kernels_cpu(i % 2 ? ESPL_BF16 : ESPL_F32), 2);
        if (espl_ops[case_of(i / 2)->op].flags & ESPL_OP_ALONE)
            assert_true(op_is_alone(&backend, case_of(i / 2)));
    }
}

/* A planted error of 1 % in one element of the output. */
static void wrong_linear(const espl_args *args) {
    espl_kernels_cpu(ESPL_F32)->forward[ESPL_OP_LINEAR](args);
    float *y = args->out[0];
    int64_t largest = 0, n = args->batch->n * args->attrs->n_out;
    for (int64_t i = 0; i < n; i++)
        largest = fabsf(y[i]) > fabsf(y[largest]) ? i : largest;
    y[largest] *= 1.01f;
}

static void planted_error_is_found(void **state) {
    (void)state;
    espl_kernels wrong = *espl_kernels_cpu(ESPL_F32);
    wrong.forward[ESPL_OP_LINEAR] = wrong_linear;
    op_backend fast = op_backend_of(&wrong, 2);
    int linear = 0;
    for (int i = 0; i < N_CASES; i++) {
        const op_case *c = case_of(i);
        linear += c->op == ESPL_OP_LINEAR;
        if (c->op == ESPL_OP_LINEAR)
            assert_true(op_worst_2x(&fast, c, NULL) > 1);
    }
    assert_true(linear > 10);
}

/* Under sanitizers, where all has run without them, one format of the kernels for CPUs. */
static int count_not_expanded(const espl_kernels *kernels, int threads) {
    op_backend backend = op_backend_of(kernels, threads);
    int broken = 0, first = getenv("ESPL_TEST_LIGHT") != NULL ? ESPL_QUANT_NF4_DOUBLE : ESPL_QUANT_INT8;
    espl_kernels_set_threads(threads);
    for (int i = 0; i < N_CASES; i++)
        for (int format = first; format <= ESPL_QUANT_NF4_DOUBLE && op_has_matrix(case_of(i)); format++)
            broken += !op_expands(&backend, case_of(i), format);
    return broken;
}

static void quantised_matrices_are_what_they_expand_to(void **state) {
    (void)state;
    for (int i = 0; i < 2 * N_SETS; i++) {
        const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i / 2], i % 2 ? ESPL_BF16 : ESPL_F32);
        if (kernels)
            assert_int_equal(count_not_expanded(kernels, 1 + i % 3), 0);
    }
    if (getenv("ESPL_TEST_LIGHT") != NULL)
        return;
    espl__matmul_forbid_bf16(true);
    assert_int_equal(count_not_expanded(espl_kernels_cpu(ESPL_BF16), 3), 0);
    espl__matmul_forbid_bf16(false);
    assert_int_equal(count_not_expanded(espl_kernels_ref(ESPL_F32), 1) + count_not_expanded(espl_kernels_ref(ESPL_F64), 1), 0);
}

/* One code of one matrix is another. */
static void linear_of_another_code(const espl_args *args) {
    if (args->attrs->quant[0].format != ESPL_QUANT_NONE)
        ((uint8_t *)(uintptr_t)args->param[0])[0] ^= 1;
    espl_kernels_cpu(ESPL_F32)->forward[ESPL_OP_LINEAR](args);
}

static void another_code_is_found(void **state) {
    (void)state;
    espl_kernels wrong = *espl_kernels_cpu(ESPL_F32);
    wrong.forward[ESPL_OP_LINEAR] = linear_of_another_code;
    op_backend backend = op_backend_of(&wrong, 2);
    for (int i = 0; i < N_CASES; i++)
        for (int format = ESPL_QUANT_INT8; format <= ESPL_QUANT_NF4_DOUBLE && case_of(i)->op == ESPL_OP_LINEAR; format++)
            assert_false(op_expands(&backend, case_of(i), format));
}

enum { MANY = 300001 };

static void squares_have_the_bits_of_the_reference(void **state) {
    (void)state;
    float *x = numbers(1, MANY);
    x[777] = INFINITY;
    for (int i = 0; i < N_SETS; i++) {
        const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i], ESPL_F32);
        espl_exact whole = {0}, cut = {0}, truth = {0};
        if (!kernels)
            continue;
        espl_kernels_ref(ESPL_F32)->sum_squares(x, MANY, &truth);
        kernels->sum_squares(x, MANY, &whole);
        kernels->sum_squares(x, 256 * 33, &cut);
        kernels->sum_squares(x + 256 * 33, MANY - 256 * 33, &cut);
        assert_true(espl_exact_value(&whole) == espl_exact_value(&truth) && espl_exact_value(&cut) == espl_exact_value(&truth));
        assert_int_equal(whole.n_nonfinite, truth.n_nonfinite);
        assert_int_equal(whole.n_nonfinite, 1);
    }
    free(x);
}

static void check_update(espl_rule rule, weight_way way, const float *grad) {
    kept truth = rule_truth(rule, way, grad, MANY);
    for (int i = 0; i < 2 * N_SETS; i++) {
        const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i / 2], way_real(way));
        if (!kernels)
            continue;
        kept s = kept_make(rule, way, MANY);
        assert_false(kept_same(&s, &truth));
        three_steps(kernels, &s, grad, i % 2 ? 1001 : MANY);
        assert_true(kept_same(&s, &truth));
        ((uint16_t *)s.weight)[MANY - 1] ^= 1;
        assert_false(kept_same(&s, &truth));
        kept_free(&s);
    }
    kept_free(&truth);
}

static void rules_are_the_reference(void **state) {
    (void)state;
    float *grad = numbers(5, MANY);
    for (int rule = 0; rule < ESPL_N_RULES; rule++)
        for (int way = 0; way < N_WAYS && by_elements(rule); way++)
            check_update((espl_rule)rule, (weight_way)way, grad);
    free(grad);
}

enum { SOME = 5003 };

/* What another rank's place holds is not touched, and so is the same on both sides. */
static void check_parts(const espl_kernels *kernels, int rank, int size) {
    const espl_kernels *ref = espl_kernels_ref(ESPL_F32);
    const int64_t stride = SOME + 5, all = size * stride;
    float *x = numbers(9, all), *own = numbers(10, SOME), *own_ref = numbers(10, SOME);
    espl_bf16 *stage = calloc((size_t)all, sizeof *stage), *stage_ref = calloc((size_t)all, sizeof *stage);
    const espl_rank_parts parts = {.data = stage, .stride = stride, .n = SOME, .rank = rank, .size = size};
    espl_rank_parts parts_ref = parts;
    parts_ref.data = stage_ref;
    x[stride + 3] = INFINITY;
    x[stride + 5] = NAN;
    x[stride + 7] = 0x1p-140f;
    kernels->round_parts(&parts, x, stride);
    ref->round_parts(&parts_ref, x, stride);
    assert_memory_equal(stage, stage_ref, (size_t)all * sizeof *stage);
    kernels->add_parts(own, &parts);
    ref->add_parts(own_ref, &parts_ref);
    assert_memory_equal(own, own_ref, SOME * sizeof *own);
    free(x), free(own), free(own_ref), free(stage), free(stage_ref);
}

static void parts_have_the_bits_of_the_reference(void **state) {
    (void)state;
    for (int i = 0; i < 2 * N_SETS; i++) {
        const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i / 2], i % 2 ? ESPL_BF16 : ESPL_F32);
        if (!kernels)
            continue;
        for (int rank = 0; rank < 3; rank++)
            check_parts(kernels, rank, 3);
        check_parts(kernels, 1, 2);
    }
}

static void adds_and_zeroes(void **state) {
    (void)state;
    const espl_kernels *kernels = espl_kernels_cpu(ESPL_F32);
    float *a = numbers(6, MANY), *b = numbers(7, MANY), *sum = numbers(6, MANY);
    kernels->add(sum, b, MANY);
    for (int64_t i = 0; i < MANY; i++)
        assert_true(sum[i] == a[i] + b[i]);
    kernels->zero(sum, (MANY - 1) * sizeof(float));
    for (int64_t i = 0; i < MANY - 1; i++)
        assert_true(sum[i] == 0);
    assert_true(sum[MANY - 1] == a[MANY - 1] + b[MANY - 1]);
    free(a);
    free(b);
    free(sum);
}

static void describes_itself(void **state) {
    (void)state;
    espl_kernels_set_threads(3);
    assert_int_equal(espl_kernels_threads(), 3);
    assert_non_null(strstr(espl_kernels_describe(), "3 threads"));
    assert_null(espl_kernels_cpu_isa("mmx", ESPL_F32));
    assert_null(espl_kernels_cpu(ESPL_F64));
    assert_int_equal(espl_kernels_cpu(ESPL_BF16)->real, ESPL_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32_keeps_the_rule),
        cmocka_unit_test(bf16_keeps_the_rule),
        cmocka_unit_test(bf16_by_conversion_keeps_the_rule),
        cmocka_unit_test(threads_change_no_bits),
        cmocka_unit_test(absent_targets_change_no_bits),
        cmocka_unit_test(cached_attention_is_attention),
        cmocka_unit_test(what_is_asked_for_changes_no_bits),
        cmocka_unit_test(planted_error_is_found),
        cmocka_unit_test(quantised_matrices_are_what_they_expand_to),
        cmocka_unit_test(another_code_is_found),
        cmocka_unit_test(squares_have_the_bits_of_the_reference),
        cmocka_unit_test(parts_have_the_bits_of_the_reference),
        cmocka_unit_test(rules_are_the_reference),
        cmocka_unit_test(adds_and_zeroes),
        cmocka_unit_test(describes_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
