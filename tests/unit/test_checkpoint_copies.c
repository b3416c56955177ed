// test: libs=io,comm,core ranks=1+2+3+4 tier=short timeout=120
/* In-memory copies: each rank plays a host of its own, with a folder in the place of its memory, which can be lost or damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/transport.h"
#include "io/checkpoint/checkpoint_copies.h"
#include "io/fsio.h"
#include "tests/unit/checkpoint_state.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <unistd.h>

static espl_comm *comm;
static char *folder, *memory;        /* the disk, which all see; of this host */
static const char *run = "runs/one"; /* in the folder */

/* ---- A file system that fails */

static const espl_fs_table *libc;
static atomic_bool is_full;

static ssize_t full_pwrite(int fd, const void *from, size_t n, off_t offset) {
    if (!is_full)
        return libc->pwrite(fd, from, n, offset);
    errno = ENOSPC;
    return -1;
}

/* Whether this rank's writes fail from now on. */
static void fill(bool full) {
    static espl_fs_table table;
    is_full = full;
    table = *espl_fs_set_table(NULL);
    table.pwrite = full_pwrite;
    libc = espl_fs_set_table(full ? &table : NULL);
}

/* ---- Runs */

static int make_folders(void **unused) {
    (void)unused;
    folder = share_scratch(comm);
    memory = espl_format("%s/memory-of-%d", folder, comm->ranks.rank);
    run = "runs/one";
    return 0;
}

static int drop_folders(void **unused) {
    (void)unused;
    unshare_scratch(comm, folder);
    free(memory);
    return 0;
}

/* The next attempt. */
static espl_checkpoints *open_saver(state *s, int generation, int every) {
    char *disk = espl_format("%s/%s/checkpoints", folder, run);
    espl_checkpoint_options options = {
        .folder = disk, .writers = comm->ranks.size, .keep_last = 2, .background = true, .copy_every = every, .copy_folder = memory};
    espl_checkpoints *saver = NULL;
    state_make(s, comm->ranks.rank, comm->ranks.size);
    state_fill(s, generation);
    assert_int_equal(espl_checkpoints_open(comm, &options, s->tensors, STATE_TENSORS, &saver), ESPL_OK);
    free(disk);
    return saver;
}

static void close_saver(state *s, espl_checkpoints *saver) {
    espl_checkpoints_close(&saver);
    state_free(s);
    assert_int_equal(espl_comm_barrier(comm), ESPL_OK);
}

static void copy(espl_checkpoints *saver, state *s, int64_t step, int generation) {
    json_t *record = json_pack("{s:i}", "generation", generation);
    state_fill(s, generation);
    assert_true(espl_checkpoints_copies(saver));
    assert_int_equal(espl_checkpoints_copy(saver, step, record), ESPL_OK);
    state_fill(s, 99); /* training goes on */
    assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
    json_decref(record);
}

static void save(espl_checkpoints *saver, state *s, int64_t step, int generation) {
    json_t *record = json_pack("{s:i}", "generation", generation);
    state_fill(s, generation);
    assert_int_equal(espl_checkpoints_save(saver, step, record, NAN), ESPL_OK);
    assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
    json_decref(record);
}

/* What the next attempt finds: the state of a generation, in memory or not; -1: nothing. It stays open. */
static espl_checkpoints *expect_found(state *s, int generation, bool in_memory) {
    espl_checkpoints *saver = open_saver(s, 98, 1);
    char *found = NULL;
    bool was_in_memory = false;
    json_t *record = NULL;
    assert_int_equal(espl_checkpoints_find(saver, s->tensors, STATE_TENSORS, &found, &was_in_memory), ESPL_OK);
    assert_int_equal(found == NULL, generation < 0);
    assert_int_equal(was_in_memory, in_memory);
    if (found == NULL)
        return saver;
    assert_int_equal(espl_checkpoint_load(comm, found, NULL, s->tensors, STATE_TENSORS, &record), ESPL_OK);
    assert_int_equal(state_differs(s, generation), -1);
    assert_int_equal(json_integer_value(json_object_get(record, "generation")), generation);
    json_decref(record);
    assert_int_equal(espl_checkpoint_record(found, &record), ESPL_OK); /* every host has the manifest */
    json_decref(record);
    free(found);
    return saver;
}

static void expect(int generation, bool in_memory) {
    state s;
    espl_checkpoints *saver = expect_found(&s, generation, in_memory);
    close_saver(&s, saver);
}

static void lose(int host) {
    if (comm->ranks.rank == host)
        remove_tree(memory);
    assert_int_equal(espl_comm_barrier(comm), ESPL_OK);
}

