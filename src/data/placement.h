/* Placing: which tokens micro-batch k of epoch e holds.
 *
 * A pure function of (seed, epoch, k): a keyed permutation, no state but a cursor. packed: whole documents (split at `length`) are
 * packed into micro-batches of at most `budget` tokens without padding, each piece a segment of its own; windows: fixed windows
 * of the running text, shifted by a keyed offset each epoch. Several sources are mixed by weight, also as a pure function.
 *
 * An epoch holds as many tokens as all sources together. By size, that is every token exactly once. By weight, source s gives the
 * share weight / sum of weights of it: its documents follow each other in passes without end, each pass in an order of its own,
 * and an epoch goes on where the one before ended; a small source is so repeated, a large one is not begun anew.
 * A piece's last token targets the next token of its document, also when that stands in another piece.
 *
 * The plan of an epoch is made when it is first asked for (one pass over document lengths) and takes a few numbers for every 4096
 * pieces; micro-batches near the last one asked for are cheap. So a placement holds caches: one thread at a time. */
#ifndef ESPL_DATA_PLACEMENT_H
#define ESPL_DATA_PLACEMENT_H

#include "src/core/status.h"

#include <stdbool.h>
#include <stdint.h>

/* One source of documents; arrays borrowed for the life of the placement. */
typedef struct espl_source {
    const char *name; /* for messages */
    int64_t n_tokens, n_documents;
    const int64_t *documents; /* [n_documents + 1] */
    const uint16_t *ids16;    /* one of the two */
    const uint32_t *ids32;
    const uint8_t *mask; /* or NULL */
    double weight;       /* relative share of tokens in an epoch's mix; where any source has <= 0, all are mixed by size */
} espl_source;

typedef struct espl_placement_options {
    int64_t budget; /* tokens of a micro-batch */
    int64_t length; /* longest document piece or window, <= budget */
    bool windows;   /* fixed windows instead of packed documents */
    bool shuffle;   /* off for evaluation: natural order, each source once, every epoch alike */
    uint64_t seed;
} espl_placement_options;

typedef struct espl_placement espl_placement;

/* One micro-batch as plain arrays, owned by the caller: room for budget tokens and budget + 1 segment offsets. */
typedef struct espl_sample {
    int64_t n;
    int32_t n_segments;
    int32_t *segments, *ids, *positions, *targets; /* targets: the next token of the text, -1 at its end or where masked */
    int64_t n_targets;
} espl_sample;

/* Local. Plans the placement. Errors: data, when the sources hold no target at all. */
espl_status espl_placement_make(const espl_source *sources, int64_t n_sources, const espl_placement_options *options,
                                espl_placement **placement);

/* Local. Micro-batches of epoch `epoch`. Two epochs may differ by a few (packing differs). */
int64_t espl_placement_count(espl_placement *placement, int64_t epoch);

/* Local. Fills micro-batch k of the epoch; k >= count gives n = 0. */
void espl_placement_fill(espl_placement *placement, int64_t epoch, int64_t k, espl_sample *sample);

/* Local. Target tokens of micro-batch k, without filling it. */
int64_t espl_placement_targets(espl_placement *placement, int64_t epoch, int64_t k);

/* Local. Memory for one sample of this placement, and its release. */
void espl_sample_make(int64_t budget, espl_sample *sample);
void espl_sample_free(espl_sample *sample);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_placement_free(espl_placement **placement);

#endif
