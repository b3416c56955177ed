/* The tape: a model's rows as a fixed list of kernel calls, and where each of their tensors lies.
 *
 * Three uses of the same rows: training (forward, then the rows upside-down, with what `recompute` asks to be computed again, and a
 * bucket mark where the gradients of a bucket are complete), evaluation (forward), and generation (forward with cached attention, up
 * to the last norm). The list and the lifetimes of all buffers are made once; offsets in the ACT arena let buffers share memory when
 * their lives do not overlap. Running the tape decides nothing. */
#ifndef ESPL_MODEL_TAPE_H
#define ESPL_MODEL_TAPE_H

#include "kernels/engine.h"
#include "src/model/model.h"

typedef enum espl_use { ESPL_USE_TRAIN, ESPL_USE_EVAL, ESPL_USE_GENERATE } espl_use;
typedef enum espl_call_kind { ESPL_CALL_FORWARD, ESPL_CALL_BACKWARD, ESPL_CALL_BUCKET } espl_call_kind;

/* One entry of the list. Tensors are buffer numbers, -1 none. */
typedef struct espl_call {
    espl_call_kind kind;
    int row, bucket;
    bool again; /* computed before, computed again for backward */
    int in[ESPL_MAX_IN], out[ESPL_MAX_OUT], din[ESPL_MAX_IN], dout[ESPL_MAX_OUT];
    bool first_write[ESPL_MAX_PARAM]; /* no earlier call of this pass writes that parameter's gradient */
    bool din_add[ESPL_MAX_IN];        /* a later user of that input has left its gradient there */
} espl_call;

typedef struct espl_life {
    const char *name; /* borrowed */
    int layer;
    espl_stream stream;         /* whose rows it has */
    int64_t width;              /* elements a row */
    bool stat, gradient, fixed; /* fixed: one row */
    size_t bytes, offset;
    int first, last; /* calls */
} espl_life;

typedef struct espl_tape {
    const espl_model *model;
    const espl_kernels *kernels;
    espl_use use;
    int phase;                      /* of training: which parameters have gradients */
    int64_t n_rows[ESPL_N_STREAMS]; /* at most, of each stream */
    espl_call *calls;
    int n_calls, n_encode; /* n_encode: of generation, the calls of the encoder, which come first and run once a sequence */
    espl_life *lives;      /* the buffers */
    int n_lives;
    int loss, hidden; /* buffers that the caller reads: loss a row (training, evaluation); what the head multiplies (generation) */
    int logits;       /* of a classifier's evaluation, else -1: [sequences, labels] real */
    size_t act_bytes, work_bytes;
    espl_args *args; /* [n_calls], after binding */
    char *act;
} espl_tape;

/* Local. Makes the list for micro-batches of this capacity. `recompute`: ESPL_RECOMPUTE_*, for training, as is `phase`: what is
 * not trained in it has no gradient, and nothing below its lowest trained row a backward. Needs no memory for tensors. */
void espl_tape_make(const espl_model *model, const espl_kernels *kernels, espl_use use, int recompute, int phase,
                    const espl_capacity capacity[ESPL_N_STREAMS], int threads, espl_tape *tape);

/* Where a tape's tensors lie; borrowed. */
typedef struct espl_places {
    void *weights;                /* flat space of parameters, real */
    void *gradients;              /* the same places, stat; NULL outside training */
    const struct espl_flow *flow; /* NULL: that is so; else what moves (flow.h) has its places there: */
    void *windows;                /* in this memory weights, `weights` being those that are frozen alone; in `gradients` gradients */
    int ranks;                    /* for the padding of buckets */
    void *act, *work;
    const float *rope; /* the model's table where kernels can read it; NULL: the model's own */
} espl_places;

/* Local. Resolves every buffer and parameter to a pointer. */
void espl_tape_bind(espl_tape *tape, const espl_places *places);

/* What the runner calls on its way; each may be NULL. */
typedef struct espl_hooks {
    void *context;
    espl_status (*after_call)(void *context, const espl_tape *tape, int call, const espl_batch *batch);
    espl_status (*bucket)(void *context, int bucket); /* this bucket's gradients are complete */
} espl_hooks;

/* Local. A stream's rows of a micro-batch, given by its main stream; NULL where it has none. */
const espl_batch *espl_tape_stream(const espl_batch *batch, espl_stream stream);

/* Local. The op that runs for a row: in generation the main stream attends over the cache. */
espl_op espl_tape_op(const espl_tape *tape, const espl_row *row);

/* Local. Runs the list on one micro-batch, given by its main stream. `fresh`: gradients are overwritten; else added to what is there. */
espl_status espl_tape_run(const espl_tape *tape, const espl_batch *batch, bool fresh, const espl_hooks *hooks);

/* Local. The same for calls [from, to): the whole of a training tape, or between two moves of a flow, which take the place of the marks of
 * buckets. */
espl_status espl_tape_run_part(const espl_tape *tape, int from, int to, const espl_batch *batch, bool fresh, const espl_hooks *hooks);

/* Local. The encoder's part of a generation tape; what the others read of it stays until the next time. espl_tape_run then runs those. */
espl_status espl_tape_encode(const espl_tape *tape, const espl_batch *batch);

/* Local. Pointer of a buffer of a bound tape. */
void *espl_tape_buffer(const espl_tape *tape, int life);

/* Local. Adds the losses that the last run has left, of all rows that the engine works on, to `sum` on the device. */
void espl_tape_sum_loss(const espl_tape *tape, const espl_engine *engine, const espl_batch *batch, espl_exact *sum);

/* Local. Frees the lists; the tape is then zeroed. */
void espl_tape_free(espl_tape *tape);

#endif