/* Flips a byte in the middle of a host's copy of a file, where it has one. */
static void damage(int host, int file, int64_t attempt, int64_t step) {
    char *command = espl_format("f=$(ls %s/*/run-*/attempt-%08lld/step-%08lld/shard-%05d.h5) && n=$(($(stat -c %%s $f) / 2)) && "
                                "b=$(od -An -tu1 -j $n -N 1 $f) && printf \"$(printf '\\\\%%o' $((b ^ 1)))\" | "
                                "dd of=$f bs=1 seek=$n conv=notrunc 2> /dev/null",
                                memory, (long long)attempt, (long long)step, file);
    if (comm->ranks.rank == host)
        assert_int_equal(system(command), 0);
    free(command);
    assert_int_equal(espl_comm_barrier(comm), ESPL_OK);
}

/* Names that a pattern of the shell finds below this host's memory, on all hosts. */
static int64_t names_in_memory(const char *pattern) {
    char *command = espl_format("ls -d %s/%s 2> /dev/null | wc -l", memory, pattern);
    FILE *pipe = popen(command, "r");
    int64_t n = -1;
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%" SCNd64, &n), 1);
    pclose(pipe);
    free(command);
    assert_int_equal(espl_comm_allreduce_i64(comm, &n, 1, ESPL_SUM), ESPL_OK);
    return n;
}

