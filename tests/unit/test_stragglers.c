// test: libs=train,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/train/machine/stragglers.h"

enum { RANKS = 5, STEPS = 4 };

/* Adds a step in which one rank takes `slow`, the others 100; returns what is to be told of that rank. Of others nothing ever is. */
static espl_straggling step(espl_stragglers *s, int odd, int64_t slow, double *ratio, int64_t *steps) {
    int64_t times[RANKS] = {100, 100, 100, 100, 100}, other_steps;
    double other;
    times[odd] = slow;
    espl_stragglers_add(s, times);
    assert_float_equal(s->ratio, slow > 100 ? (double)slow / 100.0 : 1.0, 1e-12);
    for (int r = 0; r < RANKS; r++)
        if (r != odd)
            assert_int_equal(espl_stragglers_ask(s, r, &other, &other_steps), ESPL_STRAGGLING_NOT);
    return espl_stragglers_ask(s, odd, ratio, steps);
}

static void it_is_named_once_and_when_that_doubles(void **state) {
    (void)state;
    for (int odd = 0; odd < RANKS; odd++) {
        espl_stragglers s;
        double ratio;
        int64_t steps;
        espl_stragglers_open(&s, 1.5, STEPS, RANKS);
        for (int i = 1; i <= 8 * STEPS; i++) {
            bool told = i == STEPS || i == 2 * STEPS || i == 4 * STEPS || i == 8 * STEPS;
            assert_int_equal(step(&s, odd, i % 2 == 0 ? 180 : 220, &ratio, &steps), told ? ESPL_STRAGGLING_BEGINS : ESPL_STRAGGLING_NOT);
            assert_int_equal(s.slowest, odd);
            if (told) {
                assert_int_equal(steps, i);
                assert_float_equal(ratio, 2.0, 1e-12);
            }
        }
        assert_int_equal(step(&s, odd, 140, &ratio, &steps), ESPL_STRAGGLING_ENDS);
        assert_int_equal(step(&s, odd, 140, &ratio, &steps), ESPL_STRAGGLING_NOT);
        espl_stragglers_free(&s);
    }
}

/* A pause now and then is none: what interrupts the row begins it anew. */
static void single_steps_are_not_told(void **state) {
    (void)state;
    espl_stragglers s;
    double ratio;
    int64_t steps;
    espl_stragglers_open(&s, 1.5, STEPS, RANKS);
    for (int i = 1; i <= 40; i++)
        assert_int_equal(step(&s, 3, i % STEPS == 0 ? 150 : 1000, &ratio, &steps), ESPL_STRAGGLING_NOT);
    espl_stragglers_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_named_once_and_when_that_doubles),
        cmocka_unit_test(single_steps_are_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
