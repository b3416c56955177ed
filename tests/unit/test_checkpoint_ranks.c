// test: libs=io,comm,core ranks=1+2+3+4 tier=short timeout=60
/* Checkpoints over real ranks: the same state on any number of them, and a failure on one that is everyone's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "src/core/log.h"
#include "tests/unit/checkpoint_state.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <math.h>

/* Of the state's generation 3, whatever ranks wrote it: it may change only with the format or the state. */
static const uint64_t golden_digest = 0xfe61b99f73be56d1u;

static espl_comm *comm;
static const espl_ranks *ranks;
static char *folder;

static int make_folder(void **unused) {
    (void)unused;
    folder = share_scratch(comm);
    return 0;
}

static int drop_folder(void **unused) {
    (void)unused;
    unshare_scratch(comm, folder);
    return 0;
}

static espl_checkpoints *open_saver(state *s, int writers, bool background) {
    espl_checkpoint_options options = {.folder = folder, .writers = writers, .keep_last = 2, .background = background};
    espl_checkpoints *saver = NULL;
    state_make(s, ranks->rank, ranks->size);
    state_fill(s, 3);
    assert_int_equal(espl_checkpoints_open(comm, &options, s->tensors, STATE_TENSORS, &saver), ESPL_OK);
    return saver;
}

static void check_saved(int64_t step) {
    char *found = NULL, *expected = espl__step_path(folder, step);
    json_t *record;
    state s;
    uint64_t digest = 0;
    state_make(&s, ranks->rank, ranks->size);
    assert_int_equal(espl_checkpoint_find(comm, folder, NULL, &found), ESPL_OK);
    assert_string_equal(found, expected);
    assert_int_equal(espl_checkpoint_load(comm, found, NULL, s.tensors, STATE_TENSORS, &record), ESPL_OK);
    assert_int_equal(state_differs(&s, 3), -1);
    assert_int_equal(espl_checkpoint_digest(found, &digest), ESPL_OK);
    assert_true(digest == golden_digest);
    json_decref(record);
    state_free(&s);
    free(found);
    free(expected);
    assert_int_equal(espl_comm_barrier(comm), ESPL_OK);
}

static void saved_and_loaded(void **unused) {
    (void)unused;
    for (int writers = 0; writers <= ranks->size; writers++) {
        state s;
        espl_checkpoints *saver = open_saver(&s, writers, writers % 2 == 0);
        assert_int_equal(espl_checkpoints_save(saver, 10 + writers, NULL, NAN), ESPL_OK);
        if (writers % 2 == 0)
            state_fill(&s, 4); /* training goes on */
        for (int step = 0; step < 20; step++)
            assert_int_equal(espl_checkpoints_poll(saver), ESPL_OK);
        assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
        int64_t bytes = espl_checkpoints_bytes_written(saver);
        assert_int_equal(espl_comm_allreduce_i64(comm, &bytes, 1, ESPL_SUM), ESPL_OK);
        assert_true(bytes > 2613087); /* of tensors, and then some */
        espl_checkpoints_close(&saver);
        assert_null(saver);
        state_free(&s);
        check_saved(10 + writers);
    }
}

static ssize_t full_pwrite(int fd, const void *from, size_t n, off_t offset) {
    (void)fd, (void)from, (void)n, (void)offset;
    errno = ENOSPC;
    return -1;
}

/* The disk of the last rank is full: no rank believes in the checkpoint, and all save the next. */
static void one_rank_fails(void **unused) {
    (void)unused;
    static espl_fs_table full;
    full = *espl_fs_set_table(NULL);
    full.pwrite = full_pwrite;
    state s;
    espl_checkpoints *saver = open_saver(&s, ranks->size, true);
    assert_int_equal(espl_checkpoints_save(saver, 1, NULL, NAN), ESPL_OK);
    assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
    if (ranks->rank == ranks->size - 1)
        espl_fs_set_table(&full);
    assert_int_equal(espl_checkpoints_save(saver, 2, NULL, NAN), ESPL_OK);
    espl_status status = ESPL_OK;
    for (int step = 0; step < 20000 && status == ESPL_OK; step++) {
        usleep(1000); /* a step of training */
        status = espl_checkpoints_poll(saver);
    }
    assert_int_equal(status, ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "No space left on device"));
    espl_fs_set_table(NULL);
    check_saved(1);
    assert_int_equal(espl_checkpoints_save(saver, 3, NULL, NAN), ESPL_OK);
    espl_checkpoints_close(&saver);
    state_free(&s);
    check_saved(3);
}

/* ---- Tensors that the host cannot address: their pointers are made useless, and only the two copies know how. */

static const uintptr_t far_away = (uintptr_t)1 << 62;
static int64_t n_copies;

static void *far(const void *data) { return (void *)((uintptr_t)data ^ far_away); }

