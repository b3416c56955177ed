/* A training run: everything that is open while it lasts, and the counters that a checkpoint carries.
 *
 * The loop (train.c) reads top to bottom; what it calls stands in one file each: run_open.c (opening and closing), step.c (one optimizer
 * step), run_evaluate.c, state.c (saving and resuming), rollback.c (going back). This is the only place where compute, ranks and files
 * meet. */
#ifndef ESPL_TRAIN_RUN_H
#define ESPL_TRAIN_RUN_H

#include "comm/comm.h"
#include "io/checkpoint/checkpoint.h"
#include "src/optim/optimizer.h"
#include "src/train/feed/dataset.h"
#include "src/train/health/judge.h"
#include "src/train/health/replicas.h"
#include "src/train/score/evaluate.h"
#include "src/train/memory/memory.h"
#include "src/train/log/metrics.h"
#include "src/train/score/probes.h"
#include "src/train/log/runinfo.h"
#include "src/train/log/tape_log.h"
#include "src/train/unfreeze.h"
#include "src/train/machine/stragglers.h"
#include "src/train/machine/walltime.h"

enum { ESPL_TAPE_GRAPHS = 4 };

/* What a checkpoint carries beside tensors. */
typedef struct espl_counters {
    int64_t step;          /* optimizer steps done, skipped ones included */
    int64_t updates;       /* steps that changed the weights: AdamW's t */
    int64_t epoch, cursor; /* next micro-batch to be used: epoch, and its number there */
    int64_t tokens;        /* tokens trained on */
    int64_t skipped;       /* steps skipped for non-finite values, or as spikes */
    int64_t skipped_in_row;
    double best_rating; /* of evaluations, lower is better; NAN when there was none */
    int64_t worse;      /* evaluations in a row that were no better than the best */
} espl_counters;

typedef struct espl_run {
    const espl_config *config;
    espl_comm *comm;
    const espl_ranks *ranks;
    espl_engine engine;
    char device_reason[ESPL_MESSAGE_BYTES]; /* why run.device: auto chose as it did; "" when it was told */
    int threads;
    espl_model *model;
    espl_tokenizer *tokenizer;
    espl_labels labels;       /* classification */
    espl_dataset data, valid; /* valid.n == 0: none */
    espl_probes probes;       /* data.probe */
    espl_blueprint blueprint;
    espl_memory memory;
    espl_replicas replicas;
    size_t process_bytes; /* resident before the memory was taken: the program, its libraries, the tokenizer, lists of the data */
    espl_graph **graphs;  /* [n_graphs] the recorded tape, in stretches (micro_batch.c); NULL: not yet */
    int n_graphs;
    bool tried; /* the phase's tape has run call by call, as it does before it is recorded */
    espl_optimizer optimizer;
    espl_update *updates;      /* [n_buckets] */
    espl_update_range *ranges; /* of all updates */
    espl_phases phases;
    espl_spikes spikes;
    espl_state_tensor *state; /* [n_state] what this rank keeps of each tensor, and reads from checkpoints */
    espl_state_tensor *saved; /* [n_state] what it writes into them */
    int64_t n_state;
    espl_state_memory state_memory; /* reaches tensors on a remote device; zeroed for the host */
    espl_checkpoints *saver;
    int64_t failed_saves;  /* those that were looked at */
    int64_t copied;        /* step of the newest in-memory copy that metrics.jsonl knows of; -1: none */
    espl_metrics *metrics; /* rank 0; NULL elsewhere */
    espl_counters counters;
    double rating;                   /* of the evaluation at step `rated`; lower is better */
    int64_t rated;                   /* -1: no evaluation by this process */
    int64_t best_written;            /* step of the best evaluation whose files stand; -1: none by this process */
    int64_t *votes;                  /* [ESPL_STEP_VOTES + ranks]: of a step's agreement, with what each rank took (step.c) */
    espl_stragglers stragglers;      /* rank 0 */
    char (*hosts)[64];               /* [ranks] rank 0; NULL elsewhere */
    espl_walltime walltime;          /* rank 0; elsewhere without an end */
    int64_t total_steps, first_step; /* first_step: counters.step when this process began */
    espl_tape_log *tape_log;         /* run.debug_tape; NULL without */
    double peak_flops;               /* of all ranks, measured */
    json_t *base;                    /* where the frozen parameters came from (base.h); NULL: nothing is frozen */
    json_t *provenance;              /* command line, versions, host and job: in every checkpoint and export */
    FILE *log;                       /* rank 0: log.txt */
    char ending[64];                 /* "stopped by ...", when it is */
    int (*stop_requested)(void);
} espl_run;

enum { ESPL_STEP_VOTES = 2 * ESPL_EXACT_WORDS + 3 };

