// test: libs=core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/core/arena.h"
#include "src/core/exact_sum.h"
#include "src/core/log.h"
#include "src/core/rng.h"
#include "src/core/status.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). */
static void philox_known_answers(void **state) {
    (void)state;
    espl_rng4 zero = espl_philox(0, 0, 0, 0, 0, 0);
    assert_int_equal(zero.v[0], 0x6627e8d5u);
    assert_int_equal(zero.v[1], 0xe169c58du);
    assert_int_equal(zero.v[2], 0xbc57ac4cu);
    assert_int_equal(zero.v[3], 0x9b00dbd8u);
    uint32_t f = 0xffffffffu;
    espl_rng4 ones = espl_philox(f, f, f, f, f, f);
    assert_int_equal(ones.v[0], 0x408f276du);
}

static void exact_sum_has_no_order(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    static double x[COUNT];
    for (int i = 0; i < COUNT; i++) {
        double magnitude = ldexp((double)(rand() % 100000 + 1), rand() % 400 - 200);
        x[i] = rand() & 1 ? magnitude : -magnitude;
    }
    espl_exact forward = {0}, backward = {0}, halves[2] = {{{0}, 0}};
    for (int i = 0; i < COUNT; i++) {
        espl_exact_add(&forward, x[i]);
        espl_exact_add(&backward, x[COUNT - 1 - i]);
        espl_exact_add(&halves[i % 2], x[i]);
    }
    espl_exact_normalise(&halves[1]);
    espl_exact_merge(&halves[0], &halves[1]);
    double a = espl_exact_value(&forward), b = espl_exact_value(&backward), c = espl_exact_value(&halves[0]);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_equal(&a, &c, sizeof a);
}

static void exact_sum_is_exact(void **state) {
    (void)state;
    espl_exact sum = {0};
    espl_exact_add(&sum, 1e300);
    espl_exact_add(&sum, 1e-300);
    espl_exact_add(&sum, -1e300);
    assert_true(espl_exact_value(&sum) == 1e-300);
    espl_exact_add(&sum, -2e-300);
    assert_true(espl_exact_value(&sum) == -1e-300);
    espl_exact_add(&sum, NAN);
    assert_int_equal(sum.n_nonfinite, 1);
}

static void layout(espl_arena *arena, void *pieces[3]) {
    pieces[0] = espl_arena_take(arena, 100);
    pieces[1] = espl_arena_take(arena, 1);
    pieces[2] = espl_arena_take(arena, 4096);
}

static void arena_measures_then_binds(void **state) {
    (void)state;
    void *pieces[3];
    espl_arena measure = espl_arena_measure("test"), real;
    layout(&measure, pieces);
    assert_null(pieces[2]);
    assert_int_equal(espl_arena_bind(&real, "test", measure.used), ESPL_OK);
    layout(&real, pieces);
    assert_int_equal(real.used, measure.used);
    for (int i = 0; i < 3; i++)
        assert_int_equal((uintptr_t)pieces[i] % ESPL_ALIGN, 0);
    memset(pieces[2], 1, 4096);
    espl_arena_free(&real);
}

static void vast_arenas_are_refused(void **state) {
    (void)state;
    espl_arena vast;
    assert_int_equal(espl_arena_bind(&vast, "vast", (size_t)1 << 60), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "arena vast: the system refused"));
    espl_status_clear();
    espl_arena_free(&vast);
}

/* The bound arena lays out what the measuring one did, and neighbours stay apart. */
static void arena_aligns(void **state) {
    (void)state;
    espl_arena measure = espl_arena_measure("test"), real;
    espl_arena *both[] = {&measure, &real};
    char *first = NULL, *second = NULL;
    for (int i = 0; i < 2; i++) {
        if (i == 1)
            assert_int_equal(espl_arena_bind(&real, "test", measure.used), ESPL_OK);
        first = espl_arena_take(both[i], 100);
        espl_arena_align(both[i], 4096);
        second = espl_arena_take(both[i], 5000);
    }
    espl_arena_populate(&real);
    assert_int_equal(real.used, measure.used);
    assert_int_equal((uintptr_t)second % 4096, 0);
    assert_true(second - first >= 4096);
    memset(first, 1, 100);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(second[i], 0);
    memset(second, 2, 5000);
    espl_arena_free(&real);
}

static espl_status inner(void) { ESPL_FAIL(ESPL_ERR_DATA, "file.jsonl:%d: key '%s' missing", 17, "text"); }
static espl_status outer(void) {
    ESPL_TRY(inner());
    return ESPL_OK;
}

static void status_keeps_code_and_message(void **state) {
    (void)state;
    assert_int_equal(outer(), ESPL_ERR_DATA);
    assert_string_equal(espl_status_message(), "file.jsonl:17: key 'text' missing");
    espl_status_set_message("rank 3: %s", espl_status_message());
    assert_string_equal(espl_status_message(), "rank 3: file.jsonl:17: key 'text' missing");
    espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "of a library: %s", "line\nline\r");
    assert_string_equal(espl_status_message(), "of a library: line line ");
    espl_status_clear();
    assert_string_equal(espl_status_message(), "");
}

/* The longest paths that there are leave room for what is wrong, in a message and in the line of a log. */
static void messages_keep_their_end(void **state) {
    (void)state;
    char path[PATH_MAX], line[3 * PATH_MAX] = "";
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "%s: cannot be renamed to %s: %s", path, path, strerror(ENOSPC));
    espl_status_set_message("rank 3: %s", espl_status_message());
    assert_non_null(strstr(espl_status_message(), "No space left on device"));
    FILE *file = tmpfile();
    assert_non_null(file);
    espl_log_set(0, ESPL_LOG_ERROR, file);
    ESPL_WARN("checkpoint of step 6 is not saved: %s", espl_status_message());
    espl_log_set(0, ESPL_LOG_INFO, NULL);
    rewind(file);
    assert_non_null(fgets(line, sizeof line, file));
    assert_non_null(strstr(line, "No space left on device\n"));
    fclose(file);
    espl_status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(exact_sum_has_no_order),
        cmocka_unit_test(exact_sum_is_exact),
        cmocka_unit_test(arena_measures_then_binds),
        cmocka_unit_test(arena_aligns),
        cmocka_unit_test(vast_arenas_are_refused),
        cmocka_unit_test(status_keeps_code_and_message),
        cmocka_unit_test(messages_keep_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
