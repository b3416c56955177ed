// test: libs=io,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/fsio.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *folder;

static char *in_folder(const char *name) { return espl_format("%s/%s", folder, name); }

static int make(void **state) {
    (void)state;
    folder = make_scratch();
    return 0;
}

static int clear(void **state) {
    (void)state;
    espl_fs_set_table(NULL);
    espl_status status = espl_fs_remove_folder(folder, NULL);
    free(folder);
    return status != ESPL_OK;
}

/* ---- A table whose transfers move three bytes at most and are interrupted every other time */

static const espl_fs_table *libc;
static int calls;

static ssize_t slow_pread(int fd, void *to, size_t n, off_t offset) {
    errno = EINTR;
    return calls++ % 2 == 0 ? -1 : libc->pread(fd, to, n < 3 ? n : 3, offset);
}

static ssize_t slow_pwrite(int fd, const void *from, size_t n, off_t offset) {
    errno = EINTR;
    return calls++ % 2 == 0 ? -1 : libc->pwrite(fd, from, n < 3 ? n : 3, offset);
}

static void short_and_interrupted_transfers(void **state) {
    (void)state;
    espl_fs_table slow = *espl_fs_set_table(NULL);
    slow.pread = slow_pread;
    slow.pwrite = slow_pwrite;
    libc = espl_fs_set_table(&slow);
    char *path = in_folder("file");
    const char text[] = "the quick brown fox";
    espl_buffer back = {0};
    calls = 0;
    assert_int_equal(espl_fs_write_file(path, text, sizeof text), ESPL_OK);
    assert_int_equal(espl_fs_read_file(path, 100, &back), ESPL_OK);
    assert_int_equal(back.size, sizeof text);
    assert_memory_equal(back.data, text, sizeof text);
    assert_true(calls >= 24);
    espl_fs_set_table(NULL);
    espl_buffer_free(&back);
    free(path);
}

/* ---- Direct writes: a descriptor that any file system has stands for the one past the page cache */

enum { DIRECT_BYTES = ESPL_FS_DIRECT + 3 * ESPL_FS_BLOCK + 17 };

static int direct_fd, direct_errno;
static size_t direct_limit, direct_bytes;

static int plain_open(const char *path, int flags, mode_t mode) {
    int fd = libc->open(path, flags & ~O_DIRECT, mode);
    if (flags & O_DIRECT)
        direct_fd = fd;
    return fd;
}

/* As strict as a disk; takes direct_limit bytes in all, then fails. */
static ssize_t direct_pwrite(int fd, const void *from, size_t n, off_t offset) {
    if (fd != direct_fd)
        return libc->pwrite(fd, from, n, offset);
    assert_int_equal(((uintptr_t)from | n | (size_t)offset) % ESPL_FS_BLOCK, 0);
    n = n < direct_limit - direct_bytes ? n : direct_limit - direct_bytes;
    errno = direct_errno;
    direct_bytes += n;
    return n == 0 ? -1 : libc->pwrite(fd, from, n, offset);
}

/* What is written is right, whatever way it took; returns how much went past the page cache. */
static size_t write_twice_open(espl_status expected, size_t skew, size_t limit, int error) {
    static _Alignas(ESPL_FS_BLOCK) unsigned char bytes[DIRECT_BYTES + 64];
    espl_fs_table table = *espl_fs_set_table(NULL);
    espl_buffer back = {0};
    char *path = in_folder("file");
    int fd = -1, direct = -1;
    table.open = plain_open;
    table.pwrite = direct_pwrite;
    direct_limit = limit, direct_errno = error, direct_bytes = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 31 + i / 251);
    assert_int_equal(espl_fs_write_file(path, "", 0), ESPL_OK);
    libc = espl_fs_set_table(&table);
    assert_int_equal(espl_fs_open_update(path, &fd), ESPL_OK);
    assert_int_equal(espl_fs_open_direct(path, &direct), ESPL_OK);
    assert_int_equal(espl_fs_write_direct(direct, fd, bytes + skew, DIRECT_BYTES, ESPL_FS_BLOCK, path), expected);
    espl_fs_discard(&direct);
    espl_fs_discard(&fd);
    espl_fs_set_table(NULL);
    if (expected == ESPL_OK) {
        assert_int_equal(espl_fs_read_file(path, 1 << 20, &back), ESPL_OK);
        assert_int_equal(back.size, ESPL_FS_BLOCK + DIRECT_BYTES);
        assert_memory_equal(back.data + ESPL_FS_BLOCK, bytes + skew, DIRECT_BYTES);
    }
    espl_buffer_free(&back);
    free(path);
    return direct_bytes;
}

static void direct_writes(void **state) {
    (void)state;
    const size_t blocks = DIRECT_BYTES - 17;
    assert_int_equal(write_twice_open(ESPL_OK, 0, SIZE_MAX, 0), blocks);
    assert_int_equal(write_twice_open(ESPL_OK, 64, SIZE_MAX, 0), 0);                              /* memory that is not aligned */
    assert_int_equal(write_twice_open(ESPL_OK, 0, 0, EINVAL), 0);                                 /* refused */
    assert_int_equal(write_twice_open(ESPL_OK, 0, 2 * ESPL_FS_BLOCK, EINVAL), 2 * ESPL_FS_BLOCK); /* refused halfway */
    assert_int_equal(write_twice_open(ESPL_OK, 0, 5000, EIO), 5000);                              /* cut within a block: no second one */
    write_twice_open(ESPL_ERR_IO, 0, 2 * ESPL_FS_BLOCK, ENOSPC);
    assert_non_null(strstr(espl_status_message(), "writing at byte 12288 failed: No space left on device"));
}

