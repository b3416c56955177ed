/* Packing pieces into bins of a fixed budget.
 *
 * Best fit, longest first: at most 11/9 of the best number of bins (Johnson, "Near-optimal bin packing algorithms", 1973), and within
 * a percent of full for lengths of real text. Bins are found by their free space through a two-level bitmap. Pieces of two measures, both
 * of which have a budget, take the square of their number. */
#ifndef ESPL_DATA_PACKING_H
#define ESPL_DATA_PACKING_H

#include <stdint.h>

typedef struct espl_packer espl_packer; /* working memory, kept between calls */

/* Local. A packer of bins of `budget`, at most INT32_MAX, and of `second` of a second measure, 0: there is none. */
espl_packer *espl__packer_make(int64_t budget, int64_t second);

/* Local. From now on a bin holds at most so many pieces, whatever room is left; 0: any number. Not for pieces of two measures. */
void espl__packer_limit(espl_packer *packer, int64_t pieces);

/* Local. Says in bin[i] where piece i (1 <= length[i] <= budget, 0 <= second[i] <= the packer's; NULL where it has none) goes; returns the
 * number of bins. */
int64_t espl__pack_best_fit(espl_packer *packer, const int32_t *length, const int32_t *second, int64_t n, int32_t *bin);

/* Local. The same in the order given: a bin is closed when the next piece does not fit. */
int64_t espl__pack_next_fit(const espl_packer *packer, const int32_t *length, const int32_t *second, int64_t n, int32_t *bin);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl__packer_free(espl_packer **packer);

#endif
