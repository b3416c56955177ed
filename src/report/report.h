/* The report of one run, or of several side by side: one page with curves, evaluations, mistakes, samples, config and provenance.
 *
 * It reads what the run left in its folder (metrics.jsonl, evaluations/, config.yaml, done), so it works while the job runs, after it, and
 * on another machine. The HTML needs nothing from outside: no network, no scripts. */
#ifndef ESPL_REPORT_REPORT_H
#define ESPL_REPORT_REPORT_H

#include "src/core/buffer.h"
#include "src/core/status.h"
#include "src/report/page.h"

/* Local. Appends the report of `n` run folders to `out`. Errors: data, when a folder is no run; io. */
espl_status espl_report_make(const char *const *folders, int64_t n, const espl_page_format *format, espl_buffer *out);

#endif
