/* What moves between ranks while a tape runs: a bucket's weights come from those who updated them. Where a rank does not hold it all, a
 * bucket's gradients are sent to their owners as soon as they are complete, too, and its weights are fetched from theirs shortly before
 * they are used; what has been used makes place for others.
 *
 * A flow is a list of moves, each before a call of the tape, and the places that they leave and fill, packed by lifetime as a tape's
 * buffers are.
 *
 * Whole weights: what the last update has left under way of a bucket is waited for before the first call that reads it, so that gathers
 * go on behind forward. Later micro-batches of a step find nothing under way there.
 *
 * Gradients: from the opening of a bucket, which comes before the first call that writes into it, to the move behind its own sum, which
 * waits for that sum, its place and its stage are its own. So one sum is under way at a time, behind the backward of the next bucket, and
 * the last one behind the next micro-batch's forward.
 *
 * Weights: the calls that use a bucket, up to where two other buckets have been used since, are a window. Each is fetched when the one
 * before it begins, so one comes while another is used; so does the first of the next micro-batch of the same step, behind the last of this
 * one (`ahead`). That of a step's first is waited for. */
#ifndef ESPL_MODEL_FLOW_H
#define ESPL_MODEL_FLOW_H

#include "src/model/tape.h"

typedef enum espl_move_kind {
    ESPL_MOVE_UPDATED, /* the bucket's weights, whole on every rank, are read from here on as the last update has made them */
    ESPL_MOVE_FETCH,   /* the window's weights are to be sent for; its place is free */
    ESPL_MOVE_ARRIVE,  /* they are used from here on */
    ESPL_MOVE_SETTLE,  /* what the micro-batch before has left under way of sums is waited for */
    ESPL_MOVE_OPEN,    /* the bucket's gradients are written from here on */
    ESPL_MOVE_SUM,     /* they are complete */
} espl_move_kind;

typedef struct espl_move {
    espl_move_kind kind;
    int bucket;
    int window; /* of FETCH and ARRIVE; else -1 */
    int call;   /* that comes next */
    bool next;  /* of FETCH: for the next micro-batch */
} espl_move;

typedef struct espl_window {
    int bucket, first, last; /* calls that use it */
    size_t offset;           /* bytes from where windows lie */
} espl_window;

/* What flows, and how sums are made. */
typedef struct espl_flow_way {
    int ranks, shards; /* of the job, whose number buckets are padded for; of those that a bucket is cut over */
    bool updates;      /* of weights that are whole on every rank */
    bool gradients, weights;
    bool ahead;  /* weights do not change between this micro-batch and the next */
    bool tree;   /* a stage as long as the bucket; else one as long as a shard */
    bool narrow; /* no stage here */
} espl_flow_way;

typedef struct espl_flow {
    espl_move *moves;
    int n_moves;
    size_t *gradients, *stages; /* [n_buckets] bytes from where the gradients' memory begins; NULL: they do not flow */
    size_t gradient_bytes;      /* of that */
    espl_window *windows;       /* in the order in which they are first used */
    int n_windows;
    bool ahead;           /* the first window is fetched by the micro-batch before, but for a step's first */
    size_t window_bytes;  /* of their memory */
    size_t fetched_bytes; /* of all windows, one after the other */
} espl_flow;

/* Local. The flow of a tape. */
void espl_flow_make(const espl_tape *tape, const espl_flow_way *way, espl_flow *flow);

/* Local. The window of a bucket's weights at a call; NULL where it has none. */
const espl_window *espl_flow_window(const espl_flow *flow, int bucket, int call);

/* Local. Whether a FETCH is to be made in a micro-batch of a step: what comes ahead is fetched once. */
bool espl_flow_fetches(const espl_flow *flow, const espl_move *move, bool first, bool last);

/* What runs a flow hands over to: stretches of calls [from, to), and what is between them. */
typedef struct espl_flow_hooks {
    void *context;
    espl_status (*stretch)(void *context, int number, int from, int to);
    espl_status (*move)(void *context, const espl_move *move);
} espl_flow_hooks;

/* Local. Goes through the calls and moves of a tape; stretches are numbered by the move behind them. */
espl_status espl_flow_run(const espl_flow *flow, const espl_tape *tape, const espl_flow_hooks *hooks);

/* Local. Frees the lists; the flow is then zeroed. Accepts a zeroed one. */
void espl_flow_free(espl_flow *flow);

#endif
