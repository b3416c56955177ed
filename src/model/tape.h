/* The tape: a model's rows as a fixed list of kernel calls, and where each of their tensors lies.
 *
 * Three uses of the same rows: training (forward, then the rows upside-down, with what `recompute` asks to be computed again, and a
 * bucket mark where the gradients of a bucket are complete), evaluation (forward), and generation (forward with cached attention, up
 * to the last norm). The list and the lifetimes of all buffers are made once; offsets in the ACT arena let buffers share memory when
 * their lives do not overlap. Running the tape decides nothing. */
#ifndef ESPL_MODEL_TAPE_H
#define ESPL_MODEL_TAPE_H

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
} espl_call;

typedef struct espl_life {
    const char *name; /* borrowed */
    int layer;
    int64_t width; /* elements a token */
    bool stat, gradient;
    size_t bytes, offset;
    int first, last; /* calls */
} espl_life;

typedef struct espl_tape {
    const espl_model *model;
    const espl_kernels *kernels;
    espl_use use;
    int64_t n_tokens;
    espl_call *calls;
    int n_calls;
    espl_life *lives; /* the buffers */
    int n_lives;
    int loss, hidden; /* buffers that the caller reads: loss a token [N] (training, evaluation); last normed values [N, D] */
    size_t act_bytes, work_bytes;
    espl_args *args; /* [n_calls], after binding */
    char *act;
} espl_tape;

/* Local. Makes the list for n_tokens a micro-batch. `recompute`: ESPL_RECOMPUTE_*, for training. Needs no memory for tensors. */
void espl_tape_make(const espl_model *model, const espl_kernels *kernels, espl_use use, int recompute, int64_t n_tokens, int threads,
                    espl_tape *tape);

/* Where a tape's tensors lie; borrowed. */
typedef struct espl_places {
    void *weights;   /* flat space of parameters, real */
    void *gradients; /* the same places, stat; NULL outside training */
    int ranks;       /* for the padding of buckets */
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

/* Local. Runs the list on one micro-batch. `fresh`: gradients are overwritten; else added to what is there. */
espl_status espl_tape_run(const espl_tape *tape, const espl_batch *batch, bool fresh, const espl_hooks *hooks);

/* Local. Pointer of a buffer of a bound tape. */
void *espl_tape_buffer(const espl_tape *tape, int life);

/* Local. Frees the lists; the tape is then zeroed. */
void espl_tape_free(espl_tape *tape);

#endif
