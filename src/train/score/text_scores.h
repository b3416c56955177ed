/* What a model writes for a dataset's prompts or sources, and how near that is to the targets. */
#ifndef ESPL_TRAIN_TEXT_SCORES_H
#define ESPL_TRAIN_TEXT_SCORES_H

#include "io/tokenizer/tokenizer.h"
#include "src/eval/kv_decoder.h"
#include "src/train/score/asked.h"
#include "src/train/score/outcome.h"

/* Local. Whether eval.best names a score of texts, which training then generates for. */
bool espl_text_scores_rate(const espl_config *config);

/* Local. What the decoder that generates for an evaluation has to hold, when no prompt or source has more than `longest` tokens; model,
 * kernels, device and threads are the caller's to set. */
espl_decoder_size espl_text_scores_size(const espl_config *config, int64_t longest);

/* What texts are generated with; borrowed. */
typedef struct espl_text_scores_use {
    espl_comm *comm;
    const espl_model *model;
    const espl_tokenizer *tokenizer;
    const espl_asked *asked;
    espl_decoder *decoder; /* of espl_text_scores_size, bound */
    int64_t step;          /* for the watchdog */
} espl_text_scores_use;

/* Collective. Generates for what is asked (generate.* says how; each rank its share, so the texts do not depend on their number), and adds
 * to outcome->report "scores" rouge1, rouge2, rougeL, rougeLsum (mean F1), bleu, chrf, exact_match and, where all references are JSON
 * objects or arrays or eval.best asks for them, json_valid (share of texts that are JSON) and json_keys (share of texts that are objects
 * with the keys of their references), the same on all ranks, and on rank 0 "samples". With `folder` rank 0 writes predictions.jsonl there:
 * document, input, reference, prediction and its ROUGE. Errors: usage, data, io. */
espl_status espl_text_scores_add(const espl_text_scores_use *use, const espl_outcome_about *about, const char *folder,
                                 espl_outcome *outcome);

#endif
