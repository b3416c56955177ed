// test: libs=comm,core ranks=1 tier=default timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/comm.h"
#include "src/core/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The test starts itself again as the job: `test_watchdog MODE`. */
static const char *self_path;
static const double deadline = 1.0; /* of the watchdog, in seconds */

/* ---- What the job does. */

static void work(espl_comm *comm, double for_seconds) {
    double end = espl_now() + for_seconds;
    for (int64_t step = 0; espl_now() < end; step++) {
        int64_t one = 1;
        espl_comm_beat(comm, 41, "exchange of ones");
        if (espl_comm_allreduce_i64(comm, &one, 1, ESPL_SUM) != ESPL_OK)
            espl_comm_abort(comm, ESPL_ERR_IO);
        if (step == 0)
            fprintf(stderr, "rank %d is %d\n", espl_comm_ranks(comm)->rank, (int)getpid());
        usleep(10000);
    }
}

static int job(const char *mode) {
    espl_comm *comm;
    if (espl_comm_open(&comm, 0) != ESPL_OK || espl_comm_watch(comm, strcmp(mode, "off") == 0 ? 0 : deadline) != ESPL_OK)
        return 1;
    const espl_ranks *ranks = espl_comm_ranks(comm);
    if (strcmp(mode, "abort") == 0 && ranks->rank == ranks->size - 1)
        espl_comm_abort(comm, 5);
    if (strcmp(mode, "assert") == 0)
        ESPL_ASSERT(ranks->rank != ranks->size - 1, "a planted bug");
    work(comm, strcmp(mode, "ranks") == 0 ? 30 : strcmp(mode, "beats") == 0 ? 3 * deadline : 0.1);
    espl_comm_beat(comm, 42, "sleep");
    if (strcmp(mode, "silent") == 0 || strcmp(mode, "off") == 0)
        sleep(strcmp(mode, "off") == 0 ? 2 : 20);
    espl_comm_close(&comm);
    return 0;
}

/* ---- Starting and watching it. */

typedef struct child {
    pid_t pid;
    int output;
    char text[8192]; /* stdout and stderr so far */
    size_t n;
} child;

static void start(child *c, const char *mode, const char *ranks) {
    int ends[2];
    *c = (child){0};
    assert_int_equal(pipe(ends), 0);
    c->output = ends[0];
    c->pid = fork();
    if (c->pid == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        if (ranks != NULL)
            execl(ESPL_SOURCE_DIR "/tests/mpirun.sh", "mpirun.sh", ranks, "20", self_path, mode, (char *)NULL);
        else
            execl(self_path, self_path, mode, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
}

/* Reads what there is; 0 at the end. */
static ssize_t more(child *c) {
    ssize_t n = read(c->output, c->text + c->n, sizeof c->text - 1 - c->n);
    if (n > 0)
        c->n += (size_t)n;
    return n;
}

static void read_until(child *c, const char *text) {
    while (strstr(c->text, text) == NULL || strchr(strstr(c->text, text), '\n') == NULL)
        if (more(c) <= 0)
            fail_msg("the job ended before it said '%s': %s", text, c->text);
}

static pid_t pid_of_rank(child *c, int rank) {
    char name[32];
    snprintf(name, sizeof name, "rank %d is ", rank);
    read_until(c, name);
    return (pid_t)atoi(strstr(c->text, name) + strlen(name));
}

static int finish(child *c) {
    int status;
    while (more(c) > 0)
        ;
    close(c->output);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect(const child *c, const char *text) {
    if (strstr(c->text, text) == NULL)
        fail_msg("expected '%s' in: %s", text, c->text);
}

static void silence_ends_the_job(void **state) {
    (void)state;
    child c;
    start(&c, "silent", NULL);
    assert_int_equal(finish(&c), ESPL_ERR_IO);
    expect(&c, "watchdog: rank 0 on ");
    expect(&c, "at step 42 in sleep");
}

/* Three deadlines of beats, then a clean end: the watchdog is no time limit. */
static void beats_keep_it_alive(void **state) {
    (void)state;
    child c;
    start(&c, "beats", NULL);
    assert_int_equal(finish(&c), 0);
    assert_null(strstr(c.text, "watchdog"));
    start(&c, "off", NULL);
    assert_int_equal(finish(&c), 0);
}

/* A batch system may suspend a whole job for longer than the deadline. */
static void a_suspended_job_resumes(void **state) {
    (void)state;
    child c;
    start(&c, "beats", NULL);
    pid_of_rank(&c, 0);
    kill(c.pid, SIGSTOP);
    usleep((useconds_t)(2.5e6 * deadline));
    kill(c.pid, SIGCONT);
    assert_int_equal(finish(&c), 0);
    assert_null(strstr(c.text, "watchdog"));
}

/* Waits for a process that is not our child to disappear (or to be a corpse). */
static int is_gone(pid_t pid, double patience) {
    for (double end = espl_now() + patience; espl_now() < end; usleep(20000))
        if (kill(pid, 0) != 0 && errno == ESRCH)
            return 1;
    return 0;
}

/* The other rank's watchdog sees that its collective stands still, and takes the stopped rank down, too. */
static void a_stopped_rank_ends_the_job(void **state) {
    (void)state;
    child c;
    start(&c, "ranks", "2");
    pid_t stopped = pid_of_rank(&c, 1);
    pid_of_rank(&c, 0);
    kill(stopped, SIGSTOP);
    double begin = espl_now();
    int code = finish(&c);
    double took = espl_now() - begin;
    expect(&c, "watchdog: rank 0 on ");
    expect(&c, "at step 41 in exchange of ones");
    expect(&c, "of its node 0 other ranks are there, rank 1 is stopped at step 41 in exchange of ones since ");
    assert_int_equal(code, ESPL_ERR_IO);
    assert_true(took >= 0.5 * deadline && took < deadline + 8);
    assert_true(is_gone(stopped, 5));
}

static void abort_ends_all_ranks_with_its_code(void **state) {
    (void)state;
    child c;
    start(&c, "abort", "2");
    assert_int_equal(finish(&c), 5);
    expect(&c, "rank 1 on ");
    expect(&c, "ends the job with exit code 5");
    start(&c, "assert", "2");
    assert_int_equal(finish(&c), ESPL_ERR_BUG);
    expect(&c, "a planted bug");
}

int main(int argc, char **argv) {
    if (argc == 2)
        return job(argv[1]);
    self_path = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_ends_the_job),
        cmocka_unit_test(beats_keep_it_alive),
        cmocka_unit_test(a_suspended_job_resumes),
        cmocka_unit_test(a_stopped_rank_ends_the_job),
        cmocka_unit_test(abort_ends_all_ranks_with_its_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
