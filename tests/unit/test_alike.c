// test: libs=train,comm,core ranks=1+2+4 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/alike.h"
#include "src/train/machine/likeness.h"

#include <string.h>

static espl_comm *comm;
static const espl_ranks *ranks;

static void numbers_are_compared(void **state) {
    (void)state;
    const uint64_t low = 1, high = UINT64_MAX;
    for (int odd = 0; odd < ranks->size; odd++) {
        const uint64_t numbers[] = {7, ranks->rank == odd ? high : low, ranks->rank == odd ? low : high, high};
        bool alike[4];
        assert_int_equal(espl_comm_alike(comm, numbers, 4, 1, alike), ESPL_OK);
        assert_true(alike[0] && alike[3]);
        assert_true(alike[1] == (ranks->size == 1) && alike[2] == (ranks->size == 1));
    }
}

static void the_odd_one_is_named(void **state) {
    (void)state;
    for (int odd = 0; odd < ranks->size && ranks->size > 2; odd++) {
        char name[96];
        espl_odd found;
        snprintf(name, sizeof name, "rank %d on %s", odd, ranks->host);
        assert_int_equal(espl_comm_odd_ones(comm, ranks->rank == odd, 1, &found), ESPL_OK);
        assert_true(found.majority);
        assert_int_equal(found.first, odd);
        assert_int_equal(found.most, odd == 0 ? 1 : 0);
        assert_ptr_equal(strstr(found.text, name), found.text);
        assert_null(strchr(found.text, ','));
    }
}

/* Halves, and as many opinions as ranks. */
static void without_a_majority_all_are_named(void **state) {
    (void)state;
    if (ranks->size == 1)
        return;
    for (int parts = 2; parts <= ranks->size; parts += 2) {
        espl_odd found;
        assert_int_equal(espl_comm_odd_ones(comm, (uint64_t)(ranks->rank % parts), 1, &found), ESPL_OK);
        assert_false(found.majority);
        assert_true(found.most == 0 && found.first == 1);
        assert_non_null(strstr(found.text, "rank 0 on "));
        assert_non_null(strstr(found.text, "rank 1 on "));
    }
}

/* Ranks 0 and 2, 1 and 3 are compared: each pair may hold its own, and where one differs both of its pair are named. */
static void ranks_of_a_place_are_compared(void **state) {
    (void)state;
    bool alike[2];
    espl_odd found;
    if (ranks->size < 4)
        return;
    const uint64_t numbers[] = {UINT64_MAX - (uint64_t)(ranks->rank % 2), ranks->rank == 3 ? 8 : (uint64_t)(ranks->rank % 2)};
    assert_int_equal(espl_comm_alike(comm, numbers, 2, 2, alike), ESPL_OK);
    assert_true(alike[0] && !alike[1]);
    assert_int_equal(espl_comm_odd_ones(comm, numbers[1], 2, &found), ESPL_OK);
    assert_true(!found.majority && found.most == 1 && found.first == 3);
    assert_ptr_equal(strstr(found.text, "rank 1 on "), found.text);
    assert_non_null(strstr(found.text, ", rank 3 on "));
    assert_null(strstr(found.text, "rank 2 on "));
}

static espl_status check(const char *common, int odd, const char *other, bool must) {
    espl_likeness rows[] = {{.what = "colour", .text = "red", .must = true}, {.what = "size", .must = must}};
    snprintf(rows[1].text, sizeof rows[1].text, "%s", ranks->rank == odd ? other : common);
    return espl_likeness_check(comm, rows, 2);
}

static void rows_are_compared(void **state) {
    (void)state;
    assert_int_equal(check("large", -1, "", true), ESPL_OK);
    assert_int_equal(check("large", 1, "small", false), ESPL_OK);
    assert_int_equal(check("large", 1, "small", true), ranks->size == 1 ? ESPL_OK : ESPL_ERR_USAGE);
    if (ranks->size > 2) {
        assert_non_null(strstr(espl_status_message(), "rank 1 on "));
        assert_non_null(strstr(espl_status_message(), "differs from most in its size: small, theirs: large"));
    }
    espl_status_clear();
}

static void a_build_has_a_name(void **state) {
    (void)state;
    char build[64], again[64];
    espl_build_id(build);
    espl_build_id(again);
    assert_string_equal(build, again);
    assert_int_equal(strlen(build), strspn(build, "0123456789abcdef"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_a_place_are_compared),    cmocka_unit_test(numbers_are_compared), cmocka_unit_test(the_odd_one_is_named),
        cmocka_unit_test(without_a_majority_all_are_named), cmocka_unit_test(rows_are_compared),    cmocka_unit_test(a_build_has_a_name),
    };
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return 1;
    ranks = espl_comm_ranks(comm);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    espl_comm_close(&comm);
    return failed;
}
