// test: libs=kernels,comm,core ranks=1 tier=default timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/bulk.h"
#include "src/core/clock.h"

#include <string.h>
#include <sys/wait.h>

#include "tests/unit/emu_device.h"

/* The test starts itself again as the job of two ranks: `test_bulk_watchdog_emu job`. */
static const char *self_path;

static void must(espl_status status) {
    if (status == ESPL_OK)
        return;
    espl_status_print_trail(stderr);
    exit(status);
}

/* Rank 1's first operation does not go on, and NCCL says nothing: the device is waited for without end. */
static int job(void) {
    espl_comm *comm;
    float there;
    setenv("EMU_NCCL_FAIL", "hang:1:0", 1);
    must(espl_comm_open(&comm, 0));
    find_emulator();
    open_device(NULL);
    must(espl_comm_use_bulk(comm, backend->bulk, device));
    must(espl_comm_watch(comm, 1.0));
    espl_comm_beat(comm, 17, "gather of weights");
    float *data = on_device(2 * sizeof *data);
    espl_request request;
    must(espl_comm_allgather_start(comm, data, 2 * sizeof *data, &request));
    must(espl_comm_wait(comm, request));
    must(calls->read(device, &there, data, sizeof there));
    return 0;
}

static void a_silent_network_ends_the_job(void **state) {
    (void)state;
    char command[8192], line[1024], all[65536] = "";
    double start = espl_now();
    snprintf(command, sizeof command, "%s/tests/mpirun.sh 2 30 %s job 2>&1", ESPL_SOURCE_DIR, self_path);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    while (fgets(line, sizeof line, output) != NULL)
        if (strlen(all) + strlen(line) < sizeof all)
            strcat(all, line);
    int status = pclose(output);
    if (strstr(all, "no progress for") == NULL || strstr(all, "at step 17 in gather of weights") == NULL)
        fail_msg("the watchdog said: %s", all);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 124);
    assert_true(espl_now() - start < 20);
}

int main(int argc, char **argv) {
    self_path = argv[0];
    if (argc > 1 && strcmp(argv[1], "job") == 0)
        return job();
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_silent_network_ends_the_job)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
