// test: libs=train,config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/train/machine/walltime.h"

#include <math.h>
#include <string.h>

/* ---- Times as they are written. */

static void times_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } rows[] = {{"0", 0},       {"5400", 5400},        {"2.5", 2.5},           {"01:30:00", 5400},
                {"0:00:07", 7}, {"100:00:00", 360000}, {"1-12:00:00", 129600}, {"0-00:00:59", 59}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double seconds = -1.0;
        assert_int_equal(espl_walltime_parse("run.walltime", rows[i].text, &seconds), ESPL_OK);
        assert_float_equal(seconds, rows[i].seconds, 0.0);
    }
}

/* 90:00 is minutes to some batch systems and hours to others. */
static void what_could_be_read_in_two_ways_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"",        "x",  "90:00", "1:2:3",     "01:60:00", "01:00:61",   "-5",  "1h", "UNLIMITED",
                                        "NOT_SET", "1-", "1-5",   "1.5:00:00", "1:00:00 ", "1:00:00:00", "nan", "inf"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double seconds;
        assert_int_equal(espl_walltime_parse("run.walltime", texts[i], &seconds), ESPL_ERR_USAGE);
        assert_non_null(strstr(espl_status_message(), "HH:MM:SS"));
        espl_status_clear();
    }
}

/* ---- When to leave. */

/* A job of 1000 s that began at 100, with a margin of 60. */
static espl_walltime begin(const char *walltime, double job_end) {
    espl_config config;
    espl_config_make(&config);
    char text[64];
    snprintf(text, sizeof text, "run.walltime=%s", walltime);
    assert_int_equal(espl_config_set(&config, text), ESPL_OK);
    const espl_job_end job = {.at = job_end, .source = "test"};
    espl_walltime w;
    assert_int_equal(espl_walltime_check(&config), ESPL_OK);
    espl_walltime_begin(&w, &config, 90.0, &job, 100.0);
    espl_config_free(&config);
    return w;
}

static void the_key_goes_before_the_batch_system(void **state) {
    (void)state;
    espl_walltime w = begin("", 1100.0);
    assert_float_equal(w.ends, 1100.0, 0.0);
    assert_string_equal(w.source, "test");
    w = begin("0:10:00", 1100.0);
    assert_float_equal(w.ends, 690.0, 0.0); /* from the start of the process */
    assert_string_equal(w.source, "run.walltime");
}

static void without_an_end_nothing_is_decided(void **state) {
    (void)state;
    espl_walltime w = begin("", INFINITY);
    espl_walltime_add_step(&w, 1e9);
    espl_walltime_add_save(&w, 1e9);
    assert_int_equal(espl_walltime_decide(&w, 1e12, 2), ESPL_WALLTIME_GO);
}

static void it_leaves_in_time_for_what_things_take(void **state) {
    (void)state;
    espl_walltime w = begin("", 1100.0);
    espl_walltime_add_step(&w, 3.0);
    espl_walltime_add_step(&w, 2.0);
    espl_walltime_add_save(&w, 10.0);
    espl_walltime_add_save(&w, 4.0);
    espl_walltime_add_evaluation(&w, 30.0);
    assert_float_equal(espl_walltime_leave(&w, 0), 1100.0 - 60.0 - 3.0 - 20.0, 1e-9);
    assert_float_equal(espl_walltime_leave(&w, 2), 1100.0 - 60.0 - 3.0 - 20.0 - 60.0, 1e-9);
    assert_int_equal(espl_walltime_decide(&w, 1016.9, 0), ESPL_WALLTIME_GO);
    assert_int_equal(espl_walltime_decide(&w, 1017.0, 0), ESPL_WALLTIME_STOP);
    assert_int_equal(espl_walltime_decide(&w, 987.0, 1), ESPL_WALLTIME_STOP); /* an evaluation comes first */
    assert_int_equal(espl_walltime_decide(&w, 987.0, 0), ESPL_WALLTIME_GO);
}

/* A slow step counts while it is recent: the first one, which is slow for its own reasons, does not for ever. */
static void a_slow_step_is_forgotten_after_a_while(void **state) {
    (void)state;
    espl_walltime w = begin("", 1100.0);
    espl_walltime_add_step(&w, 500.0);
    for (int i = 0; i < ESPL_WALLTIME_STEPS - 1; i++)
        espl_walltime_add_step(&w, 1.0);
    assert_float_equal(espl_walltime_leave(&w, 0), 540.0, 1e-9);
    espl_walltime_add_step(&w, 1.0);
    assert_float_equal(espl_walltime_leave(&w, 0), 1039.0, 1e-9);
}

/* Nobody knows what a save takes before there was one. */
static void a_first_save_comes_at_half_time(void **state) {
    (void)state;
    espl_walltime w = begin("", 1100.0);
    assert_int_equal(espl_walltime_decide(&w, 599.0, 0), ESPL_WALLTIME_GO);
    assert_int_equal(espl_walltime_decide(&w, 600.0, 0), ESPL_WALLTIME_SAVE);
    assert_int_equal(espl_walltime_decide(&w, 601.0, 0), ESPL_WALLTIME_GO); /* once: it may be under way */
    w = begin("", 1100.0);
    espl_walltime_add_save(&w, 0.5);
    assert_int_equal(espl_walltime_decide(&w, 600.0, 0), ESPL_WALLTIME_GO);
}

static void a_walltime_that_the_margin_eats_is_refused(void **state) {
    (void)state;
    espl_config config;
    espl_config_make(&config);
    assert_int_equal(espl_config_set(&config, "run.walltime=30"), ESPL_OK);
    assert_int_equal(espl_walltime_check(&config), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "run.walltime_margin"));
    espl_status_clear();
    assert_int_equal(espl_config_set(&config, "run.walltime_margin=5"), ESPL_OK);
    assert_int_equal(espl_walltime_check(&config), ESPL_OK);
    espl_config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(what_could_be_read_in_two_ways_is_refused),
        cmocka_unit_test(the_key_goes_before_the_batch_system),
        cmocka_unit_test(without_an_end_nothing_is_decided),
        cmocka_unit_test(it_leaves_in_time_for_what_things_take),
        cmocka_unit_test(a_slow_step_is_forgotten_after_a_while),
        cmocka_unit_test(a_first_save_comes_at_half_time),
        cmocka_unit_test(a_walltime_that_the_margin_eats_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
