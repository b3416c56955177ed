// test: libs=io,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/background.h"

#include <string.h>

enum { ITEMS = 1000 };

typedef struct work {
    atomic_int times[ITEMS];
    int64_t bad; /* the item that fails, -1: none */
    int lanes;
    atomic_bool strange_lane;
} work;

static espl_status one_item(void *context, int lane, int64_t i) {
    work *w = context;
    if (lane < 0 || lane >= w->lanes)
        atomic_store(&w->strange_lane, true);
    atomic_fetch_add(&w->times[i], 1);
    if (i == w->bad)
        ESPL_FAIL(ESPL_ERR_IO, "item %lld of lane %d is bad", (long long)i, lane);
    return ESPL_OK;
}

static void each_item_runs_once(void **unused) {
    (void)unused;
    for (int lanes = 1; lanes <= ESPL_MAX_LANES; lanes++) {
        work w = {.bad = -1, .lanes = lanes};
        assert_int_equal(espl_background_each(lanes, ITEMS, one_item, &w), ESPL_OK);
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(w.times[i], 1);
        assert_false(w.strange_lane);
        assert_int_equal(espl_background_each(lanes, 0, one_item, &w), ESPL_OK);
        assert_int_equal(w.times[0], 1);
    }
}

static void a_failure_ends_the_work_and_arrives_with_its_words(void **unused) {
    (void)unused;
    for (int lanes = 1; lanes <= ESPL_MAX_LANES; lanes++) {
        work w = {.bad = 7, .lanes = lanes};
        assert_int_equal(espl_background_each(lanes, ITEMS, one_item, &w), ESPL_ERR_IO);
        assert_ptr_equal(strstr(espl_status_message(), "item 7 of lane"), espl_status_message());
        assert_int_equal(w.times[7], 1);
        for (int i = 0; i < 7; i++)
            assert_int_equal(w.times[i], 1);
        if (lanes == 1)
            assert_int_equal(w.times[8], 0);
        espl_status_clear();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_item_runs_once),
                                       cmocka_unit_test(a_failure_ends_the_work_and_arrives_with_its_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
