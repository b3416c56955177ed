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

espl_status espl_cmd_status(int argc, char **argv) {
    enum { MOST_RUNS = 1000 };
    espl_words operands = {0};
    bool json = false, done;
    const espl_option options[] = {{"json", NULL, "print a JSON object a run, each on a line", ESPL_OPTION_SWITCH, &json}};
    const espl_usage usage = {.verb = "status",
                              .operands = "RUN...",
                              .text = text,
                              .options = options,
                              .n_options = sizeof options / sizeof options[0],
                              .min_operands = 1,
                              .max_operands = MOST_RUNS};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_options_parse(&usage, argc, argv, &operands, &done));
    for (int64_t i = 0; !done && i < operands.n; i++)
        ESPL_TRY_DONE(show(operands.items[i], json));
done:
    espl_words_free(&operands);
    return status;
}
