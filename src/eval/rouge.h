/* ROUGE (Lin 2004), as the rouge-score package computes it. */
#ifndef ESPL_EVAL_ROUGE_H
#define ESPL_EVAL_ROUGE_H

#include <stdbool.h>

typedef struct espl_agreement {
    double precision, recall, f1;
} espl_agreement;

/* Shares of common unigrams, bigrams, of the longest common subsequence of the whole texts, and of the union of those of their lines. */
typedef struct espl_rouge {
    espl_agreement one, two, longest, longest_of_lines;
} espl_rouge;

/* Local. Scores a prediction against its reference, both NUL-terminated UTF-8. Words are runs of a-z and 0-9 after lower case; `stem`
 * strips suffixes of words longer than three letters. */
espl_rouge espl_rouge_score(const char *reference, const char *prediction, bool stem);

#endif
