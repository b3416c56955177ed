// test: libs=io,core ranks=1 tier=default timeout=600
/* A save meets every failure at every call into the file system: the process dies there, or the call fails once, or is cut short.
 * Whatever happens, the older or the newer checkpoint loads whole, the message says what and where, and the next save works. Another
 * attempt takes over in front of every call: what it has saved stays. */
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
#include "tests/unit/thread_ranks.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

/* ---- Faults: the n-th call of the armed table */

typedef enum kind { COUNT_ONLY, KILL, KILL_HALFWAY, TAKEOVER, FAIL, SHORT, FULL_DISK } kind;

static const espl_fs_table *libc;
static kind fault_kind;
static int fault_errno;
static long fault_at;
static atomic_long fault_calls;
static atomic_long disk_left;
static int other_attempt[2]; /* to the process of another attempt, and from it */

/* The other attempt runs from its start to its end while this one stands still in front of a call. */
static void be_taken_over(void) {
    char done = 0;
    ssize_t sent = write(other_attempt[0], "g", 1), got = read(other_attempt[1], &done, 1);
    ESPL_ASSERT(sent == 1 && got == 1, "the other attempt failed");
}

/* Faults of transfers count those alone: to other calls they are nothing, or what another kind is. */
static bool of_transfers(void) { return fault_kind == SHORT || fault_kind == KILL_HALFWAY; }

static bool strikes_transfer(void) {
    long n = atomic_fetch_add(&fault_calls, 1) + 1;
    if (n == fault_at && fault_kind == TAKEOVER) {
        be_taken_over();
        return false;
    }
    if (n != fault_at || fault_kind == COUNT_ONLY || fault_kind == SHORT || fault_kind == FULL_DISK)
        return false;
    if (fault_kind == KILL || fault_kind == KILL_HALFWAY) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    errno = fault_errno;
    return true;
}

static bool strikes(void) { return !of_transfers() && strikes_transfer(); }

static int f_open(const char *path, int flags, mode_t mode) { return strikes() ? -1 : libc->open(path, flags, mode); }
static int f_fsync(int fd) { return strikes() ? -1 : libc->fsync(fd); }
static int f_fstat(int fd, struct stat *found) { return strikes() ? -1 : libc->fstat(fd, found); }
static int f_stat(const char *path, struct stat *found) { return strikes() ? -1 : libc->stat(path, found); }
static int f_rename(const char *from, const char *to) { return strikes() ? -1 : libc->rename(from, to); }
static int f_unlink(const char *path) { return strikes() ? -1 : libc->unlink(path); }
static int f_mkdir(const char *path, mode_t mode) { return strikes() ? -1 : libc->mkdir(path, mode); }
static int f_rmdir(const char *path) { return strikes() ? -1 : libc->rmdir(path); }
static DIR *f_opendir(const char *path) { return strikes() ? NULL : libc->opendir(path); }
static struct dirent *f_readdir(DIR *folder) { return strikes() ? NULL : libc->readdir(folder); }

/* The descriptor is gone, whatever close says. */
static int f_close(int fd) {
    bool struck = strikes();
    int saved = errno, result = libc->close(fd);
    errno = saved;
    return struck ? -1 : result;
}

static int f_closedir(DIR *folder) {
    bool struck = strikes();
    int result = libc->closedir(folder);
    return struck ? -1 : result;
}

static bool is_next(void) { return atomic_load(&fault_calls) + 1 == fault_at; }

static ssize_t f_pread(int fd, void *to, size_t n, off_t offset) {
    if (fault_kind == SHORT && is_next())
        n = (n + 1) / 2;
    return strikes_transfer() ? -1 : libc->pread(fd, to, n, offset);
}

static ssize_t f_pwrite(int fd, const void *from, size_t n, off_t offset) {
    if (fault_kind == SHORT && is_next())
        n = (n + 1) / 2;
    if (fault_kind == KILL_HALFWAY && is_next())
        libc->pwrite(fd, from, n / 2, offset);
    if (fault_kind == FULL_DISK && atomic_fetch_sub(&disk_left, (long)n) < (long)n) {
        errno = ENOSPC;
        return -1;
    }
    return strikes_transfer() ? -1 : libc->pwrite(fd, from, n, offset);
}

