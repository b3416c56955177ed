#include "launch/commands.h"
#include "launch/options.h"

#include "io/fsio.h"
#include "src/report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char text[] =
    "Writes the report of a run: curves of loss, rate, gradient norm and throughput, evaluations with confusion matrix and worst "
    "mistakes,\n"
    "samples, config and provenance. One file that needs no network; it may be made while the job runs. Several runs are compared on one\n"
    "page. The file is report.html (or report.md) in the run's folder, or --output; its path is printed.\n";

typedef struct job {
    espl_words operands;
    const char *format, *output;
} job;

static espl_status write_report(void *context) {
    const job *job = context;
    espl_buffer page = {0};
    espl_status status = ESPL_OK;
    bool markdown = job->format != NULL && strcmp(job->format, "md") == 0;
    char *path =
        job->output != NULL ? espl_strdup(job->output) : espl_format("%s/report.%s", job->operands.items[0], markdown ? "md" : "html");
    if (job->format != NULL && !markdown && strcmp(job->format, "html") != 0)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "--format %s: expected html or md", job->format);
    if (job->operands.n > 1 && job->output == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "%lld runs are compared: --output must say where the report goes", (long long)job->operands.n);
    ESPL_TRY_DONE(espl_report_make(job->operands.items, job->operands.n, markdown ? &espl_page_markdown : &espl_page_html, &page));
    ESPL_TRY_DONE(espl_fs_write_file(path, page.data, page.size));
    printf("%s\n", path);
done:
    espl_buffer_free(&page);
    free(path);
    return status;
}

espl_status espl_cmd_report(int argc, char **argv) {
    enum { MOST_RUNS = 8 };
    job job = {0};
    const espl_option options[] = {
        {"format", "html|md", "what to write; html when absent", ESPL_OPTION_TEXT, &job.format},
        {"output", "FILE", "where to write it", ESPL_OPTION_TEXT, &job.output},
    };
    const espl_usage usage = {
        .verb = "report", .operands = "RUN...", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = MOST_RUNS};
    return espl_options_run(&usage, argc, argv, &job.operands, write_report, &job);
}
