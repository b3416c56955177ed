/* The part of a report that tells of evaluations: what `espalier eval` left in the run's evaluations/NAME/evaluation.json.
 *
 * The object there: "task", "model", "step", "data" [files], "examples", "scores" {name: number}; of classifiers "labels" [names],
 * "classes" [{label, precision, recall, f1, support}], "confusion" [[row: true class]], "calibration" [{n, confidence, accuracy}],
 * "threshold" {label, threshold, precision, recall, f1, reached}, "mistakes" [{text, gold, predicted, probability, loss}]; of generation
 * "samples" [{input, reference, prediction}]. What is absent is left out. */
#ifndef ESPL_REPORT_REPORT_EVALUATION_H
#define ESPL_REPORT_REPORT_EVALUATION_H

#include "src/report/page.h"
#include "src/report/run_files.h"

/* Local. Writes a section for each evaluation of the run. */
void espl__report_evaluations(const espl_page_format *page, const espl_run_files *run, espl_buffer *out);

#endif
