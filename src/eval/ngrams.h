/* Sequences of symbols for text scores: words or characters as numbers, and the n-grams that two sequences share. */
#ifndef ESPL_EVAL_NGRAMS_H
#define ESPL_EVAL_NGRAMS_H

#include "src/core/buffer.h"

#include <stdbool.h>
#include <stdint.h>

/* A sequence of symbols; equal numbers mean equal symbols, within one espl_vocabulary. */
typedef struct espl_symbols {
    int32_t *items;
    int64_t n, capacity;
} espl_symbols;

/* Words of the two texts that are compared, numbered as they come. */
typedef struct espl_vocabulary {
    espl_buffer text; /* all words, one after another */
    size_t *begins;   /* [n + 1] */
    int32_t *table;   /* open addressing, -1 empty */
    int64_t n, capacity, slots;
} espl_vocabulary;

/* What two sequences have in common: n-grams of each, and matches, where one occurrence matches one other at most. */
typedef struct espl_overlap {
    int64_t first, second, matches;
} espl_overlap;

/* Local. The number of a word, the same for the same bytes. */
int32_t espl_vocabulary_number(espl_vocabulary *vocabulary, const char *word, size_t size);

/* Local. Appends a symbol. */
void espl_symbols_add(espl_symbols *symbols, int32_t symbol);

/* Local. Counts n-grams of order n >= 1. */
espl_overlap espl_ngram_overlap(const espl_symbols *first, const espl_symbols *second, int order);

/* Local. The next word of a NUL-terminated text between white space (Unicode's, as Python's str.split has it); *text moves behind it. False
 * when none is left. */
bool espl_next_word(const char **text, const char **word, size_t *size);

/* Local. Frees and zeroes. */
void espl_symbols_free(espl_symbols *symbols);
void espl_vocabulary_free(espl_vocabulary *vocabulary);

#endif
