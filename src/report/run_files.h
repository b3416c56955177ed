/* What a run left in its folder, read for a report: metrics, evaluations, config, state. Works on a running job too. */
#ifndef ESPL_REPORT_RUN_FILES_H
#define ESPL_REPORT_RUN_FILES_H

#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* One column of the step or evaluation lines over the steps; what was null is left out. */
typedef struct espl_series {
    double *x, *y;
    int64_t n;
} espl_series;

typedef enum espl_run_state { ESPL_RUN_GOING, ESPL_RUN_DONE, ESPL_RUN_ENDED } espl_run_state; /* ENDED: summed up, but not done */

typedef struct espl_run_files {
    char *folder, *name; /* name: the folder's last part, made different where two runs share it */
    espl_run_state state;
    json_t *start;         /* the newest start line of metrics.jsonl, or NULL */
    json_t *summary;       /* the newest summary line, or NULL */
    json_t *copy;          /* that of the newest in-memory copy, or NULL */
    json_t *steps, *evals; /* arrays of lines */
    json_t *probes;        /* array of lines, one a set of data.probe and evaluation */
    json_t *events;        /* array of the other lines: spikes, rollbacks, stragglers, ... */
    json_t *evaluations;   /* array of what `espalier eval` wrote, by step */
    char *config;          /* config.yaml, or NULL */
} espl_run_files;

/* Local. Reads a run folder. A torn last line (a running job) is left out. Errors: data, when the folder is no run; io. */
espl_status espl_run_files_read(const char *folder, espl_run_files *run);

/* Local. One column of lines (run->steps or run->evals) over "step". The caller frees. */
espl_series espl_series_of(const json_t *lines, const char *column);
void espl_series_free(espl_series *series);

/* Local. The newest value of a column; NAN where there is none. */
double espl_last_of(const json_t *lines, const char *column);

/* Local. Frees and zeroes. */
void espl_run_files_free(espl_run_files *run);

#endif
