/* BLEU (Papineni et al. 2002) and chrF (Popovic 2015) of a corpus, as sacrebleu computes them. */
#ifndef ESPL_EVAL_BLEU_H
#define ESPL_EVAL_BLEU_H

#include <stdint.h>

enum { ESPL_BLEU_ORDER = 4, ESPL_CHRF_ORDER = 6 };

/* Counts of a corpus so far; zeroed at first. Those of two parts of a corpus add up. */
typedef struct espl_bleu {
    int64_t correct[ESPL_BLEU_ORDER], total[ESPL_BLEU_ORDER]; /* n-grams of the predictions */
    int64_t prediction_words, reference_words;
} espl_bleu;

typedef struct espl_chrf {
    int64_t prediction[ESPL_CHRF_ORDER], reference[ESPL_CHRF_ORDER], matches[ESPL_CHRF_ORDER];
} espl_chrf;

/* Local. Adds one prediction and its reference (NUL-terminated UTF-8), in the tokenisation 13a. */
void espl_bleu_add(espl_bleu *bleu, const char *reference, const char *prediction);

/* Local. 0 .. 100, of four orders, with exponential smoothing and the brevity penalty. */
double espl_bleu_score(const espl_bleu *bleu);

/* Local. Adds one prediction and its reference: n-grams of characters without white space. */
void espl_chrf_add(espl_chrf *chrf, const char *reference, const char *prediction);

/* Local. 0 .. 100: the F score that weighs recall twice, over the mean precision and recall of six orders. */
double espl_chrf_score(const espl_chrf *chrf);

#endif