static espl_status read_far(void *context, void *to, const void *data, size_t bytes) {
    assert_ptr_equal(context, &n_copies);
    n_copies++;
    memcpy(to, far(data), bytes);
    return ESPL_OK;
}

/* Snapshots: the copies are made when they are waited for, which is in the writer's thread. */
static struct {
    char *to;
    const void *data;
    size_t bytes;
} fetches[4];
static int n_fetches, n_waits;
static char *pinned;
static size_t pinned_bytes;

static espl_status pin_far(void *context, void *memory, size_t bytes) {
    assert_true(context == &n_copies && pinned == NULL);
    pinned = memory;
    pinned_bytes = bytes;
    return ESPL_OK;
}

static void unpin_far(void *context, void *memory) {
    assert_true(context == &n_copies && memory == pinned && pinned != NULL);
    pinned = NULL;
}

static espl_status fetch_far(void *context, void *to, const void *data, size_t bytes) {
    assert_true(context == &n_copies && n_fetches < 4);
    assert_true((char *)to >= pinned && (char *)to + bytes <= pinned + pinned_bytes);
    fetches[n_fetches].to = to;
    fetches[n_fetches].data = data;
    fetches[n_fetches++].bytes = bytes;
    return ESPL_OK;
}

static espl_status far_fetched(void *context) {
    n_waits++;
    for (; n_fetches > 0; n_fetches--)
        memcpy(fetches[n_fetches - 1].to, far(fetches[n_fetches - 1].data), fetches[n_fetches - 1].bytes);
    return context == &n_copies ? ESPL_OK : ESPL_ERR_BUG;
}

static espl_status write_far(void *context, void *data, const void *from, size_t bytes) {
    assert_ptr_equal(context, &n_copies);
    n_copies++;
    memcpy(far(data), from, bytes);
    return ESPL_OK;
}

static float far_value(int64_t element) { return (float)(element * 37 % 65521); }

static const espl_state_memory far_memory = {.context = &n_copies,
                                             .read = read_far,
                                             .write = write_far,
                                             .pin = pin_far,
                                             .unpin = unpin_far,
                                             .fetch = fetch_far,
                                             .fetched = far_fetched};

/* Longer than what goes at once from a rank to its writer, and, on one rank, than what is loaded at once. */
static void save_far(int writers, bool background) {
    const int64_t count = 5500003;
    const espl_checkpoint_options options = {
        .folder = folder, .writers = writers, .keep_last = 2, .background = background, .memory = &far_memory};
    const bool writes = writers == 0 || ranks->rank == 0;
    espl_state_tensor t = {.group = "model", .name = "far.weight", .n_dims = 1, .shape = {count}};
    t.begin = count * ranks->rank / ranks->size;
    t.end = count * (ranks->rank + 1) / ranks->size;
    float *data = malloc((size_t)(t.end - t.begin) * sizeof *data);
    espl_checkpoints *saver = NULL;
    char *path = espl__step_path(folder, 1);
    json_t *record;
    for (int64_t i = t.begin; i < t.end; i++)
        data[i - t.begin] = far_value(i);
    t.data = far(data);
    size_t planned = espl_checkpoint_snapshot_bytes(ranks, &options, &t, 1);
    assert_true(planned >= (writes ? (size_t)((t.end - t.begin) * (writers == 0 ? 1 : ranks->size)) * 4 : 1));
    assert_int_equal(espl_checkpoints_open(comm, &options, &t, 1, &saver), ESPL_OK);
    n_copies = n_waits = 0;
    assert_int_equal(espl_checkpoints_save(saver, 1, NULL, NAN), ESPL_OK);
    assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
    assert_int_equal(n_copies, writes ? 0 : ((t.end - t.begin) * 4 + (4 << 20) - 1) / (4 << 20));
    assert_true(n_waits == writes && n_fetches == 0 && (pinned != NULL) == writes);
    espl_checkpoints_close(&saver);
    assert_null(pinned);
    memset(data, 0, (size_t)(t.end - t.begin) * sizeof *data);
    n_copies = 0;
    assert_int_equal(espl_checkpoint_load(comm, path, &far_memory, &t, 1, &record), ESPL_OK);
    assert_int_equal(n_copies, ((t.end - t.begin) * 4 + (16 << 20) - 1) / (16 << 20));
    for (int64_t i = t.begin; i < t.end; i++)
        assert_true(data[i - t.begin] == far_value(i));
    json_decref(record);
    free(data);
    free(path);
}

static void far_tensors(void **unused) {
    (void)unused;
    save_far(1, false);
    save_far(0, true);
}

int main(void) {
    if (espl_comm_open(&comm, 0) != ESPL_OK) {
        espl_status_print_trail(stderr);
        return 1;
    }
    ranks = espl_comm_ranks(comm);
    espl_log_set(ranks->rank, ESPL_LOG_ERROR, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(saved_and_loaded, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(one_rank_fails, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(far_tensors, make_folder, drop_folder),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    espl_comm_close(&comm);
    return failed;
}
