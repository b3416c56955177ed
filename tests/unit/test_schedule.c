// test: libs=optim,config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/optim/schedule.h"
#include "tests/unit/goldens.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

static const char *const names[] = {"constant", "linear", "cosine", "inverse_sqrt", "wsd", "slanted_triangular"};

static int schedule_index(const char *name) {
    int i = 0;
    while (strcmp(names[i], name) != 0)
        i++;
    return i;
}

static espl_config config_of(json_t *row) {
    return (espl_config){
        .optim_lr = json_number_value(json_object_get(row, "lr")),
        .optim_schedule = schedule_index(json_string_value(json_object_get(row, "schedule"))),
        .optim_warmup_steps = json_integer_value(json_object_get(row, "warmup_steps")),
        .optim_warmup_ratio = json_number_value(json_object_get(row, "warmup_ratio")),
        .optim_min_lr_ratio = json_number_value(json_object_get(row, "min_lr_ratio")),
        .optim_decay_ratio = json_number_value(json_object_get(row, "decay_ratio")),
        .optim_cut_ratio = json_number_value(json_object_get(row, "cut_ratio")),
    };
}

/* The largest difference of a case, in units of the peak rate: both sides round at that size a few times. */
static double worst_difference(json_t *row, int64_t shift) {
    espl_config config = config_of(row);
    int64_t total = json_integer_value(json_object_get(row, "total"));
    json_t *rates = json_object_get(row, "rates");
    double worst = 0;
    for (int64_t step = 1; step <= total; step++) {
        double expected = json_number_value(json_array_get(rates, (size_t)step - 1));
        worst = fmax(worst, fabs(espl_schedule_rate(&config, step + shift, total) - expected) / config.optim_lr);
    }
    return worst;
}

static void rates_equal_the_goldens(void **state) {
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i;
    assert_true(json_array_size(rows) >= 30);
    json_array_foreach(rows, i, row) {
        double worst = worst_difference(row, 0);
        if (worst > 4 * DBL_EPSILON)
            fail_msg("case %zu (%s): off by %g of the peak rate", i, json_string_value(json_object_get(row, "schedule")), worst);
    }
}

/* Negative control: a schedule shifted by one step is noticed wherever the rate moves at all. */
static void a_shift_by_one_step_is_seen(void **state) {
    json_t *rows = json_object_get(*state, "cases"), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        espl_config config = config_of(row);
        bool flat = config.optim_schedule == ESPL_SCHEDULE_CONSTANT && config.optim_warmup_steps == 0;
        if (!flat)
            assert_true(worst_difference(row, 1) > 1e-5);
    }
}

/* A rounded cut still ends at the floor, and steps past the end stay there. */
static void the_end_is_the_floor(void **state) {
    (void)state;
    for (int schedule = 0; schedule < 6; schedule++) {
        if (schedule == ESPL_SCHEDULE_CONSTANT || schedule == ESPL_SCHEDULE_INVERSE_SQRT)
            continue;
        espl_config config = {.optim_lr = 1.0,
                              .optim_schedule = schedule,
                              .optim_warmup_steps = 2,
                              .optim_min_lr_ratio = 0.125,
                              .optim_decay_ratio = 0.2,
                              .optim_cut_ratio = 0.1};
        for (int64_t total = 3; total < 40; total++)
            for (int64_t step = total + 1; step < total + 100; step += 49) {
                double rate = espl_schedule_rate(&config, step, total);
                assert_true(fabs(rate - 0.125) <= 4 * DBL_EPSILON);
            }
    }
}

static void rates_stay_within_floor_and_peak(void **state) {
    (void)state;
    for (int schedule = 0; schedule < 6; schedule++)
        for (int64_t total = 1; total < 60; total++) {
            espl_config config = {.optim_lr = 2.0, .optim_schedule = schedule, .optim_warmup_ratio = 0.3, .optim_cut_ratio = 0.33};
            config.optim_decay_ratio = 0.9;
            for (int64_t step = 1; step <= total; step++) {
                double rate = espl_schedule_rate(&config, step, total);
                assert_true(isfinite(rate) && rate >= 0 && rate <= 2.0);
            }
        }
}

static int load(void **state) { return load_goldens(state, ESPL_SOURCE_DIR "/tests/goldens/schedule.json"); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_equal_the_goldens),
        cmocka_unit_test(a_shift_by_one_step_is_seen),
        cmocka_unit_test(the_end_is_the_floor),
        cmocka_unit_test(rates_stay_within_floor_and_peak),
    };
    return cmocka_run_group_tests(tests, load, free_goldens);
}