/* A shell command of one rank; then all go on. */
static void shell(int rank, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void shell(int rank, const char *format, ...) {
    char command[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (comm->ranks.rank == rank)
        assert_int_equal(system(command), 0);
    assert_int_equal(espl_comm_barrier(comm), ESPL_OK);
}

/* Attempt 1 has a checkpoint of step 2 and a copy of step 4. */
static void begin_run(void) {
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    save(saver, &s, 2, 12);
    copy(saver, &s, 3, 13);
    copy(saver, &s, 4, 14);
    assert_int_equal(espl_checkpoints_copied(saver), 4);
    close_saver(&s, saver);
}

static void the_newest_is_found(void **unused) {
    (void)unused;
    expect(-1, false);
    begin_run();
    expect(14, true);
    expect(14, true);
}

static void a_host_is_lost(void **unused) {
    (void)unused;
    begin_run();
    lose(comm->ranks.size - 1);
    expect(comm->ranks.size > 1 ? 14 : 12, comm->ranks.size > 1);
}

static void neighbours_are_lost(void **unused) {
    (void)unused;
    begin_run();
    lose(0);
    lose(1 % comm->ranks.size);
    expect(12, false);
}

static void a_copy_is_damaged(void **unused) {
    (void)unused;
    begin_run();
    damage(0, 0, 1, 4);
    expect(comm->ranks.size > 1 ? 14 : 12, comm->ranks.size > 1);
}

static void both_copies_are_damaged(void **unused) {
    (void)unused;
    begin_run();
    damage(0, 0, 1, 4);
    if (comm->ranks.size > 1)
        damage(1, 0, 1, 4);
    expect(12, false);
}

/* Of a newer attempt even a lower step counts, a checkpoint as well as a copy. */
static void the_newer_attempt_counts(void **unused) {
    (void)unused;
    begin_run();
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 0);
    save(saver, &s, 3, 23);
    close_saver(&s, saver);
    expect(23, false);
    saver = open_saver(&s, 1, 1);
    copy(saver, &s, 3, 33);
    close_saver(&s, saver);
    expect(33, true);
}

/* What a run leaves by beginning at an earlier step is not found again, and older copies go when a newer one is whole. */
static void what_is_left_is_gone(void **unused) {
    (void)unused;
    begin_run();
    state s;
    espl_checkpoints *saver = expect_found(&s, 14, true);
    assert_int_equal(espl_checkpoints_begin(saver, 2), ESPL_OK);
    close_saver(&s, saver);
    saver = expect_found(&s, 12, false);
    copy(saver, &s, 3, 23);
    assert_int_equal(espl_checkpoints_begin(saver, 2), ESPL_OK);
    close_saver(&s, saver);
    saver = expect_found(&s, 12, false);
    copy(saver, &s, 3, 33);
    copy(saver, &s, 5, 35);
    close_saver(&s, saver);
    expect(35, true);
}

static void what_is_forgotten_is_gone(void **unused) {
    (void)unused;
    begin_run();
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    assert_int_equal(espl_checkpoints_forget(saver), ESPL_OK);
    assert_int_equal(names_in_memory("*"), 0);
    copy(saver, &s, 5, 25); /* and a new identity */
    close_saver(&s, saver);
    saver = expect_found(&s, 25, true);
    assert_int_equal(espl_checkpoints_forget(saver), ESPL_OK);
    close_saver(&s, saver);
    assert_int_equal(names_in_memory("*"), 0);
    expect(12, false);
}

/* A host comes back with an older attempt's copy, and an attempt died while it made one: of the run one copy stays on each host, what it
 * goes on from. */
static void what_is_older_goes_at_the_start(void **unused) {
    (void)unused;
    const int64_t size = comm->ranks.size;
    state s;
    begin_run();
    shell(0, "cp -r %s/*/run-*/attempt-00000001 %s/kept", memory, folder);
    espl_checkpoints *saver = expect_found(&s, 14, true);
    copy(saver, &s, 6, 26);
    close_saver(&s, saver);
    assert_int_equal(names_in_memory("*/run-*/attempt-*/step-*"), size);
    shell(0, "cd %s/*/run-* && mv %s/kept attempt-00000001 && mkdir attempt-00000002/step-00000007.attempt-2.tmp", memory, folder);
    assert_int_equal(names_in_memory("*/run-*/attempt-*/step-*"), size + 2);
    saver = expect_found(&s, 26, true);
    assert_int_equal(espl_checkpoints_begin(saver, 6), ESPL_OK);
    assert_int_equal(names_in_memory("*/run-*/attempt-*/*"), size);
    assert_int_equal(names_in_memory("*/run-*/attempt-00000002/step-00000006"), size);
    save(saver, &s, 7, 37);
    close_saver(&s, saver);
    saver = expect_found(&s, 37, false);
    assert_int_equal(espl_checkpoints_begin(saver, 7), ESPL_OK);
    assert_int_equal(names_in_memory("*/*"), 0);
    close_saver(&s, saver);
}

/* Back to the copy of step 4, or to before it, by a process that goes on. */
static void what_a_process_goes_back_to_stays(void **unused) {
    (void)unused;
    begin_run();
    state s;
    espl_checkpoints *saver = expect_found(&s, 14, true);
    assert_int_equal(espl_checkpoints_begin(saver, 4), ESPL_OK);
    copy(saver, &s, 6, 26);
    assert_int_equal(espl_checkpoints_begin(saver, 6), ESPL_OK);
    assert_int_equal(espl_checkpoints_copied(saver), 6);
    assert_int_equal(names_in_memory("*/run-*/attempt-*/*"), comm->ranks.size);
    assert_int_equal(espl_checkpoints_begin(saver, 5), ESPL_OK);
    assert_int_equal(espl_checkpoints_copied(saver), -1);
    assert_int_equal(names_in_memory("*/*"), 0);
    close_saver(&s, saver);
    expect(12, false);
}

/* Another run starts, with copies or without. */
static void start_another(int every) {
    state s;
    run = "runs/two";
    espl_checkpoints *saver = open_saver(&s, 1, every);
    close_saver(&s, saver);
    run = "runs/one";
}

/* What a run has in memory goes at another's start when it has ended elsewhere, has left its course, or was deleted; not before, and not
 * where its folder cannot be reached. */
static void what_no_run_looks_for_is_swept(void **unused) {
    (void)unused;
    const int64_t size = comm->ranks.size;
    begin_run();
    start_another(0);
    start_another(1);
    expect(14, true);
    shell(0, "rm %s/runs/one/checkpoints/memory", folder);
    start_another(0);
    assert_int_equal(names_in_memory("*"), 0);
    begin_run();
    shell(0, "echo another > %s/runs/one/checkpoints/memory", folder);
    start_another(1);
    assert_int_equal(names_in_memory("*"), 0);
    run = "away/one";
    begin_run();
    shell(0, "mv %s/away %s/off", folder, folder);
    start_another(0);
    assert_int_equal(names_in_memory("*/run-*/attempt-*/step-*"), size);
    shell(0, "mv %s/off %s/away && rm -r %s/away/one", folder, folder, folder);
    start_another(0);
    assert_int_equal(names_in_memory("*"), 0);
}

/* Copies of a run without identity are its own that it left, too. */
static void ones_own_are_swept(void **unused) {
    (void)unused;
    begin_run();
    shell(0, "rm %s/runs/one/checkpoints/memory", folder);
    expect(12, false);
    assert_int_equal(names_in_memory("*"), 0);
}

/* How many polls after the thread's end it took. */
static int polls_until_copied(espl_checkpoints *saver, int64_t step) {
    int polls = 0;
    for (int i = 0; i < 20000 && espl_checkpoints_copied(saver) != step; i++) {
        int64_t written = espl_background_done(&saver->background);
        assert_int_equal(espl_comm_allreduce_i64(comm, &written, 1, ESPL_MIN), ESPL_OK);
        polls += (int)written;
        usleep(written ? 0 : 500);
        assert_int_equal(espl_checkpoints_poll(saver), ESPL_OK);
    }
    assert_int_equal(espl_checkpoints_copied(saver), step);
    return polls;
}

/* What travels to partners is spread over the polls of several steps; a copy on its way does not count, nor does it hold a save up. */
static void a_copy_takes_its_time(void **unused) {
    (void)unused;
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 16);
    assert_int_equal(espl_checkpoints_copy(saver, 16, NULL), ESPL_OK);
    assert_int_equal(espl_checkpoints_under_way(saver), -1);
    assert_false(espl_checkpoints_copies(saver));
    polls_until_copied(saver, 16);
    state_fill(&s, 2);
    assert_int_equal(espl_checkpoints_copy(saver, 32, NULL), ESPL_OK);
    save(saver, &s, 33, 3);
    assert_int_equal(espl_checkpoints_copied(saver), 32);
    close_saver(&s, saver);
    expect(3, false);
}

