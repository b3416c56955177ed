// test: libs=io,core ranks=1 tier=short timeout=30
/* What HDF5 says of a failure reaches the user, however long the file's path is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/h5.h"
#include "tests/unit/scratch.h"

#include <stdlib.h>
#include <string.h>

enum { LONG_NAME = 200, FOLDERS = 3 };

/* A path longer than any line of HDF5's own, below a folder that is not there. */
static char *make_long_path(const char *root) {
    char name[LONG_NAME + 1], *path = espl_format("%s/missing", root);
    memset(name, 'n', LONG_NAME);
    name[LONG_NAME] = '\0';
    for (int i = 0; i < FOLDERS; i++) {
        char *below = espl_format("%s/%s", path, name);
        free(path);
        path = below;
    }
    return path;
}

static espl_status locked(espl_status (*call)(const char *, espl_h5_id *), const char *path, espl_h5_id *file) {
    espl_h5_lock();
    espl_status status = call(path, file);
    espl_h5_unlock();
    return status;
}

static void expect_no_such_file(espl_status status, const char *what) {
    assert_int_equal(status, ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), what));
    assert_non_null(strstr(espl_status_message(), "No such file or directory"));
    espl_status_clear();
}

static void test_a_failed_call_is_told_by_its_error(void **state) {
    (void)state;
    espl_h5_id file = -1;
    char *root = make_scratch(), *path = make_long_path(root);
    expect_no_such_file(locked(espl_h5_create, path, &file), "HDF5 cannot create the file: ");
    expect_no_such_file(locked(espl_h5_open, path, &file), "HDF5 cannot open the file: ");
    remove_scratch(root);
    free(path);
}

static void test_what_is_no_call_into_the_system_is_told_whole(void **state) {
    (void)state;
    espl_h5_id file = -1;
    assert_int_equal(locked(espl_h5_open, ESPL_SOURCE_DIR "/tests/unit/test_h5.c", &file), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "HDF5 cannot open the file: "));
    assert_non_null(strstr(espl_status_message(), "signature"));
    espl_status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failed_call_is_told_by_its_error),
        cmocka_unit_test(test_what_is_no_call_into_the_system_is_told_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
