/* What the files of placement share: a piece of text in a micro-batch, and how it becomes part of a sample. */
#ifndef ESPL_DATA_PIECES_H
#define ESPL_DATA_PIECES_H

#include "src/data/placement.h"

/* Tokens that stand together in a micro-batch as one segment. */
typedef struct espl_piece {
    int64_t begin, limit; /* limit: end of the text; the token before it has no target */
    int64_t document;     /* of the source; -1: a window */
    int32_t length;       /* of its tokens in the main stream, without a prompt */
    int32_t encoder;      /* in the encoder's; in the text they stand before those of the main stream */
    int32_t source, pass;
} espl_piece;

/* Local. Appends a piece to a sample; `first_document`: of the source among all. */
void espl__fill_piece(const espl_placement_options *options, const espl_source *source, const espl_piece *piece, int64_t first_document,
                      espl_sample *sample);

/* Local. The piece's targets, and what they weigh, without filling it. */
int64_t espl__piece_targets(const espl_placement_options *options, const espl_source *source, const espl_piece *piece, double *weight);

/* Local. What becomes of tokens [begin, begin + n) under a mask: shown[n] is what the model sees, targets[n] what it has to guess, -1:
 * nothing. A pure function of (seed, pass, source, token). Either may be NULL. Returns the targets. */
int64_t espl__mask_tokens(const espl_placement_options *options, const espl_source *source, const espl_piece *piece, int32_t *shown,
                          int32_t *targets);

/* Local. A token of the stream, of either width. */
static inline int32_t espl__id_at(const espl_source *source, int64_t token) {
    return source->ids16 != NULL ? (int32_t)source->ids16[token] : (int32_t)source->ids32[token];
}

#endif
