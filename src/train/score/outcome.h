/* What an evaluation comes to: scores, and of a classifier the confusion matrix, its calibration and its worst mistakes. */
#ifndef ESPL_TRAIN_OUTCOME_H
#define ESPL_TRAIN_OUTCOME_H

#include "src/train/score/evaluate.h"

#include <jansson.h>

typedef struct espl_outcome {
    espl_eval_result result;
    espl_predictions predictions; /* of a classifier; else empty */
    json_t *report;               /* as src/report/report_evaluation.h has it, but for what needs the texts */
} espl_outcome;

/* Local. Makes the report of an evaluation that has been made: `result` and `predictions` are there. The same on all ranks. Errors: usage,
 * when eval.positive is no label. */
espl_status espl_outcome_make(const espl_config *config, const espl_labels *labels, espl_outcome *outcome);

/* Local. A score by its name, NAN where the evaluation has none such. */
double espl_outcome_score(const espl_outcome *outcome, const char *name);

/* What an evaluation was made on; borrowed. */
typedef struct espl_outcome_about {
    const espl_config *config;
    const espl_labels *labels;
    const espl_strings *paths; /* the data's, as the config names them */
    const char *model;
    json_t *probes; /* as espl_probes_report has it; NULL or empty: none */
    int64_t step;   /* -1: unknown */
} espl_outcome_about;

/* Local. Writes evaluation.json and, of a classifier, predictions.jsonl (a line a document: document, text, label, predicted, probability
 * of that, probabilities, loss) into a folder, which is made; for one rank. Texts are read from the data again. Errors: io, data. */
espl_status espl_outcome_write(const espl_outcome *outcome, const espl_outcome_about *about, const char *folder);

/* Local. Frees and zeroes. */
void espl_outcome_free(espl_outcome *outcome);

#endif
