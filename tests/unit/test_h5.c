// test: libs=io,core ranks=1 tier=short timeout=30
/* What HDF5 says of a failure reaches the user, however long the file's path is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/fsio.h"
#include "io/h5.h"
#include "src/core/log.h"
#include "tests/unit/scratch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { LONG_NAME = 200, FOLDERS = 3 };

/* A folder below `root` whose path is longer than any line of HDF5's own. */
static char *make_deep_folder(const char *root) {
    char name[LONG_NAME + 1], *folder = espl_format("%s", root);
    memset(name, 'n', LONG_NAME);
    name[LONG_NAME] = '\0';
    for (int i = 0; i < FOLDERS; i++) {
        char *below = espl_format("%s/%s", folder, name);
        assert_int_equal(espl_fs_make_folders(below), ESPL_OK);
        free(folder);
        folder = below;
    }
    return folder;
}

/* No file may grow: a write fails with EFBIG instead of a signal. */
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static espl_status write_file(const char *path) {
    espl_h5_id file = -1, dataset = -1;
    int64_t one = 1;
    espl_status status = espl_h5_create(path, &file);
    if (status == ESPL_OK)
        status = espl_h5_dataset(file, "/group/numbers", ESPL_H5_U64, 1, &one, &dataset);
    if (status == ESPL_OK)
        status = espl_h5_dataset_close(&dataset);
    if (status == ESPL_OK)
        status = espl_h5_close(&file, path);
    espl_h5_discard(&file);
    return status;
}

static void test_a_failed_write_is_told_by_its_error(void **state) {
    (void)state;
    char *root = make_scratch(), *folder = make_deep_folder(root), *path = espl_format("%s/file.h5", folder);
    signal(SIGXFSZ, SIG_IGN);
    espl_h5_lock();
    limit_files(16);
    espl_status status = write_file(path);
    limit_files(RLIM_INFINITY);
    espl_h5_unlock();
    assert_int_equal(status, ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "File too large"));
    espl_status_clear();
    remove_scratch(root);
    free(path);
    free(folder);
}

static void test_what_is_no_call_into_the_system_is_told_whole(void **state) {
    (void)state;
    espl_h5_id file = -1;
    espl_h5_lock();
    espl_status status = espl_h5_open(ESPL_SOURCE_DIR "/tests/unit/test_h5.c", &file);
    espl_h5_unlock();
    assert_int_equal(status, ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "HDF5 cannot open the file: "));
    assert_non_null(strstr(espl_status_message(), "signature"));
    espl_status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failed_write_is_told_by_its_error),
        cmocka_unit_test(test_what_is_no_call_into_the_system_is_told_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
