/* Which documents are kept for validation, and which stand in two places.
 *
 * Both go by hashes of texts (the token store's), so that a text and its copies are one, whatever file and order they stand in. */
#ifndef ESPL_DATA_SPLIT_H
#define ESPL_DATA_SPLIT_H

#include <stdbool.h>
#include <stdint.h>

/* Documents as they are judged here; arrays borrowed. */
typedef struct espl_texts {
    const uint64_t *hashes;
    const int32_t *labels; /* or NULL */
    const int64_t *chosen; /* or NULL: all n */
    int64_t n;
} espl_texts;

/* Of every label the share of texts that is kept: those with the smallest hashes. A pure function of the texts. */
typedef struct espl_split {
    uint64_t *last; /* [n_labels] largest hash that is kept; owned */
    bool *some;     /* [n_labels] whether any is */
    int64_t n_labels;
} espl_split;

/* Local. Splits all sources together; labels are below n_labels (1 where there are none). */
void espl_split_make(const espl_texts *sources, int64_t n_sources, int64_t n_labels, double fraction, espl_split *split);

/* Local. The numbers of a source's documents that are kept, or the others; the caller frees them. */
int64_t *espl_split_choose(const espl_split *split, const espl_texts *source, bool kept, int64_t *n);

/* Local. Frees and zeroes. */
void espl_split_free(espl_split *split);

typedef struct espl_repeats {
    int64_t texts;       /* that stand elsewhere, too */
    int64_t conflicting; /* of them with another label there */
} espl_repeats;

/* Local. Texts of `of` that stand in `in` too. */
espl_repeats espl_repeats_across(const espl_texts *of, int64_t n_of, const espl_texts *in, int64_t n_in);

/* Local. Texts that repeat an earlier one. */
espl_repeats espl_repeats_within(const espl_texts *sources, int64_t n_sources);

#endif
