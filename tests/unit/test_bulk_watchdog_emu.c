// test: libs=kernels,comm,core ranks=1 tier=default timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/bulk.h"
#include "src/core/clock.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/unit/emu_device.h"

/* The test starts itself again as the job of two ranks: `test_bulk_watchdog_emu HOW`. */
static const char *self_path;

static void must(espl_status status) {
    if (status == ESPL_OK)
        return;
    espl_status_print_trail(stderr);
    exit(status);
}

static void open_job(espl_comm **comm) {
    must(espl_comm_open(comm, 0));
    find_emulator();
    open_device(NULL);
    must(espl_comm_use_bulk(*comm, backend->bulk, device, 60.0));
    must(espl_comm_watch(*comm, 1.0));
    espl_comm_beat(*comm, 17, "gather of weights");
}

/* Two gathers. Before the second rank 1 stops, dies, or its network does not go on and says nothing: the device of rank 0 is waited for
 * without end. */
static int job(const char *how) {
    espl_comm *comm;
    float there;
    if (strcmp(how, "hang") == 0)
        setenv("EMU_NCCL_FAIL", "hang:1:1", 1);
    open_job(&comm);
    float *data = on_device(2 * sizeof *data);
    for (int i = 0; i < 2; i++) {
        espl_request request;
        if (i == 1 && espl_comm_ranks(comm)->rank == 1 && strcmp(how, "hang") != 0)
            raise(strcmp(how, "stop") == 0 ? SIGSTOP : SIGKILL);
        must(espl_comm_allgather_start(comm, data, 2 * sizeof *data, &request));
        must(espl_comm_wait(comm, request));
        must(calls->read(device, &there, data, sizeof there));
    }
    return 0;
}

/* `launcher`: an option of mpirun, of whose own exit nothing is expected then, or "". */
static void expect_end(const char *how, const char *launcher) {
    char command[8192], line[1024], all[65536] = "";
    double start = espl_now();
    snprintf(command, sizeof command, "%s/tests/mpirun.sh 2 30 %s %s %s 2>&1", ESPL_SOURCE_DIR, launcher, self_path, how);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    while (fgets(line, sizeof line, output) != NULL)
        if (strlen(all) + strlen(line) < sizeof all)
            strcat(all, line);
    int status = pclose(output);
    const char *told = strstr(all, "watchdog: rank 0 on ");
    if (told == NULL ||
        strstr(told, "no progress for 1 s at step 17 in gather of weights, behind all-gather of 0.000 MiB, number 3") == NULL)
        fail_msg("%s: the watchdog said: %s", how, all);
    assert_true(launcher[0] != '\0' || (WIFEXITED(status) && WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 124));
    assert_true(espl_now() - start < 20);
}

static void a_silent_network_ends_the_job(void **state) {
    (void)state;
    expect_end("hang", "");
}

static void a_rank_that_never_calls_ends_the_job(void **state) {
    (void)state;
    expect_end("stop", "");
}

/* Under a launcher that would let the others wait. */
static void a_rank_that_dies_ends_the_job(void **state) {
    (void)state;
    expect_end("die", "--enable-recovery");
}

int main(int argc, char **argv) {
    self_path = argv[0];
    if (argc > 1)
        return job(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_network_ends_the_job),
        cmocka_unit_test(a_rank_that_never_calls_ends_the_job),
        cmocka_unit_test(a_rank_that_dies_ends_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