/* More than a piece of each file. */
static void a_large_copy_goes_in_pieces(void **unused) {
    (void)unused;
    enum { EACH = 5 << 20 };
    const int64_t rank = comm->ranks.rank, size = comm->ranks.size;
    espl_state_tensor t = {.group = "model", .name = "w", .dtype = ESPL_F32, .n_dims = 1, .shape = {size * EACH}, .begin = rank * EACH};
    t.end = t.begin + EACH;
    float *data = t.data = espl_malloc(EACH * sizeof *data);
    for (int64_t i = 0; i < EACH; i++)
        data[i] = (float)((t.begin + i) % 8191);
    espl_checkpoint_options options = {
        .folder = folder, .writers = (int)size, .keep_last = 1, .background = true, .copy_every = 10, .copy_folder = memory};
    espl_checkpoints *saver = NULL;
    char *found = NULL;
    bool in_memory = false;
    json_t *record = NULL;
    assert_int_equal(espl_checkpoints_open(comm, &options, &t, 1, &saver), ESPL_OK);
    assert_int_equal(espl_checkpoints_copy(saver, 10, NULL), ESPL_OK);
    int polls = polls_until_copied(saver, 10);
    assert_true(size == 1 ? polls <= 1 : polls >= 2 && polls <= 3); /* a fifth of 20 MiB and some, in whole pieces, at each */
    espl_checkpoints_close(&saver);
    lose((int)size - 1);
    memset(data, 0, EACH * sizeof *data);
    assert_int_equal(espl_checkpoints_open(comm, &options, &t, 1, &saver), ESPL_OK);
    assert_int_equal(espl_checkpoints_find(saver, &t, 1, &found, &in_memory), ESPL_OK);
    assert_true(in_memory == (size > 1) && (found != NULL) == in_memory);
    if (in_memory)
        assert_int_equal(espl_checkpoint_load(comm, found, NULL, &t, 1, &record), ESPL_OK);
    int64_t wrong = 0;
    for (int64_t i = 0; i < EACH && in_memory; i++)
        wrong += data[i] != (float)((t.begin + i) % 8191);
    assert_int_equal(wrong, 0);
    espl_checkpoints_close(&saver);
    json_decref(record);
    free(found);
    free(data);
}

/* Ranks whose memory holds more than what they save: every file goes to every host. */
static void all_hold_all(void **unused) {
    (void)unused;
    begin_run();
    lose(comm->ranks.size - 1);
    state all, s;
    char *found = NULL;
    bool in_memory = false;
    json_t *record = NULL;
    espl_checkpoints *saver = open_saver(&s, 98, 1);
    state_make(&all, 0, 1);
    assert_int_equal(espl_checkpoints_find(saver, all.tensors, STATE_TENSORS, &found, &in_memory), ESPL_OK);
    assert_int_equal(in_memory, comm->ranks.size > 1);
    assert_int_equal(espl_checkpoint_load(comm, found, NULL, all.tensors, STATE_TENSORS, &record), ESPL_OK);
    assert_int_equal(state_differs(&all, in_memory ? 14 : 12), -1);
    json_decref(record);
    free(found);
    state_free(&all);
    close_saver(&s, saver);
}

/* No more copies, and no failure. */
static void expect_given_up(espl_checkpoints *saver, int64_t step) {
    int64_t before = espl_checkpoints_copied(saver);
    assert_int_equal(espl_checkpoints_copy(saver, step, NULL), ESPL_OK);
    assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
    assert_false(espl_checkpoints_copies(saver));
    assert_int_equal(espl_checkpoints_copied(saver), before);
    assert_int_equal(espl_checkpoints_failures(saver), 0);
}