typedef struct espl_run_options {
    const char *resume;          /* "auto", "never", or a checkpoint's path */
    int (*stop_requested)(void); /* a signal came; may be NULL */
    double started;              /* when this process began, of espl_now */
    espl_job_end job_end;        /* rank 0 */
    const char *command_line;    /* for provenance, as are the versions of the program and its libraries */
    const espl_library *libraries;
    size_t n_libraries;
} espl_run_options;

/* What one step did; the same on all ranks. */
typedef struct espl_step_result {
    double loss; /* mean over the step's target tokens */
    double grad_norm, lr;
    int64_t tokens, targets;
    int64_t epoch;
    bool skipped;                /* non-finite or a spike: no update */
    int64_t bad_since;           /* > 0: the run must go back to before this step; the step has not been counted */
    bool stop;                   /* some rank was asked to stop */
    espl_walltime_vote walltime; /* what the job's end asks for */
    double seconds, data_seconds, wait_seconds, update_seconds;
    double own_seconds; /* until the agreement, without waiting for others, a micro-batch; only this is of this rank */
} espl_step_result;

/* Collective. Opens a run: config agreed by all ranks, run folder, model, data, memory, weights or a checkpoint. */
espl_status espl_run_open(const espl_config *config, espl_comm *comm, const espl_run_options *options, espl_run *run);

/* Collective when nothing failed. Closes and zeroes; accepts a run that failed to open. */
void espl_run_close(espl_run *run);

/* Collective when nothing failed. Gives back what steps run in: recordings, bulk operations, memory. Only files can be worked on then. */
void espl_run_release(espl_run *run);

/* Local. Gives the recordings of the tape back. */
void espl_run_forget(espl_run *run);

/* Collective. One optimizer step. Where it leaves result->bad_since, espl_run_rollback must follow. Errors: numeric, when the step's
 * numbers end the run. */
espl_status espl_run_step(espl_run *run, espl_step_result *result);

/* Collective. Takes the run back to the newest checkpoint from before step result->bad_since, to go on behind the data of the step at hand:
 * run->counters has the place there. Errors: numeric, when no such checkpoint is there or the rollbacks are used up; io, data. */
espl_status espl_run_rollback(espl_run *run, const espl_step_result *result);

/* Local. Passes over the data of so many steps to come. */
void espl_run_pass(espl_run *run, int64_t steps);

/* Local. The tape of the phase that is under way. */
const espl_tape *espl_run_tape(const espl_run *run);

/* Collective, after espl_reducer_begin. Forward and backward of micro-batch i of the `count` that this rank has in the step: gradients are
 * assigned or added up, and each bucket leaves as soon as it may. */
espl_status espl_run_micro_batch(espl_run *run, const espl_batch *batch, int64_t i, int64_t count);

/* Local. Zeroes what backward does not write of a bucket's gradients, before it writes the rest. */
void espl_run_zero_gaps(const espl_run *run, int bucket);

/* Local. Passes on the status of what was asked of the device, or of bulk operations, in the loop. On several ranks a failure ends the
 * job here and now: the others' devices may wait for this one's, and then nobody there comes to agree on anything. */
espl_status espl_run_device(espl_run *run, espl_status status);

/* Collective. The loss on the base's own domain (data.probe), unless it was looked at at this step. */
espl_status espl_run_probe(espl_run *run);

/* Collective. Evaluates, unless that has been done at this step, and probes. What the run ends with (`final`) is also written to
 * run.dir/evaluations, and with checkpoint.keep_best the evaluation of the best model so far. */
espl_status espl_run_evaluate(espl_run *run, bool final);

/* Collective. Compares what all ranks hold a copy of, unless that has been done at this step or run.check_replicas_every is 0. Errors:
 * numeric, naming ranks, hosts and tensor. */
espl_status espl_run_compare(espl_run *run);

/* Collective. Saves a checkpoint of the present state (in the background when the config says so), which espl_run_compare has looked at. */
espl_status espl_run_save(espl_run *run);

/* Collective. Begins an in-memory copy of the present state, where one can be made now. Replicas are not compared for it. */
espl_status espl_run_copy(espl_run *run);

/* Collective. Finds and loads what `resume` asks for; leaves the counters at zero when there is nothing. *loaded says which. */
espl_status espl_run_resume(espl_run *run, const char *resume, bool *loaded);

/* Local. The list of tensors that checkpoints hold, over this rank's memory, and how it is reached. */
void espl_run_list_state(espl_run *run);

/* Local. state_memory for calls of io/checkpoint/checkpoint.h; NULL for the host. */
const espl_state_memory *espl_run_state_memory(const espl_run *run);

/* Local. Whether what is done each `every` steps (0: never) is due after this step. */
static inline bool espl_run_due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

/* Collective. Trains: the whole of `espalier train` once the config is read. ESPL_STOPPED when stopped with a checkpoint saved. */
espl_status espl_train(const espl_config *config, espl_comm *comm, const espl_run_options *options);

#endif
