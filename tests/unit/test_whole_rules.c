// test: libs=kernels,core ranks=1 tier=short timeout=60
/* Rules of whole tensors on the CPU: Adafactor has the bits of the reference, Muon is as near to its formula as plain rounding allows; the
 * same bits for any number of threads, and a tensor's are its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/whole_steps.h"

#if defined(__SANITIZE_ADDRESS__) /* each set is the same source: one of them shows what sanitizers look for */
static const char *const sets[] = {"avx2"};
#else
static const char *const sets[] = {"portable", "avx2", "avx512"};
#endif

enum { N_SETS = sizeof sets / sizeof *sets };

static whole run(const espl_kernels *kernels, espl_rule rule, weight_way way, int threads) {
    whole s = whole_make(rule, way);
    espl_kernels_set_threads(threads);
    void *work = malloc(whole_work(kernels, rule));
    whole_steps(kernels, &s, work);
    free(work);
    return s;
}

static void check_bits(const espl_kernels *kernels, weight_way way) {
    whole truth = whole_truth(ESPL_RULE_ADAFACTOR, way), s = run(kernels, ESPL_RULE_ADAFACTOR, way, 2);
    assert_true(whole_same(&s, &truth));
    ((uint8_t *)s.weight)[whole_bytes(&s) - 11] ^= 1; /* controls */
    assert_false(whole_same(&s, &truth));
    whole_free(&s);
    s = whole_make(ESPL_RULE_ADAFACTOR, way);
    assert_false(whole_same(&s, &truth));
    whole_free(&s);
    whole_free(&truth);
}

static void adafactor_has_the_bits_of_the_reference(void **state) {
    (void)state;
    for (int i = 0; i < N_SETS; i++)
        for (int way = 0; way < N_WAYS; way++) {
            const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i], way_real((weight_way)way));
            if (kernels)
                check_bits(kernels, (weight_way)way);
        }
}

static void threads_change_no_bits(void **state) {
    (void)state;
    for (int rule = 0; rule < ESPL_N_RULES; rule++)
        for (int way = 0; way < N_WAYS && !by_elements(rule); way++) {
            const espl_kernels *kernels = espl_kernels_cpu(way_real((weight_way)way));
            whole one = run(kernels, (espl_rule)rule, (weight_way)way, 1), three = run(kernels, (espl_rule)rule, (weight_way)way, 3);
            assert_true(whole_same(&one, &three));
            whole_free(&one);
            whole_free(&three);
        }
}

static void check_direction(const espl_kernels *kernels, weight_way way, bool nesterov) {
    whole before = whole_make(ESPL_RULE_MUON, way), s = whole_make(ESPL_RULE_MUON, way);
    void *work = malloc(whole_work(kernels, ESPL_RULE_MUON));
    whole_layout all;
    whole_bare(&s);
    espl_rule_step step = bare_step(&s, &all, nesterov, work);
    kernels->update[ESPL_RULE_MUON](&step);
    const float *weight = way == WAY_MASTER ? s.master : s.weight;
    double off = directions_off(&before, weight, nesterov, kernels->real);
    double other = directions_off(&before, weight, !nesterov, kernels->real);
    print_message("%s: directions are off by %.2f of what rounding loses; with the other momentum %.3g\n", kernels->name, off, other);
    assert_true(off <= 2);
    assert_true(other > 2); /* control */
    free(work);
    whole_free(&s);
    whole_free(&before);
}

static void muon_follows_its_formula(void **state) {
    (void)state;
    espl_kernels_set_threads(2);
    for (int i = 0; i < N_SETS; i++)
        for (int nesterov = 0; nesterov < 2; nesterov++)
            for (int way = WAY_FP32; way <= WAY_MASTER; way++) {
                const espl_kernels *kernels = espl_kernels_cpu_isa(sets[i], way_real((weight_way)way));
                if (kernels)
                    check_direction(kernels, (weight_way)way, nesterov);
            }
    check_direction(espl_kernels_ref(ESPL_F32), WAY_FP32, true);
}

/* The momentum, and what is no matrix: elementwise, so the reference's bits. */
static void muon_keeps_what_the_reference_keeps(void **state) {
    (void)state;
    for (int way = 0; way < N_WAYS; way++) {
        whole truth = whole_truth(ESPL_RULE_MUON, (weight_way)way), start = whole_make(ESPL_RULE_MUON, (weight_way)way);
        whole s = run(espl_kernels_cpu(way_real((weight_way)way)), ESPL_RULE_MUON, (weight_way)way, 2);
        size_t size = espl_dtype_size(way_real((weight_way)way));
        whole_layout all;
        whole_lay_out(ESPL_RULE_MUON, 1, &all);
        for (int k = 0; k < espl_rules[ESPL_RULE_MUON].n_states; k++)
            assert_memory_equal(s.state[k], truth.state[k], s.state_bytes[k]);
        for (int i = 0; i < WHOLE_TENSORS; i++) {
            size_t at = (size_t)all.range[i].begin * size, bytes = (size_t)(all.range[i].end - all.range[i].begin) * size;
            if (!all.tensor[i].matrix)
                assert_memory_equal((char *)s.weight + at, (char *)truth.weight + at, bytes);
            assert_memory_not_equal((char *)s.weight + at, (char *)start.weight + at, bytes);
        }
        whole_free(&s);
        whole_free(&start);
        whole_free(&truth);
    }
}

/* Weights between tensors stay, and a run without masters rounds what a run with them has, by the contract. */
static void muon_rounds_by_the_contract(void **state) {
    (void)state;
    const espl_kernels *kernels = espl_kernels_cpu(ESPL_BF16);
    whole with = whole_make(ESPL_RULE_MUON, WAY_MASTER), alone = whole_make(ESPL_RULE_MUON, WAY_ALONE);
    void *work = malloc(whole_work(kernels, ESPL_RULE_MUON));
    whole_layout all;
    whole_bare(&with);
    whole_bare(&alone);
    espl_rule_step step = bare_step(&with, &all, true, work);
    kernels->update[ESPL_RULE_MUON](&step);
    step = bare_step(&alone, &all, true, work);
    kernels->update[ESPL_RULE_MUON](&step);
    const espl_bf16 *rounded = alone.weight;
    for (int64_t i = 0; i < alone.n; i++)
        assert_int_equal(rounded[i], espl_bf16_from_float_noisy(with.master[i], espl_rng_u16(&step.rng, step.first + (uint64_t)i)));
    for (int i = 0; i < WHOLE_TENSORS; i++)
        for (int64_t k = 0; k < WHOLE_GAP; k++)
            assert_int_equal(rounded[all.range[i].end + k], 0);
    free(work);
    whole_free(&with);
    whole_free(&alone);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adafactor_has_the_bits_of_the_reference),
        cmocka_unit_test(threads_change_no_bits),
        cmocka_unit_test(muon_follows_its_formula),
        cmocka_unit_test(muon_keeps_what_the_reference_keeps),
        cmocka_unit_test(muon_rounds_by_the_contract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