static int refuse_direct(const char *path, int flags, mode_t mode) {
    errno = direct_errno;
    return flags & O_DIRECT ? -1 : libc->open(path, flags, mode);
}

static void a_file_system_without_direct_writes(void **state) {
    (void)state;
    espl_fs_table table = *espl_fs_set_table(NULL);
    char *path = in_folder("file");
    int direct = 7;
    table.open = refuse_direct;
    assert_int_equal(espl_fs_write_file(path, "x", 1), ESPL_OK);
    libc = espl_fs_set_table(&table);
    direct_errno = EINVAL;
    assert_int_equal(espl_fs_open_direct(path, &direct), ESPL_OK);
    assert_int_equal(direct, -1);
    direct_errno = EACCES;
    assert_int_equal(espl_fs_open_direct(path, &direct), ESPL_ERR_IO);
    assert_int_equal(direct, -1);
    espl_fs_set_table(NULL);
    free(path);
}

static void limits_and_ends_of_files(void **state) {
    (void)state;
    char *path = in_folder("file");
    espl_buffer back = {0};
    int fd;
    char bytes[8];
    assert_int_equal(espl_fs_write_file(path, "12345", 5), ESPL_OK);
    assert_int_equal(espl_fs_read_file(path, 4, &back), ESPL_ERR_DATA);
    assert_int_equal(espl_fs_open_read(path, &fd), ESPL_OK);
    assert_int_equal(espl_fs_read(fd, bytes, 5, 0, path), ESPL_OK);
    assert_int_equal(espl_fs_read(fd, bytes, 5, 1, path), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "ends at byte 5, 1 bytes early"));
    assert_int_equal(espl_fs_close(&fd, path), ESPL_OK);
    assert_int_equal(fd, -1);
    assert_int_equal(espl_fs_close(&fd, path), ESPL_OK);
    assert_int_equal(espl_fs_open_read("/tmp/espl-absent", &fd), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "/tmp/espl-absent: cannot be opened to read: No such file"));
    espl_buffer_free(&back);
    free(path);
}

static int fail_fsync(int fd) {
    (void)fd;
    errno = EIO;
    return -1;
}

/* The old file stays, and no temporary one. */
static void failed_replacement_keeps_the_old(void **state) {
    (void)state;
    char *path = in_folder("file"), *temporary = in_folder("file.tmp");
    espl_fs_table failing = *espl_fs_set_table(NULL);
    espl_buffer back = {0};
    failing.fsync = fail_fsync;
    assert_int_equal(espl_fs_write_file(path, "old", 3), ESPL_OK);
    espl_fs_set_table(&failing);
    assert_int_equal(espl_fs_write_file(path, "newer", 5), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "fsync failed: Input/output error"));
    espl_fs_set_table(NULL);
    assert_int_equal(espl_fs_read_file(path, 100, &back), ESPL_OK);
    assert_string_equal(back.data, "old");
    assert_false(espl_fs_is_file(temporary));
    espl_buffer_free(&back);
    free(path);
    free(temporary);
}

static int fail_stat(const char *path, struct stat *found) {
    (void)path, (void)found;
    errno = EIO;
    return -1;
}

static void an_error_is_not_an_absence(void **state) {
    (void)state;
    espl_fs_table failing = *espl_fs_set_table(NULL);
    bool present = true;
    assert_int_equal(espl_fs_present("/tmp/espl-absent/below", &present), ESPL_OK);
    assert_false(present);
    failing.stat = fail_stat;
    espl_fs_set_table(&failing);
    assert_int_equal(espl_fs_present(folder, &present), ESPL_ERR_IO);
    assert_int_equal(espl_fs_remove_folder(folder, NULL), ESPL_ERR_IO);
    espl_fs_set_table(NULL);
    assert_int_equal(espl_fs_present(folder, &present), ESPL_OK);
    assert_true(present);
}

static void folders(void **state) {
    (void)state;
    char *deep = in_folder("a/b/c"), *b = in_folder("a/b"), *a = in_folder("a");
    char **names;
    size_t n;
    assert_int_equal(espl_fs_make_folders(deep), ESPL_OK);
    assert_int_equal(espl_fs_make_folders(deep), ESPL_OK);
    assert_int_equal(espl_fs_make_folder(deep), ESPL_ERR_IO);
    for (int i = 0; i < 40; i++) {
        char *path = espl_format("%s/%02d", deep, (i * 7) % 40);
        assert_int_equal(espl_fs_write_file(path, "", 0), ESPL_OK);
        free(path);
    }
    assert_int_equal(espl_fs_list(deep, &names, &n), ESPL_OK);
    assert_int_equal(n, 40);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(atoi(names[i]), i);
    espl_fs_free_names(names, n);
    assert_int_equal(espl_fs_remove_folder(deep, "03"), ESPL_OK);
    assert_false(espl_fs_is_folder(deep));
    assert_int_equal(espl_fs_remove_folder(deep, NULL), ESPL_OK);
    assert_int_equal(espl_fs_remove_folder(b, NULL), ESPL_OK);
    assert_int_equal(espl_fs_remove_folder(a, NULL), ESPL_OK);
    free(deep);
    free(b);
    free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(short_and_interrupted_transfers, make, clear),
        cmocka_unit_test_setup_teardown(direct_writes, make, clear),
        cmocka_unit_test_setup_teardown(a_file_system_without_direct_writes, make, clear),
        cmocka_unit_test_setup_teardown(limits_and_ends_of_files, make, clear),
        cmocka_unit_test_setup_teardown(failed_replacement_keeps_the_old, make, clear),
        cmocka_unit_test_setup_teardown(an_error_is_not_an_absence, make, clear),
        cmocka_unit_test_setup_teardown(folders, make, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
