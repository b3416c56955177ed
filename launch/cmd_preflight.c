#include "launch/commands.h"
#include "launch/recipe.h"
#include "launch/session.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/train/machine/preflight.h"

#include <stdlib.h>

static const char text[] =
    "Measures the hosts of a job, all at once, and marks those that fall behind: the matrix rate of the kernels that training uses, "
    "memory\n"
    "copies, a file written and fsynced, the link to the next hosts (MPI, host memory), and clocks. Started like training, with as many\n"
    "ranks; a config says on what device (run.device, run.dtype, run.threads). Rank 0 prints a table, a line a host:\n"
    "\n"
    "    srun --mpi=pmix espalier preflight recipe.yaml --dir runs --exclude bad_nodes\n"
    "    sbatch --exclude=\"$(cat bad_nodes)\" slurm/full_finetuning.sbatch\n"
    "\n"
    "A rate below --share of the median over the hosts is marked with a star, as is a clock that is further than --clock from the "
    "median's.\n"
    "The exit code is 0 with and without marks; the file of --exclude holds the names of marked hosts, and is empty where there are "
    "none.\n";

typedef struct job {
    espl_words operands, sets;
    const char *folder, *exclude;
    double share, clock, seconds;
    int64_t disk, message; /* MiB */
} job;

static espl_status write_list(const char *path, const espl_preflight_host *hosts, int n) {
    espl_buffer list = {0};
    espl_buffer_printf(&list, "%s", "");
    for (int h = 0; h < n; h++)
        if (espl_preflight_marked(&hosts[h]))
            espl_buffer_printf(&list, "%s%s", list.size > 0 ? "," : "", hosts[h].name);
    if (list.size > 0)
        espl_buffer_printf(&list, "\n");
    espl_status status = espl_fs_write_file(path, list.data, list.size);
    espl_buffer_free(&list);
    return status;
}

/* Rank 0's. */
static espl_status tell(const job *job, espl_preflight_host *hosts, int n) {
    double medians[ESPL_N_MEASURES];
    int marked = espl_preflight_judge(hosts, n, job->share, job->clock, medians);
    espl_preflight_print(hosts, n, medians, stdout);
    printf("%d of %d hosts marked\n", marked, n);
    return job->exclude != NULL ? write_list(job->exclude, hosts, n) : ESPL_OK;
}

static espl_status check(const job *job) {
    if (!(job->share > 0.0 && job->share < 1.0 && job->clock > 0.0 && job->seconds >= 0.0))
        ESPL_FAIL(ESPL_ERR_USAGE, "--share %g --clock %g --seconds %g: a share between 0 and 1 and positive seconds are expected",
                  job->share, job->clock, job->seconds);
    if (job->disk < 1 || job->disk > 1 << 20 || job->message < 1 || job->message > 1 << 10)
        ESPL_FAIL(ESPL_ERR_USAGE, "--disk %lld --message %lld: MiB are expected, 1 to 1048576 and 1 to 1024", (long long)job->disk,
                  (long long)job->message);
    return ESPL_OK;
}

static espl_status body(espl_comm *comm, void *context) {
    const job *job = context;
    espl_config config;
    espl_preflight_host *hosts = NULL;
    int n = 0;
    espl_status status = ESPL_OK;
    ESPL_TRY(check(job));
    espl_config_make(&config);
    const char *recipe = job->operands.n > 0 ? job->operands.items[0] : NULL;
    ESPL_TRY_DONE(espl_recipe_share(comm, recipe, &job->sets, &config));
    espl_log_set(espl_comm_ranks(comm)->rank, config.log_level, NULL);
    const espl_preflight_options options = {
        .folder = job->folder, .seconds = job->seconds, .disk_bytes = job->disk << 20, .message_bytes = job->message << 20};
    ESPL_TRY_DONE(espl_preflight_measure(comm, &config, &options, &hosts, &n));
    status = espl_comm_ranks(comm)->rank == 0 ? tell(job, hosts, n) : ESPL_OK;
    ESPL_TRY_DONE(espl_comm_agree(comm, status, "writing the list of hosts"));
done:
    free(hosts);
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_preflight(int argc, char **argv) {
    job job = {.folder = ".", .share = 0.8, .clock = 1.0, .seconds = 0.5, .disk = 256, .message = 32};
    const espl_option options[] = {
        {"dir", "FOLDER", "where the disk is measured: the file system of run.dir (default: here)", ESPL_OPTION_TEXT, &job.folder},
        {"exclude", "FILE", "write the marked hosts there, as sbatch --exclude takes them", ESPL_OPTION_TEXT, &job.exclude},
        {"share", "X", "the share of the median below which a rate is marked (default 0.8)", ESPL_OPTION_FLOAT, &job.share},
        {"clock", "SECONDS", "how far a clock may be off (default 1)", ESPL_OPTION_FLOAT, &job.clock},
        {"seconds", "SECONDS", "how long matrix products and copies are repeated (default 0.5)", ESPL_OPTION_FLOAT, &job.seconds},
        {"disk", "MIB", "size of the file that each host writes (default 256)", ESPL_OPTION_INT, &job.disk},
        {"message", "MIB", "size of a message between hosts (default 32)", ESPL_OPTION_INT, &job.message},
        ESPL_OPTION_SET(&job.sets),
    };
    const espl_usage usage = {
        .verb = "preflight", .operands = "[CONFIG.yaml]", .text = text, ESPL_OPTIONS(options), .min_operands = 0, .max_operands = 1};
    return espl_session_verb(&usage, argc, argv, &job.operands, body, &job);
}
