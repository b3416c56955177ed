// test: libs=kernels,core ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/op_naive.h"
#include "tests/unit/op_run.h"

static op_backend ref(espl_dtype real) { return op_backend_of(espl_kernels_ref(real), 1); }

/* Each output is a sum of at most K products, so within K roundings; 8 for the functions after it. */
static void forward_follows_the_formulas(void **state) {
    (void)state;
    op_backend f64 = ref(ESPL_F64);
    for (int i = 0; i < OP_N_CASES; i++) {
        const op_case *c = &op_cases[i];
        double roundings = 8 * op_longest_sum(c) * 0x1p-53;
        op_values got = op_values_make(c, ESPL_F64), want = op_values_make(c, ESPL_F64);
        op_run_forward(&f64, c, &got);
        op_naive[c->op](&want, want.slot + OP_OUT0);
        assert_true(op_close_to(c, &got, &want, OP_OUT2, roundings, stderr));
        assert_true(op_planted_is_noticed(c, &got, &want, OP_OUT2, roundings, 1e-9));
        op_values_free(&got);
        op_values_free(&want);
    }
}

/* Forward and backward are chains of at most four sums of K terms. */
static void single_precision_is_double_within_rounding(void **state) {
    (void)state;
    op_backend f32 = ref(ESPL_F32), f64 = ref(ESPL_F64);
    for (int i = 0; i < OP_N_CASES; i++) {
        const op_case *c = &op_cases[i];
        double roundings = 4 * op_longest_sum(c) * 0x1p-24;
        op_values got = op_values_make(c, ESPL_F32), want = op_values_make(c, ESPL_F32);
        op_run(&f32, c, &got);
        op_run(&f64, c, &want);
        assert_true(op_close_to(c, &got, &want, OP_SLOTS - 1, roundings, stderr));
        assert_true(op_planted_is_noticed(c, &got, &want, OP_SLOTS - 1, roundings, 0.001));
        op_values_free(&got);
        op_values_free(&want);
    }
}

static bool runs_cached(const op_case *c) {
    return c->op == ESPL_OP_ATTENTION && c->attrs.causal && (c->attrs.dropout == 0 || c->flags & OP_EVAL);
}

/* The same sums in the same order: bit for bit. */
static void cached_attention_is_attention(void **state) {
    (void)state;
    int n = 0;
    for (int i = 0; i < 2 * OP_N_CASES; i++) {
        const op_case *c = &op_cases[i / 2];
        op_backend backend = ref(i % 2 ? ESPL_F64 : ESPL_F32);
        if (!runs_cached(c))
            continue;
        op_values v = op_values_make(c, ESPL_F32);
        double *out = malloc((size_t)v.size[OP_OUT0] * sizeof *out);
        op_run(&backend, c, &v);
        op_run_cached(&backend, c, &v, out);
        assert_memory_equal(out, v.slot[OP_OUT0], (size_t)v.size[OP_OUT0] * sizeof *out);
        free(out);
        op_values_free(&v);
        n++;
    }
    assert_true(n >= 16);
}

static void resnorm_renews(void **state) {
    (void)state;
    op_backend f32 = ref(ESPL_F32);
    for (int i = 0; i < OP_N_CASES; i++)
        if (op_cases[i].op == ESPL_OP_RESNORM)
            assert_true(op_renews(&f32, &op_cases[i]));
}

static void what_is_asked_for_changes_no_bits(void **state) {
    (void)state;
    op_backend f32 = ref(ESPL_F32);
    for (int i = 0; i < OP_N_CASES; i++)
        if (espl_ops[op_cases[i].op].flags & ESPL_OP_ALONE)
            assert_true(op_is_alone(&f32, &op_cases[i]));
}

enum { DROP_ROWS = 40, DROP_WIDTH = 256, DROP_N = DROP_ROWS * DROP_WIDTH };