static const espl_fs_table faulty = {
    .open = f_open,
    .close = f_close,
    .pread = f_pread,
    .pwrite = f_pwrite,
    .fsync = f_fsync,
    .fstat = f_fstat,
    .stat = f_stat,
    .rename = f_rename,
    .unlink = f_unlink,
    .mkdir = f_mkdir,
    .rmdir = f_rmdir,
    .opendir = f_opendir,
    .readdir = f_readdir,
    .closedir = f_closedir,
};

static void arm(kind what, int error, long at) {
    fault_kind = what;
    fault_errno = error;
    fault_at = at;
    atomic_store(&fault_calls, 0);
    libc = espl_fs_set_table(&faulty);
}

static void disarm(void) { espl_fs_set_table(NULL); }

/* ---- Saves and loads of one or two ranks */

typedef struct job {
    const char *folder;
    int64_t step;
    int generation, keep_last;
    kind what; /* armed after opening, so that the n-th call is one of the save */
    int error;
    long at;
    espl_status result;
    char message[2048];
    int left; /* generation that loads right after */
} job;

static int generation_in(const char *folder);

static espl_checkpoint_options options_of(const job *j) {
    return (espl_checkpoint_options){.folder = j->folder, .writers = 2, .keep_last = j->keep_last, .background = true};
}

static void must(espl_status status) {
    if (status != ESPL_OK) {
        espl_status_print_trail(stderr);
        abort();
    }
}

static espl_status save_and_wait(espl_checkpoints *saver, int64_t step) {
    ESPL_TRY(espl_checkpoints_save(saver, step, NULL, NAN));
    return espl_checkpoints_wait(saver);
}

static void faulty_body(espl_comm *comm, void *context) {
    job *j = context;
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_checkpoint_options options = options_of(j);
    espl_checkpoints *saver;
    state s;
    state_make(&s, ranks->rank, ranks->size);
    state_fill(&s, j->generation);
    must(espl_checkpoints_open(comm, &options, s.tensors, STATE_TENSORS, &saver));
    if (ranks->rank == 0)
        arm(j->what, j->error, j->at);
    must(espl_comm_barrier(comm));
    espl_status result = save_and_wait(saver, j->step);
    must(espl_comm_barrier(comm));
    if (ranks->rank == 0) {
        disarm();
        j->result = result;
        snprintf(j->message, sizeof j->message, "%s", result != ESPL_OK ? espl_status_message() : "");
        j->left = j->what >= FAIL ? generation_in(j->folder) : 0;
    }
    must(espl_comm_barrier(comm));
    if (j->what >= FAIL) { /* the same saver goes on */
        state_fill(&s, j->generation + 1);
        must(save_and_wait(saver, 30));
    }
    espl_checkpoints_close(&saver);
    state_free(&s);
}

typedef struct loaded {
    const char *folder;
    int generation; /* of what loads; -1: of neither */
} loaded;

static void load_body(espl_comm *comm, void *context) {
    loaded *l = context;
    state s;
    char *found = NULL;
    json_t *record = NULL;
    state_make(&s, espl_comm_ranks(comm)->rank, espl_comm_ranks(comm)->size);
    must(espl_checkpoint_find(comm, l->folder, NULL, &found));
    ESPL_ASSERT(found != NULL, "no checkpoint left in %s", l->folder);
    must(espl_checkpoint_load(comm, found, NULL, s.tensors, STATE_TENSORS, &record));
    l->generation = -1;
    for (int generation = 1; generation <= 3; generation++)
        if (state_differs(&s, generation) < 0)
            l->generation = generation;
    json_decref(record);
    free(found);
    state_free(&s);
}

static int generation_in(const char *folder) {
    loaded l = {.folder = folder};
    ranks_run(1, 1, load_body, &l);
    return l.generation;
}

static void save_plainly(const char *folder, int64_t step, int generation) {
    job j = {.folder = folder, .step = step, .generation = generation, .keep_last = 100, .what = COUNT_ONLY};
    j.what = KILL; /* at call 0: never */
    ranks_run(2, 2, faulty_body, &j);
    assert_int_equal(j.result, ESPL_OK);
}

static void forget(const char *folder, int64_t step) {
    char *path = espl__step_path(folder, step), *old = espl_format("%s.old", path);
    remove_tree(path);
    remove_tree(old);
    free(old);
    free(path);
}

/* Nothing but whole checkpoints and the counter. */
static void no_leftovers(const char *folder) {
    char **names;
    size_t n;
    assert_int_equal(espl_fs_list(folder, &names, &n), ESPL_OK);
    for (size_t i = 0; i < n; i++)
        if (strstr(names[i], ".tmp") != NULL || strstr(names[i], ".old") != NULL)
            fail_msg("%s/%s was left behind", folder, names[i]);
    espl_fs_free_names(names, n);
}

