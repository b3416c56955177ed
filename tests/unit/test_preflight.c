// test: libs=train,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/train/machine/preflight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5 };

/* Five hosts that differ by a tenth. */
static void make(espl_preflight_host hosts[N]) {
    for (int h = 0; h < N; h++) {
        hosts[h] = (espl_preflight_host){.ranks = 4};
        snprintf(hosts[h].name, sizeof hosts[h].name, "n%d", h + 1);
        for (int m = 0; m < ESPL_N_MEASURES; m++)
            hosts[h].values[m] = 1e9 * (1.0 + 0.025 * h);
        hosts[h].values[ESPL_CLOCK] = 0.01 * h;
    }
}

static void like_hosts_are_not_marked(void **state) {
    (void)state;
    espl_preflight_host hosts[N];
    double medians[ESPL_N_MEASURES];
    make(hosts);
    assert_int_equal(espl_preflight_judge(hosts, N, 0.8, 1.0, medians), 0);
    assert_float_equal(medians[ESPL_MATRIX], 1.05e9, 1.0);
    assert_float_equal(medians[ESPL_CLOCK], 0.02, 1e-12);
}

static void each_measure_marks_its_host(void **state) {
    (void)state;
    for (int m = 0; m < ESPL_N_MEASURES; m++) {
        espl_preflight_host hosts[N];
        double medians[ESPL_N_MEASURES];
        make(hosts);
        hosts[3].values[m] = m == ESPL_CLOCK ? -1.5 : 0.79e9;
        assert_int_equal(espl_preflight_judge(hosts, N, 0.8, 1.0, medians), 1);
        for (int h = 0; h < N; h++)
            assert_int_equal(espl_preflight_marked(&hosts[h]), h == 3);
        assert_true(hosts[3].marked[m]);
    }
}

/* It is the first host's clock that is wrong when all others are off by the same. */
static void the_clock_of_the_first_host_can_be_the_wrong_one(void **state) {
    (void)state;
    espl_preflight_host hosts[N];
    double medians[ESPL_N_MEASURES];
    make(hosts);
    for (int h = 1; h < N; h++)
        hosts[h].values[ESPL_CLOCK] += 30.0;
    assert_int_equal(espl_preflight_judge(hosts, N, 0.8, 1.0, medians), 1);
    assert_true(hosts[0].marked[ESPL_CLOCK]);
}

static void what_was_not_measured_is_not_marked(void **state) {
    (void)state;
    espl_preflight_host host = {.name = "alone", .ranks = 1, .values = {1e9, 1e9, NAN, NAN, 0.0}};
    double medians[ESPL_N_MEASURES];
    char *text = NULL;
    size_t size;
    assert_int_equal(espl_preflight_judge(&host, 1, 0.8, 1.0, medians), 0);
    assert_true(isnan(medians[ESPL_LINK]));
    FILE *memory = open_memstream(&text, &size);
    espl_preflight_print(&host, 1, medians, memory);
    fclose(memory);
    assert_non_null(strstr(text, " - "));
    assert_null(strstr(text, "nan"));
    assert_null(strchr(text, '*'));
    free(text);
}

static void a_mark_is_a_star(void **state) {
    (void)state;
    espl_preflight_host hosts[N];
    double medians[ESPL_N_MEASURES];
    char *text = NULL;
    size_t size;
    make(hosts);
    hosts[1].values[ESPL_LINK] = 1e6;
    espl_preflight_judge(hosts, N, 0.8, 1.0, medians);
    FILE *memory = open_memstream(&text, &size);
    espl_preflight_print(hosts, N, medians, memory);
    fclose(memory);
    const char *line = strstr(text, "\nn2");
    assert_non_null(line);
    assert_non_null(strstr(line, " 1* "));
    assert_true(strchr(text, '*') == strrchr(text, '*'));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_hosts_are_not_marked),
        cmocka_unit_test(each_measure_marks_its_host),
        cmocka_unit_test(the_clock_of_the_first_host_can_be_the_wrong_one),
        cmocka_unit_test(what_was_not_measured_is_not_marked),
        cmocka_unit_test(a_mark_is_a_star),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
