// test: libs=kernels,core ranks=1 tier=short timeout=60
/* What runs over parameters on an emulated GPU: update rules, exact sums and parts of sums over ranks have the bits of the reference, which
 * the CPU has, wherever ranges are cut and tensors begin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tests/unit/rule_steps.h"
#include "tests/unit/emu_device.h"

enum { MANY = 256 * 40 + 77 };

/* A copy on the device, `skip` bytes behind a multiple of 256. */
static void *sent(const void *from, size_t bytes, size_t skip) {
    char *memory = on_device(bytes + skip);
    assert_ok(calls->write(device, memory + skip, from, bytes));
    return memory + skip;
}

static void take_back(void *to, void *memory, size_t bytes, size_t skip) {
    assert_ok(calls->read(device, to, memory, bytes));
    calls->release(device, (char *)memory - skip, bytes + skip);
}

/* The steps on the device; the results come back into a fresh set. */
static kept device_steps(espl_rule rule, weight_way way, int64_t cut, size_t skip) {
    const espl_kernels *kernels = way_real(way) == ESPL_BF16 ? backend->bf16 : backend->fp32;
    kept s = kept_make(rule, way, MANY), there = s;
    float *grad = numbers(5, MANY);
    size_t bytes = MANY * sizeof(float);
    int n_states = espl_rules[rule].n_states;
    there.weight = sent(s.weight, weight_bytes(&s), skip);
    there.master = s.master ? sent(s.master, bytes, skip) : NULL;
    for (int i = 0; i < n_states; i++)
        there.state[i] = sent(s.state[i], kept_bytes(&s, i), skip);
    float *grad_there = sent(grad, bytes, skip);
    three_steps(kernels, &there, grad_there, cut);
    assert_ok(calls->sync(device));
    take_back(s.weight, there.weight, weight_bytes(&s), skip);
    if (s.master)
        take_back(s.master, there.master, bytes, skip);
    for (int i = 0; i < n_states; i++)
        take_back(s.state[i], there.state[i], kept_bytes(&s, i), skip);
    take_back(grad, grad_there, bytes, skip);
    free(grad);
    return s;
}

static void check_rule(espl_rule rule, weight_way way, const float *grad) {
    static const struct {
        int64_t cut;
        size_t skip;
    } ways[] = {{MANY, 0}, {MANY, 4}, {1001, 0}, {256, 0}};
    kept truth = rule_truth(rule, way, grad, MANY);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        kept s = device_steps(rule, way, ways[i].cut, ways[i].skip);
        assert_true(kept_same(&s, &truth));
        ((uint8_t *)s.state[0])[MANY - 1] ^= 1;
        assert_false(kept_same(&s, &truth));
        kept_free(&s);
    }
    kept_free(&truth);
}

static void rules_have_the_bits_of_the_reference(void **state) {
    (void)state;
    float *grad = numbers(5, MANY);
    for (int rule = 0; rule < ESPL_N_RULES; rule++)
        for (int way = 0; way < N_WAYS && by_elements(rule); way++)
            check_rule((espl_rule)rule, (weight_way)way, grad);
    free(grad);
}

typedef void sum_fn(const float *x, int64_t n, espl_exact *sum);

/* The accumulator after two stretches of x. */
static espl_exact device_sum(sum_fn *sum, const float *x, int64_t cut, size_t skip) {
    espl_exact result = {0};
    float *there = sent(x, MANY * sizeof *x, skip);
    espl_exact *sum_there = sent(&result, sizeof result, 0);
    sum(there, cut, sum_there);
    sum(there + cut, MANY - cut, sum_there);
    take_back(&result, sum_there, sizeof result, 0);
    calls->release(device, (char *)there - skip, MANY * sizeof *x + skip);
    espl_exact_normalise(&result);
    return result;
}

static void check_sum(sum_fn *fast, sum_fn *plain, const float *x) {
    espl_exact truth = {0};
    plain(x, MANY, &truth);
    espl_exact_normalise(&truth);
    for (int64_t cut = 0; cut <= MANY; cut += 256 * 13) {
        espl_exact sum = device_sum(fast, x, cut, cut % 512 ? 4 : 0);
        assert_memory_equal(&sum, &truth, sizeof sum);
        sum.limb[0] ^= 1;
        assert_memory_not_equal(&sum, &truth, sizeof sum);
    }
}

static void sums_are_exact(void **state) {
    (void)state;
    const espl_kernels *ref = espl_kernels_ref(ESPL_F32);
    float *x = numbers(6, MANY);
    for (int64_t i = 0; i < MANY; i++)
        x[i] *= powf(10, (float)(i % 60 - 30));
    check_sum(backend->fp32->sum_squares, ref->sum_squares, x);
    check_sum(backend->bf16->sum, ref->sum, x);
    x[5] = NAN;
    x[6] = 3e38f;
    x[300] = -INFINITY;
    x[MANY - 1] = INFINITY;
    check_sum(backend->bf16->sum_squares, ref->sum_squares, x);
    check_sum(backend->fp32->sum, ref->sum, x);
    free(x);
}