/* One host's memory takes nothing: no more copies, no failure, and the older one stays. */
static void there_is_no_room(void **unused) {
    (void)unused;
    begin_run();
    const int last = comm->ranks.size - 1;
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    char *root = ((struct espl__copies *)saver->copies)->root, *blocked = espl_format("%s/attempt-%08d", root, (int)saver->attempt);
    if (comm->ranks.rank == last)
        assert_int_equal(espl_fs_write_file(blocked, "", 0), ESPL_OK);
    free(blocked);
    expect_given_up(saver, 5);
    close_saver(&s, saver);
    expect(14, true);
}

/* It fills while a copy is written. What was written of it is gone, and a checkpoint is made. */
static void memory_fills(void **unused) {
    (void)unused;
    begin_run();
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    fill(comm->ranks.rank == comm->ranks.size - 1);
    expect_given_up(saver, 5);
    fill(false);
    assert_int_equal(names_in_memory("*/run-*/attempt-*/step-*"), comm->ranks.size);
    close_saver(&s, saver);
    saver = expect_found(&s, 14, true);
    save(saver, &s, 6, 26);
    close_saver(&s, saver);
    expect(26, false);
}

/* A file has shrunk before it travels: no failure of the run's either. */
static void a_file_is_cut_off(void **unused) {
    (void)unused;
    if (comm->ranks.size == 1)
        skip();
    begin_run();
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    assert_int_equal(espl_checkpoints_copy(saver, 5, NULL), ESPL_OK);
    while (!espl_background_done(&saver->background))
        usleep(500);
    shell(0, "truncate -s 1000 %s/*/run-*/attempt-00000002/step-00000005.attempt-2.tmp/shard-00000.h5", memory);
    assert_int_equal(espl_checkpoints_wait(saver), ESPL_OK);
    assert_false(espl_checkpoints_copies(saver));
    close_saver(&s, saver);
    expect(14, true);
}

/* In the place of the memory folder is a file; then a folder that others may write in: what is in it is not trusted. */
static void the_place_is_no_good(void **unused) {
    (void)unused;
    const int last = comm->ranks.size - 1;
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    shell(last, "touch %s", memory);
    expect_given_up(saver, 1);
    close_saver(&s, saver);
    shell(last, "rm %s", memory);
    begin_run();
    for (int host = 0; host < comm->ranks.size; host++)
        shell(host, "[ $(stat -c %%a %s/*) = 700 ] && chmod 777 %s/*", memory, memory);
    saver = expect_found(&s, 12, false);
    expect_given_up(saver, 3);
    close_saver(&s, saver);
}

/* A save that fails meanwhile keeps no copy alive: bad numbers may be in it. */
static void a_failed_save_keeps_nothing(void **unused) {
    (void)unused;
    begin_run();
    state s;
    espl_checkpoints *saver = open_saver(&s, 1, 1);
    fill(comm->ranks.rank == 0);
    (void)espl_checkpoints_save(saver, 5, NULL, NAN);
    assert_int_equal(espl_checkpoints_forget(saver), ESPL_OK);
    fill(false);
    assert_int_equal(espl_checkpoints_failures(saver), 1);
    assert_int_equal(names_in_memory("*"), 0);
    close_saver(&s, saver);
    expect(12, false);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folders, drop_folders)
    const struct CMUnitTest tests[] = {TEST(the_newest_is_found),
                                       TEST(a_host_is_lost),
                                       TEST(neighbours_are_lost),
                                       TEST(a_copy_is_damaged),
                                       TEST(both_copies_are_damaged),
                                       TEST(the_newer_attempt_counts),
                                       TEST(what_is_left_is_gone),
                                       TEST(what_is_forgotten_is_gone),
                                       TEST(a_copy_takes_its_time),
                                       TEST(a_large_copy_goes_in_pieces),
                                       TEST(all_hold_all),
                                       TEST(what_is_older_goes_at_the_start),
                                       TEST(what_a_process_goes_back_to_stays),
                                       TEST(what_no_run_looks_for_is_swept),
                                       TEST(ones_own_are_swept),
                                       TEST(there_is_no_room),
                                       TEST(memory_fills),
                                       TEST(a_file_is_cut_off),
                                       TEST(the_place_is_no_good),
                                       TEST(a_failed_save_keeps_nothing)};
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return 1;
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    comm->ranks.node = comm->ranks.rank;
    comm->ranks.n_nodes = comm->ranks.size;
    comm->ranks.node_rank = 0;
    comm->ranks.node_size = 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    espl_comm_close(&comm);
    return failed;
}