/* drop(1) by RESNORM: out0 with in0 = 0, in1 = 1; and din1 with dout0 = 1, dout1 = 0. */
static void drop_ones(uint32_t op, uint32_t micro, double *forward, double *backward) {
    static const int32_t segments[2] = {0, DROP_ROWS};
    static double in[2][DROP_N], out[3][DROP_N], din[2][DROP_N], dout[2][DROP_N], gain[DROP_WIDTH];
    espl_attrs attrs = {.n_in = DROP_WIDTH, .eps = 1e-5f, .dropout = 0.3f, .rng_op = op};
    espl_batch batch = {.n = DROP_ROWS,
                        .n_segments = 1,
                        .segments = segments,
                        .training = 1,
                        .rng = {.seed = 11, .purpose = ESPL_RNG_DROPOUT, .micro = micro}};
    espl_args args = {.attrs = &attrs,
                      .batch = &batch,
                      .in = {in[0], in[1]},
                      .out = {out[0], out[1], out[2]},
                      .param = {gain},
                      .din = {din[0], din[1]},
                      .dout = {dout[0], dout[1]}};
    for (int e = 0; e < DROP_N; e++)
        in[1][e] = dout[0][e] = 1;
    espl_kernels_ref(ESPL_F64)->forward[ESPL_OP_RESNORM](&args);
    espl_kernels_ref(ESPL_F64)->backward[ESPL_OP_RESNORM](&args);
    memcpy(forward, out[0], sizeof out[0]);
    memcpy(backward, din[1], sizeof din[1]);
}

static int kept(const double *x) {
    int n = 0;
    for (int e = 0; e < DROP_N; e++) {
        assert_true(x[e] == 0 || x[e] == 1 / (1 - (double)0.3f));
        n += x[e] != 0;
    }
    return n;
}

static int agreements(const double *x, const double *y) {
    int n = 0;
    for (int e = 0; e < DROP_N; e++)
        n += (x[e] != 0) == (y[e] != 0);
    return n;
}

/* Counts are binomial: within 5 standard deviations. Independent masks agree with probability 0.7^2 + 0.3^2. */
static void dropout_has_its_rate_and_one_mask(void **state) {
    (void)state;
    static double x[DROP_N], y[DROP_N], other_op[DROP_N], other_micro[DROP_N], dx[DROP_N];
    double rate = 1 - (double)0.3f, agree = rate * rate + (1 - rate) * (1 - rate);
    drop_ones(1, 0, x, dx);
    drop_ones(1, 0, y, dx);
    drop_ones(2, 0, other_op, y);
    drop_ones(1, 1, other_micro, y);
    assert_memory_equal(x, dx, sizeof x);
    assert_true(fabs(kept(x) - rate * DROP_N) < 5 * sqrt(DROP_N * rate * (1 - rate)));
    assert_true(fabs(agreements(x, other_op) - agree * DROP_N) < 5 * sqrt(DROP_N * agree * (1 - agree)));
    assert_true(fabs(agreements(x, other_micro) - agree * DROP_N) < 5 * sqrt(DROP_N * agree * (1 - agree)));
}

static void table_is_complete(void **state) {
    (void)state;
    assert_null(espl_kernels_ref(ESPL_BF16));
    for (int d = 0; d < 2; d++) {
        const espl_kernels *k = espl_kernels_ref(d ? ESPL_F64 : ESPL_F32);
        assert_int_equal(k->real, d ? ESPL_F64 : ESPL_F32);
        assert_int_equal(k->stat, k->real);
        for (int op = 0; op < ESPL_N_OPS; op++) {
            assert_non_null(k->forward[op]);
            assert_int_equal(k->backward[op] == NULL, (espl_ops[op].flags & ESPL_OP_FORWARD) != 0);
        }
    }
}

static void flops_count_multiply_adds_twice(void **state) {
    (void)state;
    espl_attrs attrs = {.n_in = 3, .n_out = 5, .ffn = 13, .vocab = 11, .heads = 2, .kv_heads = 1, .head_dim = 8};
    assert_true(espl_op_flops(ESPL_OP_LINEAR, &attrs, 7, 0) == 2 * 7 * 3 * 5);
    assert_true(espl_op_flops(ESPL_OP_LINEAR_XENT, &attrs, 7, 0) == 2 * 7 * 3 * 11);
    assert_true(espl_op_flops(ESPL_OP_MLP, &attrs, 7, 0) == 2 * 7 * (3 * 13 + 13 * 5));
    assert_true(espl_op_flops(ESPL_OP_ATTENTION, &attrs, 7, 28) == 28 * (2 * (2 * 8 + 2 * 8)));
    assert_true(espl_op_flops(ESPL_OP_RESNORM, &attrs, 7, 0) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_follows_the_formulas),
        cmocka_unit_test(single_precision_is_double_within_rounding),
        cmocka_unit_test(cached_attention_is_attention),
        cmocka_unit_test(resnorm_renews),
        cmocka_unit_test(what_is_asked_for_changes_no_bits),
        cmocka_unit_test(dropout_has_its_rate_and_one_mask),
        cmocka_unit_test(table_is_complete),
        cmocka_unit_test(flops_count_multiply_adds_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
