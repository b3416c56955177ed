// test: libs=io,comm,core ranks=1+2+4 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/fsio.h"
#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/job_files.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static espl_comm *comm;
static char *folder;

static bool first_rank(void) { return espl_comm_ranks(comm)->rank == 0; }

static void meet(void) { assert_int_equal(espl_comm_barrier(comm), ESPL_OK); }

static char *in_folder(const char *name) { return espl_format("%s/%s", folder, name); }

/* Rank 0 writes a file (NULL: removes it), all wait. */
static void put(const char *name, const char *text) {
    char *path = in_folder(name);
    meet();
    if (first_rank())
        assert_int_equal(text != NULL ? espl_fs_write_file(path, text, strlen(text)) : espl_fs_unlink(path), ESPL_OK);
    meet();
    free(path);
}

static void share(const char *path) {
    meet();
    assert_int_equal(espl_files_share(comm, &path, 1), ESPL_OK);
    meet();
}

static void check_text(const char *name, const char *expected) {
    espl_buffer text = {0}, again = {0};
    char *path = in_folder(name);
    assert_int_equal(espl_file_read(path, &text), 0);
    assert_int_equal(espl_fs_read_file(path, 100, &again), ESPL_OK);
    assert_string_equal(text.data, expected);
    assert_string_equal(again.data, expected);
    espl_buffer_free(&text);
    espl_buffer_free(&again);
    free(path);
}

static void check_absent(const char *name) {
    espl_buffer text = {0};
    char *path = in_folder(name);
    bool present = true;
    assert_int_equal(espl_file_read(path, &text), ENOENT);
    assert_int_equal(espl_fs_read_file(path, 100, &text), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "cannot be opened to read: No such file"));
    espl_status_clear();
    assert_false(espl_fs_is_file(path));
    assert_int_equal(espl_fs_present(path, &present), ESPL_OK);
    assert_false(present);
    espl_buffer_free(&text);
    free(path);
}

/* What was sent is read from memory: the files are gone, or others, when they are read. */
static void small_files_are_read_by_one(void **state) {
    (void)state;
    char *path = in_folder("config.json");
    put("config.json", "{\"a\": 1}");
    put("empty.json", "");
    put("weights.bin", "not sent");
    share(folder);
    put("config.json", NULL);
    put("empty.json", "no longer");
    check_text("config.json", "{\"a\": 1}");
    check_text("empty.json", "");
    check_text("weights.bin", "not sent");
    check_absent("none.json");
    assert_true(espl_file_is_folder(folder) && espl_fs_is_folder(folder) && espl_fs_is_file(path) && espl_file_is_there(path));
    espl_job_files_drop(path);
    check_absent("config.json");
    espl_job_files_forget();
    check_text("empty.json", "no longer");
    put("empty.json", NULL);
    free(path);
}

static void what_is_named_itself_is_sent_whatever_its_name(void **state) {
    (void)state;
    char *path = in_folder("recipe"), *absent = in_folder("absent.yaml");
    put("recipe", "run:\n");
    share(path);
    share(absent);
    share("");
    put("recipe", NULL);
    put("absent.yaml", "it came later");
    check_text("recipe", "run:\n");
    check_absent("absent.yaml");
    espl_job_files_forget();
    put("absent.yaml", NULL);
    free(path);
    free(absent);
}

/* The file is gone when the other ranks read: what they have is the first rank's descriptor. */
static void mapped_files_are_opened_once_a_host(void **state) {
    (void)state;
    char *path = in_folder("model.safetensors"), text[6] = "";
    int fd = -1, second = -1;
    put("model.safetensors", "bytes");
    share(folder);
    put("model.safetensors", NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(espl_fs_open_read(path, i == 0 ? &fd : &second), ESPL_OK);
        assert_int_equal(espl_fs_read(i == 0 ? fd : second, text, 5, 0, path), ESPL_OK);
        assert_string_equal(text, "bytes");
    }
    espl_fs_discard(&fd);
    espl_job_files_forget();
    assert_int_equal(espl_fs_read(second, text, 5, 0, path), ESPL_OK); /* a descriptor of its own */
    espl_fs_discard(&second);
    assert_int_equal(espl_fs_open_read(path, &fd), ESPL_ERR_IO);
    espl_status_clear();
    free(path);
}

static void many_descriptors_pass_and_closed_ones_stay_closed(void **state) {
    (void)state;
    enum { N = 300 };
    int fds[N];
    char byte = 'x';
    FILE *files[N] = {0};
    for (int i = 0; i < N; i++) {
        files[i] = first_rank() && i % 3 != 0 ? tmpfile() : NULL;
        fds[i] = files[i] != NULL ? fileno(files[i]) : -1;
        if (fds[i] >= 0)
            assert_int_equal(pwrite(fds[i], (char[]){(char)i}, 1, 0), 1);
    }
    assert_int_equal(espl_descriptors_share(comm, fds, N), ESPL_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(fds[i] >= 0, i % 3 != 0);
        if (fds[i] < 0)
            continue;
        assert_int_equal(pread(fds[i], &byte, 1, 0), 1);
        assert_int_equal(byte, (char)i);
        if (!first_rank())
            close(fds[i]);
        else
            fclose(files[i]);
    }
}

static int set_up(void **state) {
    (void)state;
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return -1;
    folder = share_scratch(comm);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unshare_scratch(comm, folder);
    espl_comm_close(&comm);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_files_are_read_by_one),
        cmocka_unit_test(what_is_named_itself_is_sent_whatever_its_name),
        cmocka_unit_test(mapped_files_are_opened_once_a_host),
        cmocka_unit_test(many_descriptors_pass_and_closed_ones_stay_closed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
