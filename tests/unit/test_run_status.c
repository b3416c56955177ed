// test: libs=report,io,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/report/run_status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A process that began at 1000 from step 10 and wrote a line every 4 seconds and 2 steps; an earlier one had been slower. */
static espl_run_files make(int lines) {
    espl_run_files run = {.folder = (char *)(uintptr_t) "no/such/folder",
                          .start = json_pack("{s:f, s:i, s:i}", "time", 1000.0, "step", 10, "total_steps", 110),
                          .steps = json_array(),
                          .evals = json_array(),
                          .probes = json_array()};
    for (int i = 0; i < 5; i++)
        json_array_append_new(run.steps, json_pack("{s:i, s:f, s:f}", "step", 2 + 2 * i, "time", 100.0 + 100.0 * i, "loss", 9.0));
    for (int i = 0; i < lines; i++)
        json_array_append_new(run.steps, json_pack("{s:i, s:f, s:f, s:f}", "step", 12 + 2 * i, "time", 1004.0 + 4.0 * i, "loss",
                                                   8.0 - 0.5 * i, "tokens_per_second", 100.0));
    return run;
}

static json_t *status_of(espl_run_files *run, double now) {
    json_t *status = NULL;
    assert_int_equal(espl_run_status_make(run, now, &status), ESPL_OK);
    run->folder = NULL;
    espl_run_files_free(run);
    return status;
}

static double number(const json_t *status, const char *name) {
    const json_t *value = json_object_get(status, name);
    return value != NULL ? json_number_value(value) : (double)NAN;
}

static void assert_state(const json_t *status, const char *state) {
    assert_string_equal(json_string_value(json_object_get(status, "state")), state);
}

static void a_running_one_has_time_left(void **state) {
    (void)state;
    espl_run_files run = make(3);
    json_t *status = status_of(&run, 1013.0);
    assert_state(status, "running");
    assert_float_equal(number(status, "step"), 16, 0);
    assert_float_equal(number(status, "total_steps"), 110, 0);
    assert_float_equal(number(status, "loss"), 7.0, 0);
    assert_float_equal(number(status, "every"), 4.0, 1e-9); /* not that of the process before */
    assert_float_equal(number(status, "heard"), 1.0, 1e-9);
    assert_float_equal(number(status, "seconds_left"), 94 * 2.0, 1e-9);
    assert_null(json_object_get(status, "checkpoint"));
    json_decref(status);
}

static void without_lines_little_is_known(void **state) {
    (void)state;
    espl_run_files run = make(0);
    json_t *status = status_of(&run, 1001.0);
    assert_state(status, "running");
    assert_true(isnan(number(status, "seconds_left")));
    json_decref(status);
}

static void what_is_not_heard_of_is_silent(void **state) {
    (void)state;
    espl_run_files run = make(3);
    json_t *status = status_of(&run, 1012.0 + 119.0);
    assert_state(status, "running");
    json_decref(status);
    run = make(3);
    status = status_of(&run, 1012.0 + 121.0);
    assert_state(status, "silent");
    json_decref(status);
    run = make(3);
    json_array_append_new(run.evals, json_pack("{s:i, s:f, s:f}", "step", 16, "time", 1100.0, "valid_loss", 6.5));
    status = status_of(&run, 1012.0 + 121.0);
    assert_state(status, "running"); /* it evaluated meanwhile */
    assert_float_equal(number(status, "valid_loss"), 6.5, 0);
    json_decref(status);
}

static void an_end_has_its_reason(void **state) {
    (void)state;
    static const struct {
        espl_run_state files;
        const char *ended, *state;
    } rows[] = {{ESPL_RUN_DONE, "done", "done"},
                {ESPL_RUN_ENDED, "stopped by SIGUSR1", "stopped"},
                {ESPL_RUN_ENDED, "step 3: 1 steps in a row were not finite", "failed"},
                {ESPL_RUN_ENDED, NULL, "failed"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = NULL;
        size_t size;
        espl_run_files run = make(3);
        run.state = rows[i].files;
        run.summary = rows[i].ended != NULL ? json_pack("{s:f, s:s}", "time", 1015.0, "ended", rows[i].ended) : json_object();
        json_t *status = status_of(&run, 9000.0);
        assert_state(status, rows[i].state);
        assert_true(isnan(number(status, "seconds_left")));
        FILE *memory = open_memstream(&text, &size);
        espl_run_status_print(status, memory);
        fclose(memory);
        assert_true(rows[i].ended == NULL || i == 0 || strstr(text, rows[i].ended) != NULL);
        assert_non_null(strstr(text, "step         16 of 110 (14.5 %)\n"));
        free(text);
        json_decref(status);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_one_has_time_left),
        cmocka_unit_test(without_lines_little_is_known),
        cmocka_unit_test(what_is_not_heard_of_is_silent),
        cmocka_unit_test(an_end_has_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
