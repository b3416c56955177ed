/* What moves between ranks while a training tape runs, where a rank does not hold it all: a bucket's gradients are sent to their owners as
 * soon as they are complete, and their place is another bucket's soon after.
 *
 * A flow is a list of moves, each before a call of the tape, and the places that they leave and fill, packed by lifetime as a tape's
 * buffers are. From the opening of a bucket, which comes before the first call that writes into it, to the move behind its own sum, which
 * waits for that sum, its place and its stage are its own. So one sum is under way at a time, behind the backward of the next bucket, and
 * the last one behind the next micro-batch's forward. */
#ifndef ESPL_MODEL_FLOW_H
#define ESPL_MODEL_FLOW_H

#include "src/model/tape.h"

typedef enum espl_move_kind {
    ESPL_MOVE_SETTLE, /* what the micro-batch before has left under way is waited for */
    ESPL_MOVE_OPEN,   /* the bucket's gradients are written from here on */
    ESPL_MOVE_SUM,    /* they are complete */
} espl_move_kind;

typedef struct espl_move {
    espl_move_kind kind;
    int bucket;
    int call; /* that comes next */
} espl_move;

/* How sums are made. */
typedef struct espl_flow_way {
    int ranks;
    bool tree;   /* a stage as long as the bucket; else one as long as a shard */
    bool narrow; /* no stage here */
} espl_flow_way;

typedef struct espl_flow {
    espl_move *moves;
    int n_moves;
    size_t *gradients, *stages; /* [n_buckets] bytes from where the flow's memory begins */
    size_t bytes;               /* of that */
} espl_flow;

/* Local. The flow of a training tape. */
void espl_flow_make(const espl_tape *tape, const espl_flow_way *way, espl_flow *flow);

/* Local. Frees the lists; the flow is then zeroed. Accepts a zeroed one. */
void espl_flow_free(espl_flow *flow);

#endif
