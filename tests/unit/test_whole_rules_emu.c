// test: libs=kernels,core ranks=1 tier=short timeout=60
/* Rules of whole tensors on an emulated GPU: Adafactor has the bits of the reference, which the CPU has; Muon is as near to its formula as
 * plain rounding allows, and has the reference's bits where no product is made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tests/unit/whole_steps.h"
#include "tests/unit/emu_device.h"

static const espl_kernels *kernels_of(weight_way way) { return way_real(way) == ESPL_BF16 ? backend->bf16 : backend->fp32; }

static void *sent(const void *from, size_t bytes) {
    void *memory = on_device(bytes);
    assert_ok(calls->write(device, memory, from, bytes));
    return memory;
}

static void take_back(void *to, void *memory, size_t bytes) {
    assert_ok(calls->read(device, to, memory, bytes));
    calls->release(device, memory, bytes);
}

/* A copy of all of it on the device. */
static whole send_whole(const whole *s) {
    whole there = *s;
    there.weight = sent(s->weight, whole_bytes(s));
    there.master = s->master ? sent(s->master, (size_t)s->n * sizeof(float)) : NULL;
    there.grad = sent(s->grad, (size_t)s->n * sizeof(float));
    for (int k = 0; k < espl_rules[s->rule].n_states; k++)
        there.state[k] = sent(s->state[k], s->state_bytes[k]);
    return there;
}

static void take_whole(whole *s, const whole *there) {
    take_back(s->weight, there->weight, whole_bytes(s));
    if (s->master)
        take_back(s->master, there->master, (size_t)s->n * sizeof(float));
    take_back(s->grad, there->grad, (size_t)s->n * sizeof(float));
    for (int k = 0; k < espl_rules[s->rule].n_states; k++)
        take_back(s->state[k], there->state[k], s->state_bytes[k]);
}

static whole device_run(espl_rule rule, weight_way way) {
    whole s = whole_make(rule, way), there = send_whole(&s);
    size_t bytes = whole_work(kernels_of(way), rule);
    void *work = on_device(bytes);
    whole_steps(kernels_of(way), &there, work);
    assert_ok(calls->sync(device));
    take_whole(&s, &there);
    calls->release(device, work, bytes);
    return s;
}

static void adafactor_has_the_bits_of_the_reference(void **state) {
    (void)state;
    for (int way = 0; way < N_WAYS; way++) {
        whole truth = whole_truth(ESPL_RULE_ADAFACTOR, (weight_way)way), s = device_run(ESPL_RULE_ADAFACTOR, (weight_way)way);
        assert_true(whole_same(&s, &truth));
        ((uint8_t *)s.weight)[whole_bytes(&s) - 11] ^= 1;
        assert_false(whole_same(&s, &truth));
        whole_free(&s);
        whole_free(&truth);
    }
}

static void muon_keeps_what_the_reference_keeps(void **state) {
    (void)state;
    for (int way = 0; way < N_WAYS; way++) {
        whole truth = whole_truth(ESPL_RULE_MUON, (weight_way)way), s = device_run(ESPL_RULE_MUON, (weight_way)way);
        for (int k = 0; k < espl_rules[ESPL_RULE_MUON].n_states; k++)
            assert_memory_equal(s.state[k], truth.state[k], s.state_bytes[k]);
        whole_free(&s);
        whole_free(&truth);
    }
}

static void muon_follows_its_formula(void **state) {
    (void)state;
    for (int way = WAY_FP32; way <= WAY_MASTER; way++) {
        const espl_kernels *kernels = kernels_of((weight_way)way);
        whole before = whole_make(ESPL_RULE_MUON, (weight_way)way), s = whole_make(ESPL_RULE_MUON, (weight_way)way);
        whole_bare(&s);
        whole there = send_whole(&s);
        size_t bytes = whole_work(kernels, ESPL_RULE_MUON);
        void *work = on_device(bytes);
        whole_layout all;
        espl_rule_step step = bare_step(&there, &all, true, work);
        kernels->update[ESPL_RULE_MUON](&step);
        assert_ok(calls->sync(device));
        take_whole(&s, &there);
        calls->release(device, work, bytes);
        double off = directions_off(&before, way == WAY_MASTER ? s.master : s.weight, true, kernels->real);
        print_message("%s: directions are off by %.2f of what rounding loses\n", kernels->name, off);
        assert_true(off <= 2);
        assert_true(directions_off(&before, way == WAY_MASTER ? s.master : s.weight, false, kernels->real) > 2); /* control */
        whole_free(&s);
        whole_free(&before);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(adafactor_has_the_bits_of_the_reference, open_device, close_device),
        cmocka_unit_test_setup_teardown(muon_keeps_what_the_reference_keeps, open_device, close_device),
        cmocka_unit_test_setup_teardown(muon_follows_its_formula, open_device, close_device),
    };
    find_emulator();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
