/* The part of a report that tells what a run noticed by itself: spikes, rollbacks, slow ranks, saves that were left out. */
#ifndef ESPL_REPORT_REPORT_EVENTS_H
#define ESPL_REPORT_REPORT_EVENTS_H

#include "src/report/page.h"
#include "src/report/run_files.h"

/* Local. Writes a section with the latest events of the runs; nothing when there was none. */
void espl__report_events(const espl_page_format *page, const espl_run_files *runs, int64_t n, espl_buffer *out);

#endif
