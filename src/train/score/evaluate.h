/* Evaluation: mean loss over a dataset, exact whatever the number of ranks. */
#ifndef ESPL_TRAIN_EVALUATE_H
#define ESPL_TRAIN_EVALUATE_H

#include "kernels/engine.h"
#include "src/model/flow.h"
#include "src/train/feed/dataset.h"
#include "src/train/score/predictions.h"

/* What an evaluation found; the same on all ranks, whatever their number. */
typedef struct espl_eval_result {
    double loss; /* nats a target token */
    int64_t targets;
    int64_t bytes; /* of text that the targets stand for */
    double seconds;
} espl_eval_result;

/* What it runs on; borrowed. */
typedef struct espl_evaluation {
    espl_comm *comm;
    const espl_engine *engine;
    const espl_dataset *data;
    const espl_tape *tape; /* ESPL_USE_EVAL, bound */
    espl_sample *sample;
    espl_exact *sum;               /* on the device; overwritten */
    espl_predictions *predictions; /* of a classifier: gets this rank's, then those of all ranks; NULL: the loss alone */
    int64_t most;                  /* micro-batches at most; 0: all */
    int64_t step;                  /* for the watchdog */
    const espl_flow *flow;         /* of weights that are cut over the ranks; NULL: all are there */
    espl_status (*move)(void *context, const espl_move *move); /* makes its moves; collective */
    void *context;
} espl_evaluation;

/* Collective. Each rank takes every size-th micro-batch; losses are added exactly. Where weights flow all go through the tape together, and
 * a rank without a micro-batch makes the moves alone. */
espl_status espl_evaluate(const espl_evaluation *evaluation, espl_eval_result *result);

#endif
