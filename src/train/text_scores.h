/* What an encoder-decoder writes for a dataset's sources, and how near that is to the targets. */
#ifndef ESPL_TRAIN_TEXT_SCORES_H
#define ESPL_TRAIN_TEXT_SCORES_H

#include "src/train/inference.h"
#include "src/train/outcome.h"

/* Collective. Generates for every source of the data (generate.* says how; each rank its share, so the texts do not depend on their
 * number), and on rank 0 adds to outcome->report "scores" rouge1, rouge2, rougeL, rougeLsum (mean F1), bleu, chrf, exact_match, and
 * "samples". With `folder` rank 0 writes predictions.jsonl there: document, input, reference, prediction and its ROUGE. Errors: usage,
 * data, io. */
espl_status espl_text_scores_add(espl_comm *comm, const espl_inference *model, const espl_dataset *data, const espl_outcome_about *about,
                                 const char *folder, espl_outcome *outcome);

#endif
