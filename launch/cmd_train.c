#include "launch/commands.h"
#include "launch/job_end.h"
#include "launch/recipe.h"
#include "launch/session.h"
#include "launch/signals.h"

#include "io/h5.h"
#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/log.h"
#include "src/train/weights/peft_folder.h"
#include "src/train/run.h"

#include <math.h>
#include <stdlib.h>

static const char text[] =
    "Trains by a config, on as many ranks as the launcher started (mpirun, srun), or on one without a launcher.\n"
    "SIGTERM, SIGUSR1, SIGUSR2 or SIGINT: a checkpoint is saved and the exit code is 75; the same command goes on from there. So it does\n"
    "before the job's time is up, where the batch system (Slurm, TORQUE, Flux) or run.walltime says when that is.\n";

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "GCC " __VERSION__
#endif

typedef struct job {
    espl_words operands, sets;
    const char *resume;
    char *command_line;
    double started;
} job;

static espl_status body(espl_comm *comm, void *context) {
    const job *job = context;
    espl_config config;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_recipe_share(comm, job->operands.items[0], &job->sets, &config));
    ESPL_TRY_DONE(espl_files_share(comm, (const char *const[]){config.model_adapter}, 1));
    ESPL_TRY_DONE(espl_session_agree(comm, espl_peft_settle(&config), "reading the adapter"));
    espl_log_set(espl_comm_ranks(comm)->rank, config.log_level, NULL);
    const espl_library libraries[] = {{"espalier", ESPL_VERSION},
                                      {"kernels", espl_kernels_describe()},
                                      {"MPI", espl_comm_library()},
                                      {"HDF5", espl_h5_version()},
                                      {"compiler", COMPILER}};
    espl_run_options options = {.resume = job->resume,
                                .stop_requested = espl_signals_pending,
                                .started = job->started,
                                .job_end = {.at = INFINITY},
                                .command_line = job->command_line,
                                .libraries = libraries,
                                .n_libraries = sizeof libraries / sizeof libraries[0]};
    if (espl_comm_ranks(comm)->rank == 0 && config.run_walltime[0] == '\0')
        espl_job_end_find(&options.job_end);
    ESPL_TRY_DONE(espl_train(&config, comm, &options));
done:
    espl_config_free(&config);
    return status;
}

static char *join(int argc, char **argv) {
    espl_buffer line = {0};
    espl_buffer_printf(&line, "espalier");
    for (int i = 0; i < argc; i++)
        espl_buffer_printf(&line, " %s", argv[i]);
    return line.data;
}

static espl_status run(void *context) {
    espl_signals_install();
    return espl_session_run(0, body, context);
}

espl_status espl_cmd_train(int argc, char **argv) {
    job job = {.resume = "auto", .command_line = join(argc, argv), .started = espl_now()};
    const espl_option options[] = {
        ESPL_OPTION_SET(&job.sets),
        {"resume", "WHAT", "auto (default): the newest good checkpoint in run.dir, if any; never: start anew; else a checkpoint's path",
         ESPL_OPTION_TEXT, &job.resume},
    };
    const espl_usage usage = {
        .verb = "train", .operands = "CONFIG.yaml", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 1};
    espl_status status = espl_options_run(&usage, argc, argv, &job.operands, run, &job);
    free(job.command_line);
    return status;
}