/* A child that saves step `step` of generation 2 and is killed at call n. Returns whether it lived. */
static bool crash_at(const char *folder, int64_t step, int keep_last, kind what, long n) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        job j = {.folder = folder, .step = step, .generation = 2, .keep_last = keep_last, .what = what, .at = n};
        ranks_run(2, 2, faulty_body, &j);
        _exit(j.result == ESPL_OK ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return !WIFSIGNALED(status);
}

/* Under sanitizers every third call is hit, after the release build has hit all. */
static long stride(void) { return getenv("ESPL_TEST_LIGHT") != NULL ? 3 : 1; }

static void crash_everywhere(int64_t step, int keep_last, kind what) {
    char *folder = make_scratch();
    int seen[4] = {0};
    long n = 1;
    for (bool lived = false; !lived; n += stride()) {
        save_plainly(folder, 10, 1);
        lived = crash_at(folder, step, keep_last, what, n);
        int generation = generation_in(folder);
        assert_true(generation == 1 || generation == 2);
        assert_false(lived && generation != 2);
        assert_false(generation == 1 && seen[2] > 0); /* once the newer is there it stays there */
        seen[generation]++;
        save_plainly(folder, 30, 3);
        assert_int_equal(generation_in(folder), 3);
        no_leftovers(folder);
        forget(folder, 10);
        forget(folder, 20);
        forget(folder, 30);
    }
    print_message("killed at %d calls: the older loads %d times, the newer %d\n", seen[1] + seen[2] - 1, seen[1], seen[2] - 1);
    assert_true(seen[1] >= (what == KILL ? 11 : 4) / stride() && seen[2] > (what == KILL && stride() == 1 ? 1 : 0));
    remove_scratch(folder);
}

static void killed_while_saving(void **unused) {
    (void)unused;
    crash_everywhere(20, 100, KILL);
}

static void killed_in_the_middle_of_a_write(void **unused) {
    (void)unused;
    crash_everywhere(20, 100, KILL_HALFWAY);
}

static void killed_while_replacing_a_step(void **unused) {
    (void)unused;
    crash_everywhere(10, 100, KILL);
}

static void killed_while_deleting_the_older(void **unused) {
    (void)unused;
    crash_everywhere(20, 1, KILL);
}

/* ---- An attempt that another one takes over, in front of each of its calls */

/* A process that, when asked, saves `step` of generation 3 as the next attempt; returns its id. */
static pid_t wait_in_reserve(const char *folder, int64_t step) {
    int ask[2], answer[2];
    assert_int_equal(pipe(ask), 0);
    assert_int_equal(pipe(answer), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        char word;
        close(ask[1]);
        if (read(ask[0], &word, 1) == 1) {
            save_plainly(folder, step, 3);
            ESPL_ASSERT(write(answer[1], "d", 1) == 1, "nobody listens");
        }
        _exit(0);
    }
    close(ask[0]);
    close(answer[1]);
    other_attempt[0] = ask[1];
    other_attempt[1] = answer[0];
    return child;
}

