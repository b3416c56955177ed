#include "launch/commands.h"
#include "launch/job_end.h"
#include "launch/recipe.h"
#include "launch/session.h"

#include "src/core/log.h"
#include "src/train/doctor/doctor.h"

static const char text[] = "Looks at what a run needs of the machine and says what is wrong and what to do: MPI and its launcher, GPUs, "
                           "cores and threads, memory,\n"
                           "limits, shared memory, variables of the environment, the batch system, and the file system of run.dir, where a "
                           "file is written, synced\n"
                           "and renamed as a checkpoint is. Takes seconds. Without a launcher it looks at this machine; with one, as a run "
                           "is started, at all hosts\n"
                           "of the job, also whether they see the same files and clocks:\n"
                           "\n"
                           "    srun --mpi=pmix espalier doctor recipe.yaml\n"
                           "\n"
                           "WARN: a run works, but slowly or not as it is meant to. FAIL: it will not work; the exit code is then 2, else "
                           "0. How fast hosts are is\n"
                           "for `espalier preflight` to measure.\n";

typedef struct job {
    espl_words operands, sets;
    const char *folder;
    bool json;
} job;

static espl_status tell(const job *job, const espl_findings *findings, int n_ranks) {
    if (job->json)
        espl_findings_print_json(findings, stdout);
    else
        espl_findings_print(findings, n_ranks, stdout);
    int failed = espl_findings_count(findings, ESPL_FAILS);
    if (failed > 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "%d thing%s would make a run fail: what FAIL says above", failed, failed > 1 ? "s" : "");
    return ESPL_OK;
}

static espl_status body(espl_comm *comm, void *context) {
    const job *job = context;
    bool first = espl_comm_ranks(comm)->rank == 0;
    espl_findings findings = {0};
    espl_config config;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_recipe_share(comm, job->operands.n > 0 ? job->operands.items[0] : NULL, &job->sets, &config));
    espl_log_set(espl_comm_ranks(comm)->rank, config.log_level, NULL);
    espl_doctor_options options = {.folder = job->folder != NULL ? job->folder : config.run_dir};
    if (first)
        espl_job_end_find(&options.job_end);
    ESPL_TRY_DONE(espl_doctor_examine(comm, &config, &options, &findings));
    status = first ? tell(job, &findings, espl_comm_ranks(comm)->size) : ESPL_OK;
    int64_t failed = status;
    if (espl_comm_bcast(comm, &failed, sizeof failed, 0) == ESPL_OK)
        status = (espl_status)failed; /* rank 0 has said why */
done:
    espl_findings_free(&findings);
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_doctor(int argc, char **argv) {
    job job = {0};
    const espl_option options[] = {
        {"dir", "FOLDER", "look at this file system (default: that of run.dir, or of the present folder)", ESPL_OPTION_TEXT, &job.folder},
        {"json", NULL, "print one JSON object", ESPL_OPTION_SWITCH, &job.json},
        ESPL_OPTION_SET(&job.sets),
    };
    const espl_usage usage = {
        .verb = "doctor", .operands = "[CONFIG.yaml]", .text = text, ESPL_OPTIONS(options), .min_operands = 0, .max_operands = 1};
    return espl_session_verb(&usage, argc, argv, &job.operands, body, &job);
}
