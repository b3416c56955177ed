#include "launch/commands.h"
#include "launch/recipe.h"
#include "launch/session.h"

#include "src/core/log.h"
#include "src/train/machine/bench_comm.h"
#include "src/train/machine/network_file.h"

#include <string.h>

static const char text[] =
    "comm: measures the sums and gathers that training uses, over sizes, with all ranks of the job, and fits latency and bandwidth to\n"
    "each; over several hosts, within hosts and between them apart. Started like training; a config says on what device:\n"
    "\n"
    "    srun --mpi=pmix espalier bench comm recipe.yaml --output network.json\n"
    "    espalier plan recipe.yaml --ranks 1024 --network network.json\n";

typedef struct job {
    espl_words operands, sets;
    const char *output;
    int64_t largest, rounds; /* MiB; of each size */
} job;

static espl_status check(const job *job) {
    if (strcmp(job->operands.items[0], "comm") != 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "bench: unknown subject '%s'; comm is expected", job->operands.items[0]);
    if (job->largest < 1 || job->largest > 4096 || job->rounds < 1 || job->rounds > 99)
        ESPL_FAIL(ESPL_ERR_USAGE, "--largest %lld --rounds %lld: MiB from 1 to 4096 and 1 to 99 rounds are expected",
                  (long long)job->largest, (long long)job->rounds);
    return ESPL_OK;
}

static espl_status body(espl_comm *comm, void *context) {
    const job *job = context;
    const bool first = espl_comm_ranks(comm)->rank == 0;
    const espl_bench_options options = {.largest = job->largest << 20, .rounds = job->rounds};
    espl_bench_comm bench;
    espl_config config;
    espl_status status = ESPL_OK;
    ESPL_TRY(check(job));
    espl_config_make(&config);
    const char *recipe = job->operands.n > 1 ? job->operands.items[1] : NULL;
    ESPL_TRY_DONE(espl_recipe_share(comm, recipe, &job->sets, &config));
    espl_log_set(espl_comm_ranks(comm)->rank, config.log_level, NULL);
    ESPL_TRY_DONE(espl_session_agree(comm, espl_bench_comm_measure(comm, &config, &options, &bench), "measuring"));
    if (first)
        espl_bench_comm_print(&bench, stdout);
    status = first && job->output != NULL ? espl_network_write(job->output, &bench.network) : ESPL_OK;
    ESPL_TRY_DONE(espl_comm_agree(comm, status, "writing the network"));
done:
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_bench(int argc, char **argv) {
    job job = {.largest = 64, .rounds = 9};
    const espl_option options[] = {
        {"output", "FILE", "write what was fitted there, as `espalier plan --network` takes it", ESPL_OPTION_TEXT, &job.output},
        {"largest", "MIB", "the largest array; sizes begin at 64 KiB and grow fourfold (default 64)", ESPL_OPTION_INT, &job.largest},
        {"rounds", "N", "how often each size is measured; the median counts (default 9)", ESPL_OPTION_INT, &job.rounds},
        ESPL_OPTION_SET(&job.sets),
    };
    const espl_usage usage = {
        .verb = "bench", .operands = "comm [CONFIG.yaml]", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 2};
    return espl_session_verb(&usage, argc, argv, &job.operands, body, &job);
}