/* Returns false when the save made fewer calls than n. */
static bool taken_over_at(const char *folder, int64_t step, long n, int results[2]) {
    save_plainly(folder, 10, 1);
    pid_t child = wait_in_reserve(folder, step);
    job j = {.folder = folder, .step = step, .generation = 2, .keep_last = 1, .what = TAKEOVER, .at = n};
    ranks_run(2, 2, faulty_body, &j);
    bool happened = n <= atomic_load(&fault_calls);
    int status = 0;
    close(other_attempt[0]);
    close(other_attempt[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    results[j.result != ESPL_OK] += happened;
    if (generation_in(folder) != (happened ? 3 : 2))
        fail_msg("taken over at call %ld: generation %d is the newest", n, generation_in(folder));
    save_plainly(folder, 30, 3);
    no_leftovers(folder);
    forget(folder, 30);
    forget(folder, 20);
    forget(folder, 10);
    return happened;
}

static void take_over(int64_t step, long every) {
    char *folder = make_scratch();
    int results[2] = {0};
    long n = 1;
    while (taken_over_at(folder, step, n, results))
        n += every;
    print_message("taken over at %d calls: %d saves came before, %d were refused\n", results[0] + results[1], results[0], results[1]);
    assert_true(results[1] > 30 / every);
    remove_scratch(folder);
}

static void taken_over_while_saving(void **unused) {
    (void)unused;
    take_over(20, stride());
}

static void taken_over_while_replacing_a_step(void **unused) {
    (void)unused;
    take_over(10, 3);
}

/* ---- Calls that fail */

/* Returns false when the save made fewer calls than n. */
static bool fail_at(const char *folder, int64_t step, kind what, int error, long n, int results[2]) {
    save_plainly(folder, 10, 1);
    job j = {.folder = folder, .step = step, .generation = 2, .keep_last = 1, .what = what, .error = error, .at = n};
    ranks_run(2, 2, faulty_body, &j);
    long calls = atomic_load(&fault_calls);
    assert_true(j.result == ESPL_OK || j.result == ESPL_ERR_IO);
    results[j.result != ESPL_OK]++;
    if (j.result != ESPL_OK) {
        assert_non_null(strstr(j.message, folder));
        assert_non_null(strstr(j.message, strerror(error)));
        assert_non_null(strstr(j.message, "is not saved"));
    }
    assert_true(j.left == 2 || (j.left == 1 && j.result != ESPL_OK));
    assert_int_equal(generation_in(folder), 3); /* step 30, by the same saver */
    forget(folder, 30);
    save_plainly(folder, 40, 3);
    no_leftovers(folder);
    forget(folder, 40);
    forget(folder, 20);
    forget(folder, 10);
    return n <= calls;
}

static void fail_everywhere(int64_t step, kind what, int error, long every, const char *name, bool harmless) {
    char *folder = make_scratch();
    int results[2] = {0};
    long n = 1;
    while (fail_at(folder, step, what, error, n, results))
        n += every;
    print_message("%s at %d of %ld calls: %d saves succeeded, %d were reported\n", name, results[0] + results[1], n - 1, results[0],
                  results[1]);
    assert_true(n > (what == SHORT ? 5 : 30));
    assert_true(harmless ? results[1] == 0 : results[1] > 10 / every);
    remove_scratch(folder);
}

/* The number of the error is nothing to the saver: one of them is made at every call. */
static void no_space(void **unused) {
    (void)unused;
    fail_everywhere(20, FAIL, ENOSPC, 5, "ENOSPC", false);
}

static void input_output_error(void **unused) {
    (void)unused;
    fail_everywhere(20, FAIL, EIO, stride(), "EIO", false);
}

static void input_output_error_while_replacing(void **unused) {
    (void)unused;
    fail_everywhere(10, FAIL, EIO, stride(), "EIO, same step,", false);
}

static void interrupted_calls_are_repeated(void **unused) {
    (void)unused;
    fail_everywhere(20, FAIL, EINTR, stride(), "EINTR", true);
}

static void short_transfers_are_continued(void **unused) {
    (void)unused;
    fail_everywhere(20, SHORT, 0, 1, "a short transfer", true);
}

static void full_disk(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    int results[2] = {0};
    for (long space = 0; space <= 4 << 20; space += 600 << 10) {
        save_plainly(folder, 10, 1);
        atomic_store(&disk_left, space);
        job j = {.folder = folder, .step = 20, .generation = 2, .keep_last = 5, .what = FULL_DISK, .error = ENOSPC};
        ranks_run(2, 2, faulty_body, &j);
        results[j.result != ESPL_OK]++;
        assert_true(j.result == ESPL_OK || strstr(j.message, "No space left on device") != NULL);
        assert_int_equal(j.left, j.result == ESPL_OK ? 2 : 1);
        no_leftovers(folder);
        forget(folder, 30);
        forget(folder, 20);
        forget(folder, 10);
    }
    assert_true(results[0] > 0 && results[1] > 3);
    remove_scratch(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_while_saving),
        cmocka_unit_test(killed_in_the_middle_of_a_write),
        cmocka_unit_test(killed_while_replacing_a_step),
        cmocka_unit_test(killed_while_deleting_the_older),
        cmocka_unit_test(taken_over_while_saving),
        cmocka_unit_test(taken_over_while_replacing_a_step),
        cmocka_unit_test(no_space),
        cmocka_unit_test(input_output_error),
        cmocka_unit_test(input_output_error_while_replacing),
        cmocka_unit_test(interrupted_calls_are_repeated),
        cmocka_unit_test(short_transfers_are_continued),
        cmocka_unit_test(full_disk),
    };
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);   /* the faults are made here, so a fast disk will do */
    espl_log_set(0, ESPL_LOG_ERROR, NULL); /* each failure warns, as it should */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
