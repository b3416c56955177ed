/* The result of a sweep: one table, best run first, and the curves of the best; as a page and as CSV. */
#ifndef ESPL_REPORT_REPORT_SWEEP_H
#define ESPL_REPORT_REPORT_SWEEP_H

#include "src/report/page.h"

/* One run; strings are borrowed. */
typedef struct espl_sweep_row {
    const char *name, *folder;
    const char **values; /* [n_keys] */
    char state[48];      /* "done", "stopped", "waiting", or what the caller knows better */
    double best, last;   /* of the score; NAN: unknown */
    double loss;         /* of the newest training step */
    int64_t steps;
    espl_series curve, losses; /* of the score, and of training, over the steps */
} espl_sweep_row;

typedef struct espl_sweep_result {
    const char *title;
    const char *const *keys; /* that vary */
    int64_t n_keys;
    espl_sweep_row *rows;
    int64_t n;
    const char *score; /* column of the evaluations in metrics.jsonl; changed to "loss" where no run was evaluated */
    bool higher;       /* is better */
} espl_sweep_result;

/* Local. Reads what the runs left: states that are "" , scores, curves; then sorts, best first, unknown last. A folder that is not there is
 * a run that waits. Errors: io. */
espl_status espl_sweep_result_read(espl_sweep_result *result);

/* Local. Appends the table with curves, a page; the table alone; the table as CSV. */
void espl_sweep_result_page(const espl_sweep_result *result, const espl_page_format *page, espl_buffer *out);
void espl_sweep_result_table(const espl_sweep_result *result, const espl_page_format *page, espl_buffer *out);
void espl_sweep_result_csv(const espl_sweep_result *result, espl_buffer *out);

/* Local. Frees the curves. */
void espl_sweep_result_free(espl_sweep_result *result);

#endif
