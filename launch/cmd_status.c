#include "launch/commands.h"
#include "launch/options.h"

#include "src/core/clock.h"
#include "src/report/run_status.h"

#include <stdlib.h>

static const char text[] =
    "Says how runs stand, from the files in their folders alone: whether one is done, stopped, failed or still heard of and why it ended,\n"
    "its step, loss, speed and time left, its newest checkpoint, its job. Needs no access to the job; works while it runs.\n";

static espl_status show(const char *folder, bool json) {
    espl_run_files run;
    json_t *status = NULL;
    ESPL_TRY(espl_run_files_read(folder, &run));
    espl_status result = espl_run_status_make(&run, espl_wall_clock(), &status);
    espl_run_files_free(&run);
    ESPL_TRY(result);
    if (json) {
        char *printed = json_dumps(status, JSON_COMPACT);
        printf("%s\n", printed != NULL ? printed : "{}");
        free(printed);
    } else {
        espl_run_status_print(status, stdout);
    }
    json_decref(status);
    return ESPL_OK;
}

typedef struct job {
    espl_words operands;
    bool json;
} job;

static espl_status answer(void *context) {
    const job *job = context;
    for (int64_t i = 0; i < job->operands.n; i++)
        ESPL_TRY(show(job->operands.items[i], job->json));
    return ESPL_OK;
}

espl_status espl_cmd_status(int argc, char **argv) {
    enum { MOST_RUNS = 1000 };
    job job = {0};
    const espl_option options[] = {{"json", NULL, "print a JSON object a run, each on a line", ESPL_OPTION_SWITCH, &job.json}};
    const espl_usage usage = {
        .verb = "status", .operands = "RUN...", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = MOST_RUNS};
    return espl_options_run(&usage, argc, argv, &job.operands, answer, &job);
}