static void check_moves(int64_t n, size_t skip) {
    float *a = numbers(7, MANY), *b = numbers(8, MANY), *want = numbers(7, MANY), *got = numbers(7, MANY);
    size_t bytes = MANY * sizeof *a;
    float *to = sent(a, bytes, skip), *from = sent(b, bytes, skip);
    backend->fp32->add(to, from, n);
    for (int64_t i = 0; i < n; i++)
        want[i] = a[i] + b[i];
    assert_ok(calls->read(device, got, to, bytes));
    assert_memory_equal(got, want, bytes);
    size_t odd = (size_t)n * sizeof *a - 3;
    backend->fp32->copy(to, from, odd);
    memcpy(want, b, odd);
    assert_ok(calls->read(device, got, to, bytes));
    assert_memory_equal(got, want, bytes);
    backend->fp32->zero(to, odd);
    memset(want, 0, odd);
    assert_ok(calls->read(device, got, to, bytes));
    assert_memory_equal(got, want, bytes);
    take_back(got, to, bytes, skip);
    take_back(got, from, bytes, skip);
    free(a);
    free(b);
    free(want);
    free(got);
}

static void adds_copies_and_zeroes(void **state) {
    (void)state;
    check_moves(MANY, 0);
    check_moves(MANY, 4);
    check_moves(1, 0);
    check_moves(1000, 0);
    check_moves(1022, 4);
}

/* With 16 bytes at a time, and where places do not allow it. */
static void check_parts(int rank, int64_t n, int64_t stride, size_t skip) {
    enum { SIZE = 3 };
    const espl_kernels *ref = espl_kernels_ref(ESPL_F32);
    const size_t all = (size_t)(SIZE * stride), bytes = (size_t)n * sizeof(float);
    float *x = numbers(9, (int64_t)all), *own = numbers(10, n), *own_ref = numbers(10, n);
    espl_bf16 *stage = calloc(all, sizeof *stage), *stage_ref = calloc(all, sizeof *stage);
    x[stride + 3] = INFINITY;
    float *x_there = sent(x, all * sizeof *x, skip), *own_there = sent(own, bytes, skip);
    const espl_rank_parts parts = {.data = sent(stage, all * sizeof *stage, skip), .stride = stride, .n = n, .rank = rank, .size = SIZE};
    espl_rank_parts parts_ref = parts;
    parts_ref.data = stage_ref;
    backend->fp32->round_parts(&parts, x_there, stride);
    backend->bf16->add_parts(own_there, &parts);
    ref->round_parts(&parts_ref, x, stride);
    ref->add_parts(own_ref, &parts_ref);
    take_back(stage, parts.data, all * sizeof *stage, skip);
    take_back(own, own_there, bytes, skip);
    take_back(x, x_there, all * sizeof *x, skip);
    assert_memory_equal(stage, stage_ref, all * sizeof *stage);
    assert_memory_equal(own, own_ref, bytes);
    free(x), free(own), free(own_ref), free(stage), free(stage_ref);
}

static void parts_are_rounded_and_added(void **state) {
    (void)state;
    for (int rank = 0; rank < 3; rank++) {
        check_parts(rank, 2560, 2816, 0);
        check_parts(rank, 2560, 2816, 4);
        check_parts(rank, 1003, 1003, 0);
        check_parts(rank, 1000, 1004, 0);
    }
}

static void nothing_is_done_to_nothing(void **state) {
    (void)state;
    espl_rule_step none = {.n_ranges = 0};
    for (int rule = 0; rule < ESPL_N_RULES; rule++)
        backend->fp32->update[rule](&none);
    backend->fp32->sum_squares(NULL, 0, NULL);
    backend->fp32->sum(NULL, 0, NULL);
    backend->fp32->add(NULL, NULL, 0);
    backend->fp32->copy(NULL, NULL, 0);
    const espl_rank_parts nowhere = {.size = 2};
    backend->fp32->round_parts(&nowhere, NULL, 0);
    backend->fp32->add_parts(NULL, &nowhere);
    backend->fp32->zero(NULL, 0);
    assert_ok(calls->sync(device));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rules_have_the_bits_of_the_reference, open_device, close_device),
        cmocka_unit_test_setup_teardown(sums_are_exact, open_device, close_device),
        cmocka_unit_test_setup_teardown(adds_copies_and_zeroes, open_device, close_device),
        cmocka_unit_test_setup_teardown(parts_are_rounded_and_added, open_device, close_device),
        cmocka_unit_test_setup_teardown(nothing_is_done_to_nothing, open_device, close_device),
    };
    find_emulator();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
