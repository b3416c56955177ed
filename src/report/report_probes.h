/* The part of a report that tells what a run forgot: the loss on the sets of data.probe over its steps, and before against after. */
#ifndef ESPL_REPORT_REPORT_PROBES_H
#define ESPL_REPORT_REPORT_PROBES_H

#include "src/report/page.h"
#include "src/report/run_files.h"

/* Local. Writes a section for the runs that have such sets; nothing when none has. */
void espl__report_probes(const espl_page_format *page, const espl_run_files *runs, int64_t n, espl_buffer *out);

#endif
