/* The order in which an epoch visits its sources.
 *
 * A unit is a document, or a window of the running text. Source s is an endless stream: pass after pass over its units, each pass
 * in a keyed order of its own. An epoch e takes of it the units that begin in tokens [e Q_s, (e + 1) Q_s) of that stream, where the
 * quota Q_s is the source's share of the tokens of all sources; with shares by size this is pass e, every unit once. Sources are
 * interleaved by how far each is through its quota, so any stretch of an epoch has the mix of the whole. Without shuffling the
 * sources follow each other, each once and in its own order, in every epoch alike. */
#ifndef ESPL_DATA_VISITS_H
#define ESPL_DATA_VISITS_H

#include "src/data/placement.h"

typedef struct espl_visit {
    int64_t begin, end; /* tokens of the unit */
    int64_t limit;      /* end of the text that the unit belongs to: the last token before it has no target */
    int64_t document;   /* of the source; -1: a window */
    int32_t source, pass;
} espl_visit;

/* Where an epoch stands in one source. */
typedef struct espl_cursor {
    int64_t pass, index; /* the next unit */
    int64_t offset;      /* tokens from the epoch's begin in the stream to that unit's begin */
} espl_cursor;

typedef struct espl_visits espl_visits;

/* Local. Plans the quotas. Sources are borrowed. */
espl_visits *espl__visits_make(const espl_source *sources, int64_t n_sources, const espl_placement_options *options);

/* Local. Sets cursors[n_sources] to the begin of an epoch. */
void espl__visits_begin(espl_visits *visits, int64_t epoch, espl_cursor *cursors);

/* Local. The next unit that is not empty; moves the cursors on. False at the end of the epoch. */
bool espl__visits_next(espl_visits *visits, espl_cursor *cursors, espl_visit *visit);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl__visits_free(espl_visits **visits);

#endif
